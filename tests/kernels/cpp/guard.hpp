// Memory that is NaN until somebody writes it, and is followed by bytes that nobody may; how much at most.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

extern "C" long overruns = 0, most = 0;

namespace std {

constexpr size_t BEFORE = 4096, BEHIND = 4096;

inline void* guarded_alloc(size_t alignment, size_t size) {
  char* all = static_cast<char*>(aligned_alloc(BEFORE, BEFORE + (size + BEHIND + BEFORE - 1) / BEFORE * BEFORE));
  most = max(most, long(size));
  memset(all, 0xff, BEFORE + size + BEHIND);
  memcpy(all, &size, sizeof(size));
  return all + BEFORE;
}

inline void guarded_free(void* given) {
  char* all = static_cast<char*>(given) - BEFORE;
  size_t size;
  memcpy(&size, all, sizeof(size));
  const auto written = [](char byte) { return byte != '\xff'; };
  overruns += count_if(all + sizeof(size), all + BEFORE, written);
  overruns += count_if(all + BEFORE + size, all + BEFORE + size + BEHIND, written);
  free(all);
}

}  // namespace std

#define aligned_alloc guarded_alloc
#define free guarded_free
