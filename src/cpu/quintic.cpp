#include "cpu/quintic.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

template <class T, class Isa>
void Quintic<T, Isa>::locate(const QuinticTable<T>& table, int n, const T* s, const int* curve, QuinticArguments<T>& at, Arena& arena) {
  at.a = arena.take<const T*>(n);
  at.x = arena.take<T>(n);
  at.slope = arena.take<T>(n);
  for (int e = 0; e < n; ++e) {
    const double v = static_cast<double>(s[e]);
    int k = table.nintervals;  // below, and whatever is no number
    if (v >= table.hi) {
      k = table.nintervals + 1;
    } else if (v >= table.lo) {
      const int cell = static_cast<int>((v - table.lo) * table.inv_cell);
      k = table.interval[cell < table.ncells ? cell : table.ncells - 1];
    }
    at.a[e] = table.a + (static_cast<long>(curve[e]) * (table.nintervals + 2) + k) * quintic_terms * table.nc;
    at.x[e] = static_cast<T>((v - table.centre[k]) * table.inv_half[k]);
    at.slope[e] = static_cast<T>(table.inv_half[k]);
  }
}

template <class T, class Isa>
void Quintic<T, Isa>::values(const QuinticTable<T>& table, int ng, int m, T* G, const QuinticArguments<T>& at) {
  for (int c = 0; c < ng; ++c)
    for (int e = 0; e < m; ++e) {
      T value, slope;
      math::quintic(at.x[e], [&](int k) { return at.a[e][static_cast<long>(k) * table.nc + c]; }, value, slope);
      G[static_cast<long>(c) * m + e] = value;
    }
}

namespace {

/// Arguments that share the loads and stores of the sums.
constexpr int together = 4;
/// In the backward every argument has sums of its own, which have to stay in registers.
constexpr int together_backward = simd::vector_bytes == 64 ? 2 : 1;

/// What one argument brings into the loops over channels.
template <class T, int ROWS>
struct Argument {
  const T *a, *gate;
  T x, weight, r[ROWS];
};

template <class T, int ROWS>
DPA2_INLINE Argument<T, ROWS> argument(int e, int nc, const T* r, long ld, const QuinticArguments<T>& at, const QuinticGate<T>& gate) {
  Argument<T, ROWS> out;
  out.a = at.a[e];
  out.x = at.x[e];
  out.gate = gate.rows != nullptr ? gate.rows + static_cast<long>(gate.key[e]) * nc : nullptr;
  out.weight = gate.weight != nullptr ? gate.weight[e] : T(1);
  for (int row = 0; row < ROWS; ++row) out.r[row] = r[row * ld + e];
  return out;
}

/// The coefficients of a vector of channels from c on, for math::quintic.
template <class T>
DPA2_INLINE auto coefficients(const T* a, int nc, int c) {
  return [=](int k) __attribute__((always_inline)) { return load<T>(a + static_cast<long>(k) * nc + c); };
}

template <class T, int ROWS, int NE, bool gated>
void add_moments(int nc, T* Y, int e0, const T* r, long ld, const QuinticArguments<T>& at, const QuinticGate<T>& gate) {
  Argument<T, ROWS> in[NE];
  for (int e = 0; e < NE; ++e) in[e] = argument<T, ROWS>(e0 + e, nc, r, ld, at, gate);
  for (int c = 0; c < nc; c += width<T>) {
    Vec<T> y[ROWS];
    for (int row = 0; row < ROWS; ++row) y[row] = load<T>(Y + static_cast<long>(row) * nc + c);
    for (int e = 0; e < NE; ++e) {
      Vec<T> g, slope;
      math::quintic(in[e].x, coefficients(in[e].a, nc, c), g, slope);
      if constexpr (gated) g *= load<T>(in[e].gate + c) * in[e].weight + T(1);
      for (int row = 0; row < ROWS; ++row) y[row] += g * in[e].r[row];
    }
    for (int row = 0; row < ROWS; ++row) store<T>(Y + static_cast<long>(row) * nc + c, y[row]);
  }
}

template <class T, int ROWS, bool gated>
void all_moments(int nc, int n, T* Y, const T* r, long ld, const QuinticArguments<T>& at, const QuinticGate<T>& gate) {
  int e = 0;
  for (; e + together <= n; e += together) add_moments<T, ROWS, together, gated>(nc, Y, e, r, ld, at, gate);
  for (; e < n; ++e) add_moments<T, ROWS, 1, gated>(nc, Y, e, r, ld, at, gate);
}

template <class T, int ROWS, int NE, bool gated>
void differentiate(int nc, T* dr, T* ds, T* dweight, const T* dY, int e0, const T* r, long ld, const QuinticArguments<T>& at,
                   const QuinticGate<T>& gate) {
  Argument<T, ROWS> in[NE];
  for (int e = 0; e < NE; ++e) in[e] = argument<T, ROWS>(e0 + e, nc, r, ld, at, gate);
  Vec<T> acc[NE][ROWS] = {}, acc_s[NE] = {}, acc_w[NE] = {};
  for (int c = 0; c < nc; c += width<T>) {
    Vec<T> dy[ROWS];
    for (int row = 0; row < ROWS; ++row) dy[row] = load<T>(dY + static_cast<long>(row) * nc + c);
    for (int e = 0; e < NE; ++e) {
      Vec<T> g, slope;
      math::quintic(in[e].x, coefficients(in[e].a, nc, c), g, slope);
      Vec<T> h = dy[0] * in[e].r[0];
      for (int row = 1; row < ROWS; ++row) h += dy[row] * in[e].r[row];
      if constexpr (gated) {
        const Vec<T> gate_c = load<T>(in[e].gate + c), factor = gate_c * in[e].weight + T(1);
        acc_w[e] += h * g * gate_c;
        g *= factor;
        h *= factor;
      }
      acc_s[e] += h * slope;
      for (int row = 0; row < ROWS; ++row) acc[e][row] += dy[row] * g;
    }
  }
  for (int e = 0; e < NE; ++e) {
    for (int row = 0; row < ROWS; ++row) dr[row * ld + e0 + e] = sum<T>(acc[e][row]);
    ds[e0 + e] = sum<T>(acc_s[e]) * at.slope[e0 + e];
    if constexpr (gated) dweight[e0 + e] = sum<T>(acc_w[e]);
  }
}

template <class T, int ROWS, bool gated>
void differentiate_all(int nc, int n, T* dr, T* ds, T* dweight, const T* dY, const T* r, long ld, const QuinticArguments<T>& at,
                       const QuinticGate<T>& gate) {
  int e = 0;
  for (; e + together_backward <= n; e += together_backward)
    differentiate<T, ROWS, together_backward, gated>(nc, dr, ds, dweight, dY, e, r, ld, at, gate);
  for (; e < n; ++e) differentiate<T, ROWS, 1, gated>(nc, dr, ds, dweight, dY, e, r, ld, at, gate);
}

}  // namespace

template <class T, class Isa>
void Quintic<T, Isa>::moments(const QuinticTable<T>& table, int n, int rows, T* Y, const T* r, long ld, const QuinticArguments<T>& at,
                              const QuinticGate<T>& gate) {
  const bool gated = gate.rows != nullptr;
  if (rows == 4)
    gated ? all_moments<T, 4, true>(table.nc, n, Y, r, ld, at, gate) : all_moments<T, 4, false>(table.nc, n, Y, r, ld, at, gate);
  else
    gated ? all_moments<T, 1, true>(table.nc, n, Y, r, ld, at, gate) : all_moments<T, 1, false>(table.nc, n, Y, r, ld, at, gate);
}

template <class T, class Isa>
void Quintic<T, Isa>::moments_backward(const QuinticTable<T>& table, int n, int rows, T* dr, T* ds, T* dweight, const T* dY, const T* r,
                                       long ld, const QuinticArguments<T>& at, const QuinticGate<T>& gate) {
  const bool gated = gate.rows != nullptr;
  if (rows == 4)
    gated ? differentiate_all<T, 4, true>(table.nc, n, dr, ds, dweight, dY, r, ld, at, gate)
          : differentiate_all<T, 4, false>(table.nc, n, dr, ds, dweight, dY, r, ld, at, gate);
  else
    gated ? differentiate_all<T, 1, true>(table.nc, n, dr, ds, dweight, dY, r, ld, at, gate)
          : differentiate_all<T, 1, false>(table.nc, n, dr, ds, dweight, dY, r, ld, at, gate);
}

DPA2_INSTANTIATE(Quintic)

}  // namespace dpa2
