#include "cpu/three_body_tables.hpp"

#include "cpu/linear.hpp"
#include "cpu/simd.hpp"

namespace dpa2 {
namespace {

/// The pairs of a chunk, all of them within the series, in the groups of the table.
template <class T, class Isa>
void group(const ThreeBodyParams<Real<T>>& p, const Pairs<T>& pairs, SeriesGroups<T>& groups, Arena& arena) {
  int* curve = arena.take<int>(pairs.count);
  for (int i = 0; i < pairs.count; ++i) curve[i] = p.net.typed ? pairs.combination[i] : 0;
  Tabulate<T, Isa>::group(*p.table, pairs.count, pairs.e, curve, pairs.combination, p.ntypes * p.ntypes, groups, arena);
}

/// (2, npositions): what multiplies the terms of the series, and that with the gate's switch
template <class T>
T* sum_factors(const ThreeBodyParams<Real<T>>& p, const Pairs<T>& pairs, const SeriesGroups<T>& groups, Arena& arena) {
  const int np = groups.npositions;
  T* f = arena.take<T>(2L * np);
  for (int q = 0; q < np; ++q) {
    const int i = groups.order[q];
    f[q] = i >= 0 ? pairs.weight[i] * pairs.e[i] : T(0);
    f[np + q] = i >= 0 && p.gate_switch ? f[q] * pairs.ss[i] : f[q];
  }
  return f;
}

/// Q (n3) += sum of the pairs: per group, B (2, K) = sum of weight e (times ss for the gate) T_k, then one product with the series.
template <class T, class Isa>
void add_series(const ThreeBodyParams<Real<T>>& p, const Pairs<T>& pairs, T* Q, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  SeriesGroups<T> groups;
  group<T, Isa>(p, pairs, groups, arena);
  constexpr int K = series_terms<T>;
  const int nc = p.table->nc, rows = p.gate != nullptr ? 2 : 1, np = groups.npositions;
  T* f = sum_factors<T>(p, pairs, groups, arena);
  T* B = arena.take<T>(2L * K);
  T* Y = arena.take<T>(2L * nc);
  for (int g = 0; g < groups.ngroups; ++g) {
    Tabulate<T, Isa>::sums(groups, g, rows, B, f, np);
    Linear<T, Isa>::run(rows, nc, K, Y, nc, B, K, 1, p.table->a + static_cast<long>(groups.interval[g]) * K * nc, nc, simd::pad<T>, nullptr,
                        false);
    const Real<T>* gate = p.gate != nullptr ? p.gate + static_cast<long>(groups.key[g]) * nc : nullptr;
    for (int c = 0; c < p.n3; ++c) Q[c] += gate != nullptr ? Y[c] + gate[c] * Y[nc + c] : Y[c];
  }
  arena.release(mark);
}

/// What a group gives the series' coefficients and the gate, with dY (1 or 2, nc): that of the sums, the gated one behind.
template <class T, class Isa>
void add_series_gradient(const ThreeBodyParams<Real<T>>& p, const ThreeBodyGradient<Real<T>>& gradient, int g, T* B, T* Y, const T* dY,
                         const T* f, const SeriesGroups<T>& groups) {
  constexpr int K = series_terms<T>;
  const int nc = p.table->nc, rows = p.gate != nullptr ? 2 : 1;
  const long at = static_cast<long>(groups.interval[g]) * K * nc;
  Tabulate<T, Isa>::sums(groups, g, rows, B, f, groups.npositions);
  if (gradient.series != nullptr) Linear<T, Isa>::gradient(K, nc, rows, gradient.series + at, nc, B, 1, K, dY, nc, simd::pad<T>);
  if (gradient.gate == nullptr || p.gate == nullptr) return;
  Linear<T, Isa>::run(1, nc, K, Y, nc, B + K, K, 1, p.table->a + at, nc, simd::pad<T>, nullptr, false);
  Real<T>* gate = gradient.gate + static_cast<long>(groups.key[g]) * nc;
  for (int c = 0; c < p.n3; ++c) gate[c] += math::gradient_of(Y[c] * dY[c]);
}

/// de (total derivative with respect to e) and dss of every pair, or null, given dQ (n3): with the channels contracted first, a group is
/// one scalar series (two with a gate).
template <class T, class Isa>
void series_backward(const ThreeBodyParams<Real<T>>& p, const Pairs<T>& pairs, T* de, T* dss, const ThreeBodyGradient<Real<T>>* gradient,
                     const T* dQ, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  SeriesGroups<T> groups;
  group<T, Isa>(p, pairs, groups, arena);
  constexpr int K = series_terms<T>;
  const int nc = p.table->nc, rows = p.gate != nullptr ? 2 : 1, np = groups.npositions;
  T* dY = arena.take<T>(2L * nc);
  T* b = arena.take<T>(2L * K);
  T* v = de != nullptr ? arena.take<T>(2L * np) : nullptr;
  T* dv = de != nullptr ? arena.take<T>(2L * np) : nullptr;
  T* f = gradient != nullptr ? sum_factors<T>(p, pairs, groups, arena) : nullptr;
  T* Y = gradient != nullptr ? arena.take<T>(nc) : nullptr;
  for (int c = 0; c < 2 * nc; ++c) dY[c] = c < p.n3 ? dQ[c] * p.inv_nsel_squared : T(0);
  for (int g = 0; g < groups.ngroups; ++g) {
    if (p.gate != nullptr)
      for (int c = 0; c < p.n3; ++c) dY[nc + c] = dY[c] * p.gate[static_cast<long>(groups.key[g]) * nc + c];
    if (gradient != nullptr) add_series_gradient<T, Isa>(p, *gradient, g, b, Y, dY, f, groups);
    if (de == nullptr) continue;
    Linear<T, Isa>::run(rows, K, nc, b, K, dY, nc, 1, p.table->at + static_cast<long>(groups.interval[g]) * K * nc, K, simd::pad<T>,
                        nullptr, false);
    Tabulate<T, Isa>::values(*p.table, groups, g, rows, v, dv, np, b);
  }
  for (int q = 0; de != nullptr && q < np; ++q) {
    const int i = groups.order[q];
    if (i < 0) continue;
    const Real<T> w = pairs.weight[i];
    const T e = pairs.e[i];
    de[i] = w * (v[q] + e * dv[q]);
    dss[i] = T(0);
    if (p.gate == nullptr) continue;
    const T factor = p.gate_switch ? pairs.ss[i] : T(1);
    de[i] += w * factor * (v[np + q] + e * dv[np + q]);
    if (p.gate_switch) dss[i] = w * e * v[np + q];
  }
  arena.release(mark);
}

/// The pairs of a chunk in the table of a compressed model: r (count) = weight e, and where they lie.
template <class T, class Isa>
QuinticArguments<T> located(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, T* r, Arena& arena) {
  int* curve = arena.take<int>(pairs.count);
  for (int i = 0; i < pairs.count; ++i) {
    curve[i] = p.net.typed ? pairs.combination[i] : 0;
    r[i] = pairs.weight[i] * pairs.e[i];
  }
  QuinticArguments<T> at;
  Quintic<T, Isa>::locate(*p.quintic, pairs.count, pairs.e, curve, at, arena);
  return at;
}

template <class T>
QuinticGate<T> quintic_gate(const ThreeBodyParams<T>& p, const Pairs<T>& pairs) {
  return {p.gate, pairs.combination, p.gate_switch ? pairs.ss : nullptr};
}

/// Q (n3) += sum of the pairs.
template <class T, class Isa>
void add_quintic(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, T* Q, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  T* Y = arena.take<T>(p.quintic->nc);
  T* r = arena.take<T>(pairs.count);
  for (int c = 0; c < p.quintic->nc; ++c) Y[c] = T(0);
  const QuinticArguments<T> at = located<T, Isa>(p, pairs, r, arena);
  Quintic<T, Isa>::moments(*p.quintic, pairs.count, 1, Y, r, pairs.count, at, quintic_gate(p, pairs));
  for (int c = 0; c < p.n3; ++c) Q[c] += Y[c];
  arena.release(mark);
}

/// de (total derivative with respect to e) and dss of every pair, given dQ (n3).
template <class T, class Isa>
void quintic_backward(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, T* de, T* dss, const T* dQ, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  T* dY = arena.take<T>(p.quintic->nc);
  T* r = arena.take<T>(pairs.count);
  T* dr = arena.take<T>(pairs.count);
  for (int c = 0; c < p.quintic->nc; ++c) dY[c] = c < p.n3 ? dQ[c] * p.inv_nsel_squared : T(0);
  const QuinticArguments<T> at = located<T, Isa>(p, pairs, r, arena);
  Quintic<T, Isa>::moments_backward(*p.quintic, pairs.count, 1, dr, de, dss, dY, r, pairs.count, at, quintic_gate(p, pairs));
  for (int i = 0; i < pairs.count; ++i) {
    de[i] += pairs.weight[i] * dr[i];
    if (p.gate == nullptr || !p.gate_switch) dss[i] = T(0);
  }
  arena.release(mark);
}

}  // namespace

/// |v_j . v_k| is at most the square of the longest vector.
template <class T, class Isa>
bool ThreeBodyTables<T, Isa>::within_series(const ThreeBodyParams<Real<T>>& p, int n, int m, const T* v, const ThreeBodyPad<Real<T>>& pad) {
  if (p.table == nullptr || p.quintic != nullptr) return false;
  using R = Real<T>;
  R longest = 0;
  bool number = true;
  for (int j = 0; j < n; ++j) {
    const R x = math::value_of(v[j]), y = math::value_of(v[m + j]), z = math::value_of(v[2 * m + j]);
    const R square = x * x + y * y + z * z;
    longest = square > longest ? square : longest;
    number = number && square >= R(0);
  }
  const R square = pad.v[0] * pad.v[0] + pad.v[1] * pad.v[1] + pad.v[2] * pad.v[2];
  if (pad.multiplicity != R(0) && square > longest) longest = square;
  const double most = static_cast<double>(longest) * (1.0 + 1e-5);  // beyond what the products round
  return number && most < p.table->hi && -most >= p.table->lo;
}

template <class T, class Isa>
void ThreeBodyTables<T, Isa>::add(const ThreeBodyParams<Real<T>>& p, const Pairs<T>& pairs, T* Q, Arena& arena) {
  if constexpr (!is_dual<T>) {
    if (p.quintic != nullptr) return add_quintic<T, Isa>(p, pairs, Q, arena);
  }
  add_series<T, Isa>(p, pairs, Q, arena);
}

template <class T, class Isa>
void ThreeBodyTables<T, Isa>::backward(const ThreeBodyParams<Real<T>>& p, const Pairs<T>& pairs, T* de, T* dss,
                                       const ThreeBodyGradient<Real<T>>* g, const T* dQ, Arena& arena) {
  if constexpr (!is_dual<T>) {
    if (p.quintic != nullptr) return quintic_backward<T, Isa>(p, pairs, de, dss, dQ, arena);
  }
  series_backward<T, Isa>(p, pairs, de, dss, g, dQ, arena);
}

DPA2_INSTANTIATE(ThreeBodyTables)
DPA2_INSTANTIATE_DUAL(ThreeBodyTables)

}  // namespace dpa2
