// Maps in memory: their threads, types and cutting; see tail.cpp.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

// Code that every form of a step needs once: inlined, it would take longer to compile than the steps.
#define SEPARATE __attribute__((noinline))
// Code of the innermost loops: a call in them would keep them from becoming vectors.
#define INLINED __attribute__((always_inline)) inline

namespace {

using i64 = std::int64_t;

// A pointer to numbers that no other pointer at hand leads to.
template <class T>
using Only = T* __restrict;

constexpr i64 LINE = 64;       // numbers of a line, where C does not make it longer
constexpr i64 TILE = 2048;     // numbers of a tile: those of all maps stay in the first cache together
constexpr i64 ROWS = 8;        // lines of a tile at least: what is done once per tile must not weigh
constexpr i64 ITEM = 1 << 16;  // numbers that one thread takes at a time
constexpr int FACTORS = 7, SUMS = 5;

// --- The threads: PyTorch's own, handed over by their functions, so that no second pool comes into play.

void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
int (*thread_number)() = nullptr;
int (*team_size)() = nullptr;

template <class Body>
struct Shared {
  const Body& body;
  i64 items;
};

// body(thread, begin, end) for a partition of the items.
template <class Body>
void everywhere(i64 threads, i64 items, const Body& body) {
  if (threads <= 1 || items <= 1) return body(i64(0), i64(0), items);
  Shared<Body> shared{body, items};
  const auto run = [](void* given) {
    const auto& own = *static_cast<Shared<Body>*>(given);
    const i64 thread = thread_number(), team = team_size();
    own.body(thread, own.items * thread / team, own.items * (thread + 1) / team);
  };
  parallel(run, &shared, unsigned(threads), 0);
}

// --- Types of maps. Half precisions are converted by their bits, a tile at a time.

enum Type { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };
constexpr i64 BYTES[] = {4, 8, 2, 2};

template <class To, class From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline float from_bfloat16(std::uint16_t h) { return bits<float>(std::uint32_t(h) << 16); }

inline std::uint16_t to_bfloat16(float x) {
  const auto b = bits<std::uint32_t>(x);
  const std::uint32_t rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
  return std::uint16_t((b & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

inline float from_float16(std::uint16_t h) {
  const std::uint32_t magnitude = std::uint32_t(h & 0x7fffu) << 13;
  // 2^112 moves the exponent to float's; what was Inf or NaN (at least 2^16 then) becomes it again.
  const float moved = bits<float>(magnitude) * 0x1p112f;
  const auto special = bits<std::uint32_t>(moved) | 0x7f800000u;
  const auto plain = bits<std::uint32_t>(moved);
  return bits<float>((magnitude >= 0x0f800000u ? special : plain) | (std::uint32_t(h & 0x8000u) << 16));
}

inline std::uint16_t to_float16(float x) {
  const auto b = bits<std::uint32_t>(x);
  const std::uint32_t magnitude = b & 0x7fffffffu;
  // Below 2^-14 the sum with 0.5 rounds at float16's last place, and 0.5 has none of the 16 bits that
  // stay; above, the 13 bits that go decide.
  const std::uint32_t small = bits<std::uint32_t>(bits<float>(magnitude) + 0.5f);
  const std::uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  std::uint32_t h = magnitude < 0x38800000u ? small : normal;
  h = magnitude >= 0x477ff000u ? 0x7c00u : h;
  h = magnitude > 0x7f800000u ? 0x7e00u : h;
  return std::uint16_t(h | ((b >> 16) & 0x8000u));
}

struct Map {
  const void* data;
  int type;
};

template <class A>
constexpr int own_type() {
  return sizeof(A) == 4 ? FLOAT32 : FLOAT64;
}

// The numbers from offset on in the accumulation type: where they lie, or converted into the buffer.
template <class A>
SEPARATE const A* load(Map map, i64 offset, i64 count, A* __restrict buffer) {
  const char* from = static_cast<const char*>(map.data) + offset * BYTES[map.type];
  if (map.type == own_type<A>()) return reinterpret_cast<const A*>(from);
  const auto* f = reinterpret_cast<const float*>(from);
  const auto* d = reinterpret_cast<const double*>(from);
  const auto* h = reinterpret_cast<const std::uint16_t*>(from);
  switch (map.type) {
    case FLOAT32:
      for (i64 i = 0; i < count; ++i) buffer[i] = A(f[i]);
      break;
    case FLOAT64:
      for (i64 i = 0; i < count; ++i) buffer[i] = A(d[i]);
      break;
    case BFLOAT16:
      for (i64 i = 0; i < count; ++i) buffer[i] = A(from_bfloat16(h[i]));
      break;
    default:
      for (i64 i = 0; i < count; ++i) buffer[i] = A(from_float16(h[i]));
  }
  return buffer;
}

template <class A>
SEPARATE void store(const A* __restrict from, void* data, int type, i64 offset, i64 count) {
  char* to = static_cast<char*>(data) + offset * BYTES[type];
  auto* f = reinterpret_cast<float*>(to);
  auto* d = reinterpret_cast<double*>(to);
  auto* h = reinterpret_cast<std::uint16_t*>(to);
  switch (type) {
    case FLOAT32:
      for (i64 i = 0; i < count; ++i) f[i] = float(from[i]);
      break;
    case FLOAT64:
      for (i64 i = 0; i < count; ++i) d[i] = double(from[i]);
      break;
    case BFLOAT16:
      for (i64 i = 0; i < count; ++i) h[i] = to_bfloat16(float(from[i]));
      break;
    default:
      for (i64 i = 0; i < count; ++i) h[i] = to_float16(float(from[i]));
  }
}

// --- How a map is cut: by its shape alone.

struct Grid {
  i64 samples, channels, positions;  // of rows as above: for a contiguous map, N * C, 1 and S
  i64 own_channels;                  // C; where they are side by side, there are some
  i64 repeat, width;                 // positions of a line (a power of two), numbers of a line
  i64 tile;                          // positions of a tile
  i64 chunk, chunks;                 // positions of a chunk, chunks of a sample
  i64 group, groups;                 // samples of an item, items of all samples (per chunk)

  Grid(i64 n, i64 c, i64 s, bool last)
      : samples(last ? n : n * c), channels(last ? c : 1), positions(s), own_channels(c), repeat(1) {
    for (i64 more = 2; more * channels <= LINE && more <= positions; more *= 2) repeat = more;
    width = repeat * channels;
    tile = std::max(ROWS, TILE / width) * repeat;
    chunk = std::max(tile, ITEM / channels / tile * tile);
    chunks = std::max(i64(1), (positions + chunk - 1) / chunk);
    group = std::max(i64(1), ITEM / 2 / std::max(positions * channels, i64(1)));
    groups = (samples + group - 1) / group;
  }

  i64 items() const { return groups * chunks; }

  // A thread is worth waking for as much as PyTorch wakes one for.
  i64 threads(i64 most) const {
    return std::max(i64(1), std::min({most, items(), samples * channels * positions / 16384}));
  }
};

// Adds the positions of a line together, by halves; the sums are then in the first C numbers.
template <class A>
SEPARATE void fold(A* __restrict line, const Grid& grid) {
  if (grid.repeat == LINE) {  // one channel: counts that the compiler knows
    for (i64 half = LINE / 2; half > 0; half /= 2)
      for (i64 j = 0; j < half; ++j) line[j] += line[j + half];
    return;
  }
  for (i64 half = grid.width / 2, left = grid.repeat; left > 1; left /= 2, half /= 2)
    for (i64 j = 0; j < half; ++j) line[j] += line[j + half];
}

template <class A>
SEPARATE void repeat(A* line, const Grid& grid) {
  for (i64 done = grid.channels; done < grid.width; done *= 2)
    std::memcpy(line + done, line, done * sizeof(A));
}

// Memory of one call: so many bytes for each thread, and some for all. It may be null.
struct Memory {
  i64 threads, each;
  char* all;

  Memory(i64 many, i64 bytes, i64 common)
      : threads(many),
        each((bytes + 255) / 128 * 128),
        all(static_cast<char*>(std::aligned_alloc(128, (each * threads + common + 127) / 128 * 128))) {}
  Memory(const Memory&) = delete;
  ~Memory() { std::free(all); }
  double* of(i64 thread) const { return reinterpret_cast<double*>(all + thread * each); }
  double* shared() const { return of(threads); }
};

// Runs part(thread's memory, sums, sample, chunk, the sample before) over every sample and chunk, and
// finish(sample, sums) when all chunks of a sample are done; sums are `many` doubles per chunk.
template <class Part, class Finish>
bool over_items(const Grid& grid, i64 most, i64 bytes, i64 many, bool backwards, const Part& part,
                const Finish& finish) {
  const i64 threads = grid.threads(most), size = many * i64(sizeof(double));
  const bool whole = grid.chunks == 1;
  const Memory memory(threads, bytes + size, whole ? 0 : grid.samples * grid.chunks * size);
  if (memory.all == nullptr) return false;
  const auto kept = [&](i64 sample) { return memory.shared() + sample * grid.chunks * many; };
  everywhere(threads, grid.items(), [&](i64 thread, i64 begin, i64 end) {
    i64 before = -1;
    for (i64 i = begin; i < end; ++i) {
      // Backwards, where the sweep before went forwards: what that one left in the caches is read first.
      const i64 item = backwards ? end - 1 - (i - begin) : i, chunk = item % grid.chunks;
      const i64 first = item / grid.chunks * grid.group;
      for (i64 sample = first; sample < std::min(first + grid.group, grid.samples); ++sample) {
        // Behind the thread's own memory, which stays aligned so.
        double* sums = whole ? memory.of(thread + 1) - many : kept(sample) + chunk * many;
        std::fill_n(sums, many, 0.0);
        part(reinterpret_cast<char*>(memory.of(thread)), sums, sample, chunk, before);
        if (whole) finish(sample, sums);
        before = sample;
      }
    }
  });
  if (whole) return true;
  everywhere(threads, grid.samples, [&](i64, i64 begin, i64 end) {
    for (i64 sample = begin; sample < end; ++sample) finish(sample, kept(sample));
  });
  return true;
}

}  // namespace
