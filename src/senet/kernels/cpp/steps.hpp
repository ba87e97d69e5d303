// What the steps compute at one position of a map; see tail.cpp.
#pragma once
#include <cmath>

#include "maps.hpp"

namespace {

enum Activation { IDENTITY, RELU, SILU, HARDSWISH };

// e^x to about one place of float, by branches that vectorise: 2^n e^r, the latter a polynomial.
INLINED float exponential(float x) {
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float whole = 12582912.0f;  // adding it rounds to an integer, in the lowest bits
  const float shifted = x * 1.44269504f + whole;
  const float n = shifted - whole;
  const float r = x - n * 0.693359375f - n * -2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  // 2^n in two factors: each is a normal number where the product is not.
  const auto power = std::int32_t(bits<std::uint32_t>(shifted) - bits<std::uint32_t>(whole));
  const std::int32_t half = power >> 1;
  y *= bits<float>(std::uint32_t(half + 127) << 23);
  return y * bits<float>(std::uint32_t(power - half + 127) << 23);
}

INLINED double exponential(double x) { return std::exp(x); }

template <class A>
struct Both {
  A value, slope;
};

// An activation and its derivative; a comparison with NaN is false, and NaN goes on.
template <int K, class A>
INLINED Both<A> activation(A v) {
  if constexpr (K == RELU) {
    const bool shut = v <= 0;
    return {shut ? A(0) : v, shut ? A(0) : A(1)};
  }
  if constexpr (K == SILU) {
    const A sigmoid = 1 / (1 + exponential(-v));
    return {v * sigmoid, sigmoid * (1 + v * (1 - sigmoid))};
  }
  if constexpr (K == HARDSWISH) {
    const A above = v + 3 < 0 ? A(0) : v + 3;
    const A inner = v < 3 ? v / 3 + A(0.5) : A(1);
    return {v * (above > 6 ? A(6) : above) / 6, v <= -3 ? A(0) : inner};
  }
  return {v, A(1)};
}

template <class A>
struct At {
  A x, y, z, w;  // of the maps
  A scale, mean, shift, f3, f4, f5, f6;
};

template <class A>
struct Result {
  A out;
  A s0, s1, s2, s3, s4;
};

// What each step computes at one position. In all of them scale, mean and shift are the norm's.
template <int K>
struct Pool {  // x: u
  static constexpr int maps = 1, sums = 1;
  static constexpr bool writes = false;
  template <class A>
  INLINED static Result<A> at(const At<A>& a) {
    return {0, activation<K>(a.scale * (a.x - a.mean) + a.shift).value, 0, 0, 0, 0};
  }
};

template <int K, bool RESIDUAL>
struct Apply {  // x: u, y: residual; f3: gate, f4: up to where ψ gives 0, NaN for nowhere
  static constexpr int maps = RESIDUAL ? 2 : 1, sums = 0;
  static constexpr bool writes = true;
  template <class A>
  INLINED static Result<A> at(const At<A>& a) {
    A out = a.f3 * activation<K>(a.scale * (a.x - a.mean) + a.shift).value;
    if constexpr (RESIDUAL) out += a.y;
    return {out <= a.f4 ? A(0) : out, 0, 0, 0, 0, 0};
  }
};

template <int K, bool MASKED, bool BOTH>
struct Reduce {  // x: g, y: u; where they are, out and then the second reader's gradient
  static constexpr int maps = 2 + MASKED + BOTH, sums = K == IDENTITY ? 2 : 5;
  static constexpr bool writes = MASKED || BOTH;
  template <class A>
  INLINED static Result<A> at(const At<A>& a) {
    const A g = BOTH ? a.x + (MASKED ? a.w : a.z) : a.x;
    const A gm = MASKED && a.z <= 0 ? A(0) : g;
    const A centred = a.y - a.mean;
    if constexpr (K == IDENTITY) return {gm, gm, gm * centred, 0, 0, 0};
    const auto v = activation<K>(a.scale * centred + a.shift);
    const A passed = gm * v.slope;
    return {gm, gm * v.value, passed, passed * centred, v.slope, v.slope * centred};
  }
};

// x: gm, y: u; f3: scale * gate, f4: scale * dz / S, and where gradients go through the statistics,
// f5: scale * dbias / count, f6: scale * inverse * dweight / count.
template <int K, bool THROUGH>
struct InputGradient {
  static constexpr int maps = K == IDENTITY && !THROUGH ? 1 : 2, sums = 0;
  static constexpr bool writes = true;
  template <class A>
  INLINED static Result<A> at(const At<A>& a) {
    A du = a.f3 * a.x + a.f4;
    const A centred = maps == 2 ? a.y - a.mean : A(0);
    if constexpr (K != IDENTITY) du *= activation<K>(a.scale * centred + a.shift).slope;
    if constexpr (THROUGH) du = du - a.f5 - a.f6 * centred;
    return {du, 0, 0, 0, 0, 0};
  }
};

}  // namespace
