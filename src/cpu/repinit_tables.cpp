#include "cpu/repinit_tables.hpp"

#include "cpu/linear.hpp"
#include "cpu/simd.hpp"

namespace dpa2 {
namespace {

/// M (4, ngp) from plain sums over the edges to the mean over the slots, with the padded slots.
template <class T>
void finish_moments(const RepinitParams<Real<T>>& p, T* M, const RepinitPad<Real<T>>& pad) {
  const int ngp = padded<T>(p.ng);
  for (int x = 0; x < 4; ++x)
    for (int c = 0; c < ngp; ++c) {
      M[x * ngp + c] *= p.inv_nsel;
      if (pad.G != nullptr && c < p.ng) M[x * ngp + c] += pad.weight * pad.R[x] * pad.G[c];
    }
}

/// The edges of a centre in the groups of the series; false when one of them lies outside.
template <class T, class Isa>
bool group(const RepinitParams<Real<T>>& p, int n, const T* s, const int* combination, SeriesGroups<T>& groups, Arena& arena) {
  int* curve = arena.take<int>(n);
  for (int e = 0; e < n; ++e) curve[e] = p.net.typed ? combination[e] : 0;
  return Tabulate<T, Isa>::group(*p.table, n, s, curve, combination, p.ncombinations, groups, arena);
}

template <class T>
void gather(const RepinitParams<Real<T>>& p, int m, T* f, const T* R, const T* sw, const SeriesGroups<T>& groups) {
  const int np = groups.npositions;
  for (int q = 0; q < np; ++q) {
    const int e = groups.order[q];
    const T gate = e >= 0 && p.gate_switch ? sw[e] : T(1);
    for (int x = 0; x < 4; ++x) {
      const T r = e >= 0 ? R[x * m + e] : T(0);
      f[x * np + q] = r;
      if (p.gate != nullptr) f[(4 + x) * np + q] = r * gate;
    }
  }
}

/// Group by group: B (4 or 8, K) = sum of f times the series terms, then one product with the series.
template <class T, class Isa>
void series_moments(const RepinitParams<Real<T>>& p, T* M, const T* f, const SeriesGroups<T>& groups, const RepinitPad<Real<T>>& pad,
                    Arena& arena) {
  const Arena::Mark mark = arena.mark();
  constexpr int K = series_terms<T>;
  const int ngp = padded<T>(p.ng), rows = p.gate != nullptr ? 8 : 4;
  T* B = arena.take<T>(8L * K);
  T* Y = arena.take<T>(8L * ngp);
  for (long c = 0; c < 4L * ngp; ++c) M[c] = T(0);
  for (int g = 0; g < groups.ngroups; ++g) {
    Tabulate<T, Isa>::sums(groups, g, rows, B, f, groups.npositions);
    const Real<T>* a = p.table->a + static_cast<long>(groups.interval[g]) * K * ngp;
    if (p.gate == nullptr) {
      Linear<T, Isa>::run(4, ngp, K, M, ngp, B, K, 1, a, ngp, simd::pad<T>, nullptr, true);
      continue;
    }
    Linear<T, Isa>::run(8, ngp, K, Y, ngp, B, K, 1, a, ngp, simd::pad<T>, nullptr, false);
    const Real<T>* gate = p.gate + static_cast<long>(groups.key[g]) * ngp;
    for (int x = 0; x < 4; ++x)
      for (int c = 0; c < p.ng; ++c) M[x * ngp + c] += Y[x * ngp + c] + gate[c] * Y[(4 + x) * ngp + c];
  }
  finish_moments<T>(p, M, pad);
  arena.release(mark);
}

/// What a group gives the series' coefficients and the gate, with dY (4 or 8, ngp): those of the sums, the gated ones behind.
template <class T, class Isa>
void add_series_gradient(const RepinitParams<Real<T>>& p, const RepinitGradient<Real<T>>& gradient, int g, T* B, T* Y, const T* dY,
                         const T* f, const SeriesGroups<T>& groups) {
  constexpr int K = series_terms<T>;
  const int ngp = padded<T>(p.ng), rows = p.gate != nullptr ? 8 : 4;
  const long at = static_cast<long>(groups.interval[g]) * K * ngp;
  Tabulate<T, Isa>::sums(groups, g, rows, B, f, groups.npositions);
  if (gradient.series != nullptr) Linear<T, Isa>::gradient(K, ngp, rows, gradient.series + at, ngp, B, 1, K, dY, ngp, simd::pad<T>);
  if (gradient.gate == nullptr || p.gate == nullptr) return;
  Linear<T, Isa>::run(4, ngp, K, Y, ngp, B + 4 * K, K, 1, p.table->a + at, ngp, simd::pad<T>, nullptr, false);
  Real<T>* gate = gradient.gate + static_cast<long>(groups.key[g]) * ngp;
  for (int x = 0; x < 4; ++x)
    for (int c = 0; c < p.ng; ++c) gate[c] += math::gradient_of(Y[x * ngp + c] * dY[x * ngp + c]);
}

/// dR (4, m) +=, dsw (m) +=, or null, given dM (4, ngp) with the factor of the mean.
template <class T, class Isa>
void series_backward(const RepinitParams<Real<T>>& p, int m, T* dR, T* dsw, const RepinitGradient<Real<T>>* gradient, const T* dM,
                     const T* f, const T* sw, const SeriesGroups<T>& groups, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  constexpr int K = series_terms<T>;
  const int ngp = padded<T>(p.ng), rows = p.gate != nullptr ? 8 : 4, np = groups.npositions;
  T* dY = arena.take<T>(8L * ngp);
  T* dB = arena.take<T>(8L * K);
  const bool positions = dR != nullptr || dsw != nullptr;
  T* v = positions ? arena.take<T>(8L * np) : nullptr;
  T* dv = positions ? arena.take<T>(8L * np) : nullptr;
  T* Y = gradient != nullptr ? arena.take<T>(4L * ngp) : nullptr;
  for (long c = 0; c < 4L * ngp; ++c) dY[c] = dM[c] * p.inv_nsel;
  for (int g = 0; g < groups.ngroups; ++g) {
    if (p.gate != nullptr) {
      const Real<T>* gate = p.gate + static_cast<long>(groups.key[g]) * ngp;
      for (int x = 0; x < 4; ++x)
        for (int c = 0; c < ngp; ++c) dY[(4 + x) * ngp + c] = c < p.ng ? dY[x * ngp + c] * gate[c] : T(0);
    }
    if (gradient != nullptr) add_series_gradient<T, Isa>(p, *gradient, g, dB, Y, dY, f, groups);
    if (!positions) continue;
    Linear<T, Isa>::run(rows, K, ngp, dB, K, dY, ngp, 1, p.table->at + static_cast<long>(groups.interval[g]) * K * ngp, K, simd::pad<T>,
                        nullptr, false);
    Tabulate<T, Isa>::values(*p.table, groups, g, rows, v, dv, np, dB);
  }
  for (int q = 0; positions && q < np; ++q) {
    const int e = groups.order[q];
    if (e < 0) continue;
    T ds = 0, from_gate = 0;
    const T gate = p.gate_switch ? sw[e] : T(1);
    for (int x = 0; x < 4; ++x) {
      T dr = v[x * np + q];
      ds += f[x * np + q] * dv[x * np + q];
      if (p.gate != nullptr) {
        dr += gate * v[(4 + x) * np + q];
        ds += f[(4 + x) * np + q] * dv[(4 + x) * np + q];
        from_gate += f[x * np + q] * v[(4 + x) * np + q];
      }
      if (dR != nullptr) dR[x * m + e] += dr;
    }
    if (dR != nullptr) dR[e] += ds;
    if (dsw != nullptr && p.gate != nullptr && p.gate_switch) dsw[e] += from_gate;
  }
  arena.release(mark);
}

/// The intervals of n edges in the table of a compressed model.
template <class T, class Isa>
QuinticArguments<T> located(const RepinitParams<T>& p, int n, const T* s, const int* combination, Arena& arena) {
  int* curve = arena.take<int>(n);
  for (int e = 0; e < n; ++e) curve[e] = p.net.typed ? combination[e] : 0;
  QuinticArguments<T> at;
  Quintic<T, Isa>::locate(*p.quintic, n, s, curve, at, arena);
  return at;
}

template <class T>
QuinticGate<T> quintic_gate(const RepinitParams<T>& p, const T* sw, const int* combination) {
  return {p.gate, combination, p.gate_switch ? sw : nullptr};
}

/// dR (4, m) +=, dsw (m) +=, given dM (4, ngp).
template <class T, class Isa>
void quintic_backward(const RepinitParams<T>& p, int n, int m, T* dR, T* dsw, const T* dM, const T* R, const T* sw, const int* combination,
                      const QuinticArguments<T>& at, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const long size = 4L * padded<T>(p.ng);
  T* dY = arena.take<T>(size);
  T* dr = arena.take<T>(4L * m);
  T* ds = arena.take<T>(n);
  T* from_gate = arena.take<T>(n);
  for (long c = 0; c < size; ++c) dY[c] = dM[c] * p.inv_nsel;
  Quintic<T, Isa>::moments_backward(*p.quintic, n, 4, dr, ds, from_gate, dY, R, m, at, quintic_gate(p, sw, combination));
  for (int e = 0; e < n; ++e) {
    for (int x = 0; x < 4 && dR != nullptr; ++x) dR[x * m + e] += dr[x * m + e];
    if (dR != nullptr) dR[e] += ds[e];
    if (dsw != nullptr && p.gate != nullptr && p.gate_switch) dsw[e] += from_gate[e];
  }
  arena.release(mark);
}

}  // namespace

template <class T, class Isa>
void RepinitTables<T, Isa>::values([[maybe_unused]] const RepinitParams<Real<T>>& p, [[maybe_unused]] int m, [[maybe_unused]] T* G,
                                   [[maybe_unused]] const T* s, [[maybe_unused]] const int* combination, [[maybe_unused]] Arena& arena) {
  if constexpr (!is_dual<T>) Quintic<T, Isa>::values(*p.quintic, p.ng, m, G, located<T, Isa>(p, m, s, combination, arena));
}

template <class T, class Isa>
bool RepinitTables<T, Isa>::moments(const RepinitParams<Real<T>>& p, int n, int m, T* M, RepinitTabulated<T>& tape, const T* R, const T* sw,
                                    const int* combination, const RepinitPad<Real<T>>& pad, Arena& arena) {
  if constexpr (!is_dual<T>) {
    if (p.quintic != nullptr) {
      tape.at = located<T, Isa>(p, n, R, combination, arena);
      for (long c = 0; c < 4L * padded<T>(p.ng); ++c) M[c] = T(0);
      Quintic<T, Isa>::moments(*p.quintic, n, 4, M, R, m, tape.at, quintic_gate(p, sw, combination));
      finish_moments<T>(p, M, pad);
      return true;
    }
  }
  if (p.table == nullptr || !group<T, Isa>(p, n, R, combination, tape.groups, arena)) return false;
  tape.f = arena.take<T>(8L * tape.groups.npositions);
  gather<T>(p, m, tape.f, R, sw, tape.groups);
  series_moments<T, Isa>(p, M, tape.f, tape.groups, pad, arena);
  return true;
}

template <class T, class Isa>
void RepinitTables<T, Isa>::backward(const RepinitParams<Real<T>>& p, [[maybe_unused]] int n, int m, T* dR, T* dsw,
                                     const RepinitGradient<Real<T>>* g, const T* dM, const RepinitTabulated<T>& tape,
                                     [[maybe_unused]] const T* R, const T* sw, [[maybe_unused]] const int* combination, Arena& arena) {
  if constexpr (!is_dual<T>) {
    if (p.quintic != nullptr) return quintic_backward<T, Isa>(p, n, m, dR, dsw, dM, R, sw, combination, tape.at, arena);
  }
  series_backward<T, Isa>(p, m, dR, dsw, g, dM, tape.f, sw, tape.groups, arena);
}

DPA2_INSTANTIATE(RepinitTables)
DPA2_INSTANTIATE_DUAL(RepinitTables)

}  // namespace dpa2
