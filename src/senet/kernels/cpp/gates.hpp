// The work between the sweeps, on numbers per channel and sample; see tail.cpp. It is small, and one
// call costs less than the dozens of operators that it stands for. One thread does it.
#pragma once
#include "steps.hpp"

namespace {

enum Gate { SIGMOID, TANH, RELU_GATE, HARDSIGMOID };

template <class A>
Both<A> hidden(int kind, A v) {
  return kind == RELU        ? activation<RELU>(v)
         : kind == SILU      ? activation<SILU>(v)
         : kind == HARDSWISH ? activation<HARDSWISH>(v)
                             : activation<IDENTITY>(v);
}

// The gate of a line of numbers, in its place; `moved` is the form that is 1 at 0.
template <class A>
SEPARATE void open(int kind, bool moved, A* __restrict a, i64 count) {
  const A times = moved ? 2 : 1, plus = moved ? 1 : 0;
  if (kind == SIGMOID)
    for (i64 j = 0; j < count; ++j) a[j] = times / (1 + exponential(-a[j]));
  else if (kind == TANH)
    for (i64 j = 0; j < count; ++j) a[j] = plus + std::tanh(a[j]);
  else if (kind == RELU_GATE)
    for (i64 j = 0; j < count; ++j) a[j] = a[j] + plus <= 0 ? A(0) : a[j] + plus;
  else
    for (i64 j = 0; j < count; ++j) {
      const A above = a[j] + 3 < 0 ? A(0) : a[j] + 3;
      a[j] = times * ((above > 6 ? A(6) : above) / 6);
    }
}

// d *= the derivative of the gate that gave s.
template <class A>
SEPARATE void close(int kind, bool moved, const A* __restrict s, A* __restrict d, i64 count) {
  const A top = moved ? 2 : 1;
  if (kind == SIGMOID)
    for (i64 j = 0; j < count; ++j) d[j] *= s[j] * (1 - s[j] / top);
  else if (kind == TANH)
    for (i64 j = 0; j < count; ++j) d[j] *= moved ? s[j] * (2 - s[j]) : 1 - s[j] * s[j];
  else if (kind == RELU_GATE)
    for (i64 j = 0; j < count; ++j) d[j] *= s[j] <= 0 ? A(0) : A(1);
  else
    for (i64 j = 0; j < count; ++j) d[j] *= s[j] <= 0 || s[j] >= top ? A(0) : top / 6;
}

template <class A>
A dot(const A* __restrict x, const A* __restrict y, i64 count) {
  A lanes[16] = {};
  i64 j = 0;
  for (; j + 16 <= count; j += 16)
    for (int k = 0; k < 16; ++k) lanes[k] += x[j + k] * y[j + k];
  for (int k = 0; j + k < count; ++k) lanes[k] += x[j + k] * y[j + k];
  for (int half = 8; half > 0; half /= 2)
    for (int k = 0; k < half; ++k) lanes[k] += lanes[k + half];
  return lanes[0];
}

// Adds factor * x to a line of sums.
template <class B, class A>
void add(B* __restrict sum, A factor, const A* __restrict x, i64 count) {
  for (i64 j = 0; j < count; ++j) sum[j] += factor * x[j];
}

template <class B, class A>
void transpose(B* __restrict to, const A* __restrict from, i64 rows, i64 columns) {
  for (i64 i = 0; i < rows; ++i)
    for (i64 j = 0; j < columns; ++j) to[j * rows + i] = B(from[i * columns + j]);
}

// `unbiased` is what makes the batch's variance so.
template <class A>
bool statistics(i64 n, i64 C, const A* __restrict mean, const A* __restrict variance, const A* weight,
                const A* bias, double eps, double unbiased, A* __restrict batch_mean,
                A* __restrict batch_variance, A* __restrict inverse, A* __restrict scale, A* __restrict z) {
  const Memory memory(1, 2 * C * i64(sizeof(double)), 0);
  if (memory.all == nullptr) return false;
  Only<double> mu = memory.of(0), biased = mu + C;
  std::fill_n(mu, 2 * C, 0.0);
  for (i64 i = 0; i < n; ++i)
    for (i64 j = 0; j < C; ++j) mu[j] += mean[i * C + j];
  for (i64 j = 0; j < C; ++j) mu[j] /= double(n);
  for (i64 i = 0; i < n; ++i)
    for (i64 j = 0; j < C; ++j) {
      const double off = mean[i * C + j] - mu[j];
      biased[j] += variance[i * C + j] + off * off;
    }
  for (i64 j = 0; j < C; ++j) {
    biased[j] /= double(n);
    batch_mean[j] = A(mu[j]);
    batch_variance[j] = A(biased[j] * unbiased);
    inverse[j] = A(1 / std::sqrt(biased[j] + eps));
    scale[j] = weight[j] * inverse[j];
  }
  for (i64 i = 0; i < n; ++i)
    for (i64 j = 0; j < C; ++j) z[i * C + j] = scale[j] * (mean[i * C + j] - batch_mean[j]) + bias[j];
  return true;
}

struct Excited {
  i64 n, channels, hidden;
  int activation, gate;
  bool moved;
};

template <class A>
bool excitation(const Excited& at, const A* z, const A* w1, const A* b1, const A* w2, const A* b2,
                A* entering, A* s) {
  const i64 C = at.channels, H = at.hidden;
  const Memory memory(1, C * H * i64(sizeof(A)), 0);
  if (memory.all == nullptr) return false;
  A* turned = reinterpret_cast<A*>(memory.of(0));
  transpose(turned, w2, C, H);
  for (i64 i = 0; i < at.n; ++i) {
    A* own = s + i * C;
    for (i64 j = 0; j < C; ++j) own[j] = b2 ? b2[j] : A(0);
    for (i64 h = 0; h < H; ++h) {
      A& t = entering[i * H + h];
      t = dot(z + i * C, w1 + h * C, C) + (b1 ? b1[h] : A(0));
      add(own, hidden(at.activation, t).value, turned + h * C, C);
    }
  }
  open(at.gate, at.moved, s, at.n * C);
  return true;
}

// What gate_gradients is given; null pointers for what is not there.
template <class A>
struct Between {
  const A *sums, *ds, *s, *keep, *entering, *z, *w1, *w2, *sample_mean, *mean, *inverse, *scale, *shift;
  A positions;
  bool inner;  // whether there is an inner activation, and so five sums
};

template <class A>
struct Gradients {
  A *dz, *dw1, *db1, *dw2, *db2, *dweight, *dbias;
};

template <class A>
bool gate_gradients(const Excited& at, const Between<A>& in, const Gradients<A>& out) {
  const i64 n = at.n, C = at.channels, H = at.hidden, map = n * C;
  const bool normed = in.mean != nullptr;
  // Sums over samples in double: w1's, w2's turned, then b1's, b2's and the norm's two.
  const i64 many = 2 * C * H + H + 3 * C;
  const Memory memory(1, many * i64(sizeof(double)) + (C * H + C) * i64(sizeof(A)), 0);
  if (memory.all == nullptr) return false;
  double *dw1 = memory.of(0), *dw2 = dw1 + C * H, *db1 = dw2 + C * H, *__restrict db2 = db1 + H;
  Only<double> dweight = db2 + C, dbias = dweight + C;
  std::fill_n(dw1, many, 0.0);
  A *turned = reinterpret_cast<A*>(dbias + C), *__restrict dy = turned + C * H;
  transpose(turned, in.w2, C, H);
  for (i64 i = 0; i < n; ++i) {
    const i64 row = i * C;
    const A keep = in.keep ? in.keep[i] : A(1);
    Only<const A> first = in.sums + row, second = first + map, s = in.s + row;
    for (i64 j = 0; j < C; ++j) {
      if (in.inner)
        dy[j] = first[j] * keep;
      else if (normed)
        dy[j] = (in.scale[j] * second[j] + in.shift[j] * first[j]) * keep;
      else
        dy[j] = second[j] * keep;
    }
    for (i64 j = 0; j < C && in.ds; ++j) dy[j] += in.ds[row + j];
    close(at.gate, at.moved, s, dy, C);
    Only<A> dz = out.dz + row;
    std::fill_n(dz, C, A(0));
    for (i64 h = 0; h < H; ++h) {
      const auto act = hidden(at.activation, in.entering[i * H + h]);
      const A dt = dot(dy, turned + h * C, C) * act.slope;
      add(dz, dt, in.w1 + h * C, C);
      add(dw1 + h * C, dt, in.z + row, C);
      add(dw2 + h * C, act.value, dy, C);
      db1[h] += dt;
    }
    for (i64 j = 0; j < C; ++j) db2[j] += dy[j];
    if (!normed) continue;
    Only<const A> third = second + map, slopes = third + map, last = slopes + map;
    Only<const A> sample_mean = in.sample_mean + row;
    if (in.inner)
      for (i64 j = 0; j < C; ++j) {
        dbias[j] += s[j] * keep * second[j] + dz[j] * (slopes[j] / in.positions);
        dweight[j] += s[j] * keep * third[j] + dz[j] * (last[j] / in.positions);
      }
    else
      for (i64 j = 0; j < C; ++j) {
        dbias[j] += s[j] * keep * first[j] + dz[j];
        dweight[j] += s[j] * keep * second[j] + dz[j] * (sample_mean[j] - in.mean[j]);
      }
  }
  std::copy_n(dw1, C * H, out.dw1);
  std::copy_n(db1, H, out.db1);
  transpose(out.dw2, dw2, H, C);
  std::copy_n(db2, C, out.db2);
  for (i64 j = 0; j < C && normed; ++j) {
    out.dweight[j] = in.inverse[j] * A(dweight[j]);
    out.dbias[j] = A(dbias[j]);
  }
  return true;
}

}  // namespace
