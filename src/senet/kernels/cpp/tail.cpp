// The steps of the fused tail over maps, for the CPU; senet/kernels/composite.py says what they compute.
//
// Every map is seen as samples of rows: S positions of C channels side by side (channels-last), or, for
// a contiguous map, N * C samples of S positions of one channel. Several positions make one line of at
// least LINE numbers where C is small, so that the innermost loop is always long, and its sums stand in
// as many accumulators. Sums are taken in the accumulation type within a tile and in double between
// tiles, in an order that depends on shapes alone: neither threads nor timing change a bit.
#include <limits>
#include <type_traits>

#include "gates.hpp"
#include "maps.hpp"
#include "moments.hpp"
#include "steps.hpp"

namespace {

// --- Sweeps: one expression at every position, from up to four maps, with factors and sums per channel.

// One step over one tile, line by line. For a contiguous map (ONE) a factor is the same all along a line.
template <class Step, bool ONE, class A>
void over_tile(i64 numbers, i64 width, const A* const* from, A* to, A* const* f, A* sums) {
  Only<const A> f0 = f[0], f1 = f[1], f2 = f[2], f3 = f[3], f4 = f[4], f5 = f[5], f6 = f[6];
  Only<A> s0 = sums, s1 = s0 + width, s2 = s1 + width, s3 = s2 + width, s4 = s3 + width;
  for (i64 start = 0; start < numbers; start += width) {
    Only<const A> x = from[0] + start, y = from[1] + start, z = from[2] + start, w = from[3] + start;
    Only<A> out = to + start;
    const i64 count = std::min(width, numbers - start);
#pragma omp simd
    for (i64 j = 0; j < count; ++j) {
      const i64 k = ONE ? 0 : j;
      const auto r =
          Step::at(At<A>{x[j], y[j], z[j], w[j], f0[k], f1[k], f2[k], f3[k], f4[k], f5[k], f6[k]});
      if constexpr (Step::writes) out[j] = r.out;
      if constexpr (Step::sums > 0) s0[j] += r.s0;
      if constexpr (Step::sums > 1) s1[j] += r.s1;
      if constexpr (Step::sums > 2) s2[j] += r.s2, s3[j] += r.s3, s4[j] += r.s4;
    }
  }
}

// A step, compiled for one kind of layout.
template <class A>
struct Form {
  bool one, writes;
  int maps, sums;
  void (*over_tile)(i64, i64, const A* const*, A*, A* const*, A*);
};

template <class Step, class A>
Form<A> form(bool last) {
  return {!last, Step::writes, Step::maps, Step::sums,
          last ? over_tile<Step, false, A> : over_tile<Step, true, A>};
}

// The factors of a step, as they are given: null pointers for those of a norm that is not there.
template <class A>
struct Given {
  const A *scale = nullptr, *mean = nullptr, *shift = nullptr;
  const A *gate = nullptr, *dz = nullptr, *inverse = nullptr, *dweight = nullptr, *dbias = nullptr;
  A bound = std::numeric_limits<A>::quiet_NaN();
  A positions = 1, count = 1;

  SEPARATE void channels(A* const* f, i64 c, i64 many) const {
    for (i64 j = 0; j < many; ++j) {
      f[0][j] = scale ? scale[c + j] : A(1);
      f[1][j] = mean ? mean[c + j] : A(0);
      f[2][j] = shift ? shift[c + j] : A(0);
      if (dz == nullptr) f[4][j] = bound;
      if (inverse == nullptr) continue;
      f[5][j] = f[0][j] * (dbias[c + j] / count);
      f[6][j] = f[0][j] * (inverse[c + j] * dweight[c + j] / count);
    }
  }

  SEPARATE void sample(A* const* f, i64 at, i64 many) const {
    if (gate == nullptr) return;
    for (i64 j = 0; j < many; ++j) f[3][j] = dz ? f[0][j] * gate[at + j] : gate[at + j];
    if (dz == nullptr) return;
    for (i64 j = 0; j < many; ++j) f[4][j] = f[0][j] * (dz[at + j] / positions);
  }
};

template <class A>
bool sweep(const Form<A>& step, const Grid& grid, const Map (&maps)[4], void* out, int type,
           const Given<A>& given, A* results, double divisor, bool backwards, i64 most) {
  const i64 C = grid.channels, width = grid.width, tile = grid.tile * C;
  const bool direct = type == own_type<A>();
  const auto part = [&](char* own, double* sums, i64 sample, i64 chunk, i64 before) {
    A* buffer = reinterpret_cast<A*>(own);
    A *lines = buffer + (step.maps + 1) * tile, *added = lines + FACTORS * width;
    A* f[FACTORS];
    for (int k = 0; k < FACTORS; ++k) f[k] = lines + k * width;
    if (step.one || before < 0) {
      given.channels(f, step.one ? sample % grid.own_channels : 0, C);
      for (int k = 0; k < FACTORS && !step.one; ++k) repeat(f[k], grid);
    }
    if (sample != before) {
      given.sample(f, sample * C, C);
      if (!step.one) repeat(f[3], grid), repeat(f[4], grid);
    }
    const i64 end = std::min((chunk + 1) * grid.chunk, grid.positions);
    for (i64 p = chunk * grid.chunk; p < end; p += grid.tile) {
      const i64 offset = (sample * grid.positions + p) * C, count = std::min(grid.tile, end - p) * C;
      const A* from[4];
      for (int m = 0; m < 4; ++m)
        from[m] = m < step.maps ? load(maps[m], offset, count, buffer + m * tile) : from[0];
      A* to = direct && step.writes ? static_cast<A*>(out) + offset : buffer + step.maps * tile;
      std::fill_n(added, step.sums * width, A(0));
      step.over_tile(count, width, from, to, f, added);
      if (step.writes && !direct) store(to, out, type, offset, count);
      for (int k = 0; k < step.sums; ++k) {
        fold(added + k * width, grid);
        for (i64 j = 0; j < C; ++j) sums[k * C + j] += added[k * width + j];
      }
    }
  };
  const i64 many = step.sums * C;
  const auto finish = [&](i64 sample, double* sums) {
    for (i64 at = many; at < grid.chunks * many; at += many)
      for (i64 j = 0; j < many; ++j) sums[j] += sums[at + j];
    for (int k = 0; k < step.sums; ++k)
      for (i64 j = 0; j < C; ++j) results[(k * grid.samples + sample) * C + j] = A(sums[k * C + j] / divisor);
  };
  const i64 bytes = ((step.maps + 1) * tile + (FACTORS + SUMS) * width) * i64(sizeof(A));
  return over_items(grid, most, bytes, many, backwards, part, finish);
}

// --- From what is known at run time to the form that is compiled for it.

// body(constant) for the activation with this number.
template <class Body>
bool with_activation(int inner, const Body& body) {
  switch (inner) {
    case IDENTITY:
      return body(std::integral_constant<int, IDENTITY>{});
    case RELU:
      return body(std::integral_constant<int, RELU>{});
    case SILU:
      return body(std::integral_constant<int, SILU>{});
    default:
      return body(std::integral_constant<int, HARDSWISH>{});
  }
}

template <class Body>
bool with_width(bool wide, const Body& body) {
  return wide ? body(double()) : body(float());
}

template <class A>
Given<A> norm(const void* scale, const void* mean, const void* shift) {
  Given<A> given;
  given.scale = static_cast<const A*>(scale);
  given.mean = static_cast<const A*>(mean);
  given.shift = static_cast<const A*>(shift);
  return given;
}

}  // namespace

// Every function gives back whether there was memory for it. wide says that factors and sums are double.
extern "C" {

void senet_threads(void* start, void* number, void* size) {
  parallel = reinterpret_cast<decltype(parallel)>(start);
  thread_number = reinterpret_cast<decltype(thread_number)>(number);
  team_size = reinterpret_cast<decltype(team_size)>(size);
}

bool senet_moments(const void* u, int u_type, i64 n, i64 c, i64 s, bool last, i64 threads, bool wide,
                   void* mean, void* variance) {
  return with_width(wide, [&](auto width) {
    using A = decltype(width);
    const Grid grid(n, c, s, last);
    return moments(grid, Map{u, u_type}, static_cast<A*>(mean), static_cast<A*>(variance), threads);
  });
}

bool senet_pool(const void* u, int u_type, i64 n, i64 c, i64 s, bool last, i64 threads, bool wide,
                const void* scale, const void* mean, const void* shift, int inner, void* z) {
  return with_width(wide, [&](auto width) {
    using A = decltype(width);
    const auto given = norm<A>(scale, mean, shift);
    return with_activation(inner, [&](auto k) {
      const Map maps[4] = {{u, u_type}};
      return sweep(form<Pool<k>, A>(last), {n, c, s, last}, maps, nullptr, 0, given, static_cast<A*>(z),
                   double(s), false, threads);
    });
  });
}

bool senet_apply(const void* u, int u_type, const void* residual, int residual_type, void* out, int out_type,
                 i64 n, i64 c, i64 s, bool last, i64 threads, bool wide, const void* scale, const void* mean,
                 const void* shift, const void* gate, int inner, bool relu) {
  return with_width(wide, [&](auto width) {
    using A = decltype(width);
    auto given = norm<A>(scale, mean, shift);
    given.gate = static_cast<const A*>(gate);
    if (relu) given.bound = 0;
    return with_activation(inner, [&](auto k) {
      const auto step = residual ? form<Apply<k, true>, A>(last) : form<Apply<k, false>, A>(last);
      const Map maps[4] = {{u, u_type}, {residual, residual_type}};
      return sweep(step, {n, c, s, last}, maps, out, out_type, given, static_cast<A*>(nullptr), 1, true,
                   threads);
    });
  });
}

bool senet_reduce(const void* g, int g_type, const void* second, int second_type, const void* out,
                  int out_type, const void* u, int u_type, void* gm, i64 n, i64 c, i64 s, bool last,
                  i64 threads, bool wide, const void* scale, const void* mean, const void* shift, int inner, void* sums) {
  return with_width(wide, [&](auto width) {
    using A = decltype(width);
    const auto given = norm<A>(scale, mean, shift);
    return with_activation(inner, [&](auto k) {
      const auto alone = out ? form<Reduce<k, true, false>, A>(last) : form<Reduce<k, false, false>, A>(last);
      const auto both = out ? form<Reduce<k, true, true>, A>(last) : form<Reduce<k, false, true>, A>(last);
      const auto step = second ? both : alone;
      // What is not there stands last, where it is not loaded.
      const Map third = out ? Map{out, out_type} : Map{second, second_type};
      const Map maps[4] = {{g, g_type}, {u, u_type}, third, {second, second_type}};
      return sweep(step, {n, c, s, last}, maps, gm, g_type, given, static_cast<A*>(sums), 1, false,
                   threads);
    });
  });
}

bool senet_input_gradient(const void* gm, int gm_type, const void* u, int u_type, void* du, i64 n, i64 c,
                          i64 s, bool last, i64 threads, bool wide, const void* scale, const void* mean,
                          const void* shift, const void* gate, const void* dz, const void* inverse,
                          const void* dweight, const void* dbias, i64 count, int inner) {
  return with_width(wide, [&](auto width) {
    using A = decltype(width);
    auto given = norm<A>(scale, mean, shift);
    given.gate = static_cast<const A*>(gate);
    given.dz = static_cast<const A*>(dz);
    given.inverse = static_cast<const A*>(inverse);
    given.dweight = static_cast<const A*>(dweight);
    given.dbias = static_cast<const A*>(dbias);
    given.positions = A(s);
    given.count = A(count);
    return with_activation(inner, [&](auto k) {
      const auto step = inverse ? form<InputGradient<k, true>, A>(last) : form<InputGradient<k, false>, A>(last);
      const Map maps[4] = {{gm, gm_type}, {u, u_type}};
      return sweep(step, {n, c, s, last}, maps, du, u_type, given, static_cast<A*>(nullptr), 1, true,
                   threads);
    });
  });
}

bool senet_statistics(bool wide, i64 n, i64 c, const void* mean, const void* variance, const void* weight,
                      const void* bias, double eps, double unbiased, void* batch_mean, void* batch_variance,
                      void* inverse, void* scale, void* z) {
  return with_width(wide, [&](auto width) {
    using A = decltype(width);
    const auto at = [](const void* given) { return static_cast<const A*>(given); };
    const auto to = [](void* given) { return static_cast<A*>(given); };
    return statistics(n, c, at(mean), at(variance), at(weight), at(bias), eps, unbiased, to(batch_mean),
                      to(batch_variance), to(inverse), to(scale), to(z));
  });
}

bool senet_excitation(bool wide, i64 n, i64 c, i64 hidden, int activation, int gate, bool moved,
                      const void* z, const void* w1, const void* b1, const void* w2, const void* b2,
                      void* entering, void* s) {
  return with_width(wide, [&](auto width) {
    using A = decltype(width);
    const auto at = [](const void* given) { return static_cast<const A*>(given); };
    return excitation({n, c, hidden, activation, gate, moved}, at(z), at(w1), at(b1), at(w2), at(b2),
                      static_cast<A*>(entering), static_cast<A*>(s));
  });
}

// in: the pointers of Between, out: those of Gradients, in their order.
bool senet_gate_gradients(bool wide, i64 n, i64 c, i64 hidden, int activation, int gate, bool moved,
                          const void* const* in, i64 positions, bool inner, void* const* out) {
  return with_width(wide, [&](auto width) {
    using A = decltype(width);
    const auto at = [&](int k) { return static_cast<const A*>(in[k]); };
    const auto to = [&](int k) { return static_cast<A*>(out[k]); };
    const Between<A> given{at(0), at(1), at(2),  at(3),  at(4),  at(5),        at(6), at(7),
                           at(8), at(9), at(10), at(11), at(12), A(positions), inner};
    return gate_gradients({n, c, hidden, activation, gate, moved}, given,
                          Gradients<A>{to(0), to(1), to(2), to(3), to(4), to(5), to(6)});
  });
}
}
