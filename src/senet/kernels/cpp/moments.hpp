// Mean and squared deviations: of a tile in two passes, tiles merged by Chan's formula; see tail.cpp.
#pragma once
#include "maps.hpp"

namespace {

// Sums and squared deviations of each of C channels, of so many numbers each.
struct Taken {
  double count;
  Only<double> sum, squares;
};

void merge(i64 C, const Taken& into, const Taken& other) {
  const double weight = into.count * other.count / (into.count + other.count);
  const bool any = into.count > 0;
  const double own = any ? 1 / into.count : 0, others = 1 / other.count;
  for (i64 j = 0; j < C; ++j) {
    const double delta = other.sum[j] * others - into.sum[j] * own;
    into.squares[j] += other.squares[j];
    // Nothing merged yet, Inf must not become 0 * Inf.
    if (any) into.squares[j] += delta * delta * weight;
    into.sum[j] += other.sum[j];
  }
}

// The moments of a tile into sum and squares, by way of three lines.
template <class A>
void moments_of_tile(const A* __restrict x, i64 count, const Grid& grid, A* __restrict lines,
                     const Taken& taken) {
  const i64 width = grid.width;
  Only<A> middle = lines, first = lines + width, second = lines + 2 * width;
  std::fill_n(lines, 3 * width, A(0));
  // Four short lines at once: a sum is then read and written once for four numbers. Long ones are read
  // more slowly so.
  const i64 four = width > LINE ? 0 : count - count % (4 * width);
  i64 at = 0;
  for (; at < four; at += 4 * width) {
    Only<const A> x0 = x + at, x1 = x0 + width, x2 = x1 + width, x3 = x2 + width;
    for (i64 j = 0; j < width; ++j) middle[j] += (x0[j] + x1[j]) + (x2[j] + x3[j]);
  }
  for (; at < count; at += width)
    for (i64 j = 0, end = std::min(width, count - at); j < end; ++j) middle[j] += x[at + j];
  fold(middle, grid);
  const A share = A(1 / taken.count);
  for (i64 j = 0; j < grid.channels; ++j) middle[j] *= share;
  repeat(middle, grid);
  for (at = 0; at < four; at += 4 * width) {
    Only<const A> x0 = x + at, x1 = x0 + width, x2 = x1 + width, x3 = x2 + width;
    for (i64 j = 0; j < width; ++j) {
      const A d0 = x0[j] - middle[j], d1 = x1[j] - middle[j], d2 = x2[j] - middle[j], d3 = x3[j] - middle[j];
      first[j] += (d0 + d1) + (d2 + d3);
      second[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
    }
  }
  for (; at < count; at += width)
    for (i64 j = 0, end = std::min(width, count - at); j < end; ++j) {
      const A off = x[at + j] - middle[j];
      first[j] += off;
      second[j] += off * off;
    }
  fold(first, grid);
  fold(second, grid);
  const double each = 1 / taken.count;
  for (i64 j = 0; j < grid.channels; ++j) {
    // What rounding left of the mean; Inf less Inf is no such thing.
    const double rest = middle[j] - middle[j] == 0 ? double(first[j]) : 0;
    taken.sum[j] = middle[j] * taken.count + rest;
    taken.squares[j] = second[j] - rest * rest * each;
  }
}

template <class A>
bool moments(const Grid& grid, Map u, A* mean, A* variance, i64 most) {
  const i64 C = grid.channels, tile = grid.tile * C, pairs = 2 * C;  // sums and squares
  const i64 bytes = (3 * grid.width + tile) * i64(sizeof(A)) + pairs * i64(sizeof(double));
  const auto start = [&](i64 chunk) { return std::min(chunk * grid.chunk, grid.positions); };
  const auto part = [&](char* own, double* sums, i64 sample, i64 chunk, i64) {
    auto* merged = reinterpret_cast<double*>(own);
    A* buffer = reinterpret_cast<A*>(merged + pairs);
    const i64 end = start(chunk + 1);
    for (i64 p = start(chunk); p < end; p += grid.tile) {
      const i64 many = std::min(grid.tile, end - p);
      const A* x = load(u, (sample * grid.positions + p) * C, many * C, buffer);
      const Taken taken{double(many), merged, merged + C};
      moments_of_tile(x, many * C, grid, buffer + tile, taken);
      merge(C, {double(p - start(chunk)), sums, sums + C}, taken);
    }
  };
  const auto finish = [&](i64 sample, double* sums) {
    for (i64 chunk = 1; chunk < grid.chunks; ++chunk) {
      double* other = sums + chunk * pairs;
      merge(C, {double(start(chunk)), sums, sums + C},
            {double(start(chunk + 1) - start(chunk)), other, other + C});
    }
    const double each = 1 / double(grid.positions);
    for (i64 j = 0; j < C; ++j) {
      mean[sample * C + j] = A(sums[j] * each);
      variance[sample * C + j] = A(sums[C + j] * each);
    }
  };
  return over_items(grid, most, bytes, pairs, false, part, finish);
}

}  // namespace
