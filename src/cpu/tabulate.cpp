#include "cpu/tabulate.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

template <class T, class Isa>
bool Tabulate<T, Isa>::group(const SeriesTable<Real<T>>& table, int n, const T* s, const int* curve, const int* key, int nkeys,
                             SeriesGroups<T>& groups, Arena& arena) {
  groups.first = arena.take<int>(n + 1);
  groups.key = arena.take<int>(n);
  groups.interval = arena.take<int>(n);
  groups.ngroups = groups.npositions = 0;
  const long kinds = table.nintervals * static_cast<long>(nkeys);
  const long most = static_cast<long>(n) + (n < kinds ? n : kinds) * width<T>;
  groups.order = arena.take<int>(most);
  groups.x = arena.take<T>(most);
  const Arena::Mark mark = arena.mark();
  int* interval_of = arena.take<int>(n);
  int* group_of = arena.take<int>(n);
  int* rank = arena.take<int>(n);  // within the group
  int* count = arena.take<int>(n + 1);
  bool inside = true;
  for (int e = 0; e < n; ++e) {
    const double x = static_cast<double>(s[e]);
    const bool here = x >= table.lo && x < table.hi;
    inside = inside && here;
    const int cell = static_cast<int>(((here ? x : table.lo) - table.lo) * table.inv_cell);
    interval_of[e] = table.interval[static_cast<long>(curve[e]) * table.ncells + (cell < table.ncells ? cell : table.ncells - 1)];
  }
  if (!inside) {
    arena.release(mark);
    return false;
  }
  // The group of an (interval, key): a table where it is small, else a search through the groups, newest first, because
  // neighbours come sorted by distance.
  constexpr int direct_limit = 1024;
  const bool direct = kinds <= direct_limit;
  int* slot = direct ? arena.take<int>(kinds) : nullptr;
  for (long i = 0; direct && i < kinds; ++i) slot[i] = -1;
  for (int e = 0; e < n; ++e) {
    const int interval = interval_of[e];
    int g = -1;
    if (direct) {
      g = slot[static_cast<long>(interval) * nkeys + key[e]];
    } else {
      g = groups.ngroups - 1;
      while (g >= 0 && (groups.interval[g] != interval || groups.key[g] != key[e])) --g;
    }
    if (g < 0) {
      g = groups.ngroups++;
      groups.interval[g] = interval;
      groups.key[g] = key[e];
      count[g] = 0;
      if (direct) slot[static_cast<long>(interval) * nkeys + key[e]] = g;
    }
    group_of[e] = g;
    rank[e] = count[g]++;
  }
  int position = 0;
  for (int g = 0; g < groups.ngroups; ++g) {
    groups.first[g] = position;
    for (position += count[g]; position % width<T> != 0; ++position) {
      groups.order[position] = -1;
      groups.x[position] = T(0);
    }
  }
  groups.first[groups.ngroups] = groups.npositions = position;
  for (int e = 0; e < n; ++e) {
    const int p = groups.first[group_of[e]] + rank[e], interval = interval_of[e];
    groups.order[p] = e;
    const Real<T> x = static_cast<Real<T>>((static_cast<double>(s[e]) - table.centre[interval]) * table.inv_half[interval]);
    if constexpr (is_dual<T>)
      groups.x[p] = {x, s[e].d * static_cast<Real<T>>(table.inv_half[interval])};
    else
      groups.x[p] = x;
  }
  arena.release(mark);
  return true;
}

namespace {

template <class T, int NR>
void add_sums(const SeriesGroups<T>& groups, int g, T* B, const T* f, long ld) {
  constexpr int K = series_terms<T>;
  Vec<T> acc[NR][K] = {};
  for (int p = groups.first[g]; p < groups.first[g + 1]; p += width<T>) {
    const Vec<T> x = load<T>(groups.x + p), two_x = x + x;
    Vec<T> fv[NR], t0 = splat<T>(T(1)), t1 = x;
    for (int r = 0; r < NR; ++r) fv[r] = load<T>(f + r * ld + p);
    for (int k = 0; k < K; ++k) {
      for (int r = 0; r < NR; ++r) acc[r][k] += fv[r] * t0;
      const Vec<T> t2 = two_x * t1 - t0;
      t0 = t1;
      t1 = t2;
    }
  }
  for (int r = 0; r < NR; ++r)
    for (int k = 0; k < K; ++k) B[r * K + k] = sum<T>(acc[r][k]);
}

/// In polynomials of the second kind, T_k = (U_k - U_(k-2)) / 2 and T_k' = k U_(k-1): value and slope share one recurrence.
template <class T, int NR>
void evaluate(const SeriesGroups<T>& groups, int g, Real<T> inv_half, T* v, T* dv, long ld, const T* b) {
  constexpr int K = series_terms<T>;
  T value_terms[NR][K], slope_terms[NR][K];
  for (int r = 0; r < NR; ++r) {
    const T* br = b + r * K;
    for (int k = 0; k < K - 2; ++k) value_terms[r][k] = Real<T>(0.5) * (br[k] - br[k + 2]);
    for (int k = K - 2; k < K; ++k) value_terms[r][k] = Real<T>(0.5) * br[k];
    value_terms[r][0] += Real<T>(0.5) * br[0];
    for (int k = 0; k < K - 1; ++k) slope_terms[r][k] = static_cast<Real<T>>(k + 1) * br[k + 1];
    slope_terms[r][K - 1] = T(0);
  }
  for (int p = groups.first[g]; p < groups.first[g + 1]; p += width<T>) {
    const Vec<T> x = load<T>(groups.x + p), two_x = x + x;
    Vec<T> value[NR] = {}, slope[NR] = {};
    Vec<T> u0 = splat<T>(T(1)), u1 = two_x;
    for (int k = 0; k < K; ++k) {
      for (int r = 0; r < NR; ++r) {
        value[r] += u0 * value_terms[r][k];
        slope[r] += u0 * slope_terms[r][k];
      }
      const Vec<T> u2 = two_x * u1 - u0;
      u0 = u1;
      u1 = u2;
    }
    for (int r = 0; r < NR; ++r) {
      store<T>(v + r * ld + p, value[r]);
      store<T>(dv + r * ld + p, slope[r] * inv_half);
    }
  }
}

}  // namespace

template <class T, class Isa>
void Tabulate<T, Isa>::sums(const SeriesGroups<T>& groups, int g, int nrows, T* B, const T* f, long ld) {
  int r = 0;
  for (; r + 4 <= nrows; r += 4) add_sums<T, 4>(groups, g, B + r * series_terms<T>, f + r * ld, ld);
  for (; r < nrows; ++r) add_sums<T, 1>(groups, g, B + r * series_terms<T>, f + r * ld, ld);
}

template <class T, class Isa>
void Tabulate<T, Isa>::values(const SeriesTable<Real<T>>& table, const SeriesGroups<T>& groups, int g, int nrows, T* v, T* dv, long ld,
                              const T* b) {
  const Real<T> inv_half = static_cast<Real<T>>(table.inv_half[groups.interval[g]]);
  int r = 0;
  for (; r + 4 <= nrows; r += 4) evaluate<T, 4>(groups, g, inv_half, v + r * ld, dv + r * ld, ld, b + r * series_terms<T>);
  for (; r < nrows; ++r) evaluate<T, 1>(groups, g, inv_half, v + r * ld, dv + r * ld, ld, b + r * series_terms<T>);
}

DPA2_INSTANTIATE(Tabulate)
DPA2_INSTANTIATE_DUAL(Tabulate)

}  // namespace dpa2
