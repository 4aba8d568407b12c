#include "cpu/tabulate.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::Vec;
using simd::width;

template <class T, class Isa>
bool Tabulate<T, Isa>::group(const SeriesTable<T>& table, int n, const T* s, const int* curve, const int* key, int nkeys,
                             SeriesGroups& groups, Arena& arena) {
  groups.order = arena.take<int>(n);
  groups.first = arena.take<int>(n + 1);
  groups.key = arena.take<int>(n);
  groups.interval = arena.take<int>(n);
  groups.ngroups = 0;
  const Arena::Mark mark = arena.mark();
  int* group_of = arena.take<int>(n);
  int* count = arena.take<int>(n + 1);
  // The group of an (interval, key): a table where it is small, else a search through the groups, newest first, because
  // neighbours come sorted by distance.
  constexpr int direct_limit = 1024;
  const long nslots = static_cast<long>(table.nintervals) * nkeys;
  const bool direct = nslots <= direct_limit;
  int* slot = direct ? arena.take<int>(nslots) : nullptr;
  for (long i = 0; direct && i < nslots; ++i) slot[i] = -1;
  for (int e = 0; e < n; ++e) {
    const double x = static_cast<double>(s[e]);
    if (!(x >= table.lo && x < table.hi)) {
      arena.release(mark);
      return false;
    }
    int cell = static_cast<int>((x - table.lo) * table.inv_cell);
    cell = cell < table.ncells ? cell : table.ncells - 1;
    const int interval = table.interval[static_cast<long>(curve[e]) * table.ncells + cell];
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
void Tabulate<T, Isa>::basis(const SeriesTable<T>& table, const T* s, const SeriesGroups& groups, T* t, T* dt) {
  constexpr int K = series_terms<T>, W = width<T>;
  static_assert(K % W == 0 && K >= W, "whole vectors of terms");
  for (int g = 0; g < groups.ngroups; ++g) {
    const double centre = table.centre[groups.interval[g]];
    const T slope = static_cast<T>(table.inv_half[groups.interval[g]]);
    for (int p = groups.first[g]; p < groups.first[g + 1]; ++p) {
      const T x = static_cast<T>((static_cast<double>(s[groups.order[p]]) - centre) * table.inv_half[groups.interval[g]]);
      // T_-W ... T_W one by one (T_-k = T_k); then a vector of terms at a time, T_{k+W} = 2 T_W T_k - T_{k-W}.
      T v[2 * W + 1], d[2 * W + 1];
      v[W] = T(1);
      d[W] = T(0);
      v[W + 1] = x;
      d[W + 1] = slope;
      for (int k = 2; k <= W; ++k) {
        v[W + k] = (x + x) * v[W + k - 1] - v[W + k - 2];
        d[W + k] = (slope + slope) * v[W + k - 1] + (x + x) * d[W + k - 1] - d[W + k - 2];
      }
      for (int k = 1; k <= W; ++k) {
        v[W - k] = v[W + k];
        d[W - k] = d[W + k];
      }
      const Vec<T> two_v = splat<T>(v[2 * W] + v[2 * W]), two_d = splat<T>(d[2 * W] + d[2 * W]);
      Vec<T> v0 = load<T>(v), v1 = load<T>(v + W), d0 = load<T>(d), d1 = load<T>(d + W);
      for (int k = 0; k < K; k += W) {
        store<T>(t + static_cast<long>(p) * K + k, v1);
        const Vec<T> v2 = two_v * v1 - v0;
        if (dt != nullptr) {
          store<T>(dt + static_cast<long>(p) * K + k, d1);
          const Vec<T> d2 = two_v * d1 + two_d * v1 - d0;
          d0 = d1;
          d1 = d2;
        }
        v0 = v1;
        v1 = v2;
      }
    }
  }
}

DPA2_INSTANTIATE(Tabulate)

}  // namespace dpa2
