#include "cpu/tabulate.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::Vec;
using simd::width;

template <class T, class Isa>
bool Tabulate<T, Isa>::group(const SeriesTable<T>& table, int n, const T* s, const int* curve, const int* key, SeriesGroups& groups,
                             Arena& arena) {
  groups.order = arena.take<int>(n);
  groups.first = arena.take<int>(n + 1);
  groups.key = arena.take<int>(n);
  groups.interval = arena.take<int>(n);
  groups.ngroups = 0;
  const Arena::Mark mark = arena.mark();
  int* group_of = arena.take<int>(n);
  int* count = arena.take<int>(n + 1);
  // Groups are found by looking through those that exist, newest first: neighbours come sorted by distance, so that the
  // next argument mostly belongs to one of the last few groups.
  for (int e = 0; e < n; ++e) {
    const double x = static_cast<double>(s[e]);
    if (!(x >= table.lo && x < table.hi)) {
      arena.release(mark);
      return false;
    }
    int cell = static_cast<int>((x - table.lo) * table.inv_cell);
    cell = cell < table.ncells ? cell : table.ncells - 1;
    const int interval = table.interval[static_cast<long>(curve[e]) * table.ncells + cell];
    int g = groups.ngroups - 1;
    while (g >= 0 && (groups.interval[g] != interval || groups.key[g] != key[e])) --g;
    if (g < 0) {
      g = groups.ngroups++;
      groups.interval[g] = interval;
      groups.key[g] = key[e];
      count[g] = 0;
    }
    group_of[e] = g;
    ++count[g];
  }
  int position = 0;
  for (int g = 0; g < groups.ngroups; ++g) {
    groups.first[g] = position;
    position += count[g];
    count[g] = groups.first[g];
  }
  groups.first[groups.ngroups] = position;
  for (int e = 0; e < n; ++e) groups.order[count[group_of[e]]++] = e;
  arena.release(mark);
  return true;
}

template <class T, class Isa>
void Tabulate<T, Isa>::basis(const SeriesTable<T>& table, int n, const SeriesGroups& groups, T* t, T* dt, const T* s, Arena& arena) {
  constexpr int K = series_terms<T>, W = width<T>;
  const Arena::Mark mark = arena.mark();
  const int m = (n + W - 1) / W * W;
  T* x = arena.take<T>(m);
  T* slope = arena.take<T>(m);
  for (int g = 0; g < groups.ngroups; ++g) {
    const int i = groups.interval[g];
    for (int p = groups.first[g]; p < groups.first[g + 1]; ++p) {
      x[p] = static_cast<T>((static_cast<double>(s[groups.order[p]]) - table.centre[i]) * table.inv_half[i]);
      slope[p] = static_cast<T>(table.inv_half[i]);
    }
  }
  for (int p = n; p < m; ++p) x[p] = slope[p] = T(0);
  for (int p = 0; p < m; p += W) {
    const int lanes = n - p < W ? n - p : W;
    const Vec<T> xv = load<T>(x + p), two_x = xv + xv, f = load<T>(slope + p);
    Vec<T> t0 = splat<T>(T(1)), t1 = xv, d0{}, d1 = f;
    for (int k = 0; k < K; ++k) {
      for (int i = 0; i < lanes; ++i) t[static_cast<long>(p + i) * K + k] = t0[i];
      if (dt != nullptr)
        for (int i = 0; i < lanes; ++i) dt[static_cast<long>(p + i) * K + k] = d0[i];
      const Vec<T> t2 = two_x * t1 - t0;
      const Vec<T> d2 = (f + f) * t1 + two_x * d1 - d0;
      t0 = t1;
      t1 = t2;
      d0 = d1;
      d1 = d2;
    }
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(Tabulate)

}  // namespace dpa2
