// The edges of one centre on lanes, as the kernels of the first blocks see them.
#pragma once

#include <cstddef>

#include "graph/frame.hpp"
#include "graph/prepared.hpp"

namespace dpa2 {

/// A block's view of the edges of one centre.
template <class T>
struct Lanes {
  int n, m;  ///< edges, and lanes
  T *d, *r, *R, *sw;
  int* index;  ///< rows of type tables, or types
};

/// d (3, lanes) and r (lanes) of the first n edges of centre i; the other lanes are at a harmless place.
template <class T>
void load_lanes(const Frame& frame, int i, int n, int lanes, T* d, T* r) {
  const Edges& edges = *frame.edges;
  const std::size_t e0 = static_cast<std::size_t>(edges.start[static_cast<std::size_t>(i)]);
  for (int e = 0; e < n; ++e) {
    const std::size_t at = e0 + static_cast<std::size_t>(e);
    for (int x = 0; x < 3; ++x) d[x * lanes + e] = static_cast<Real<T>>(edges.d[3 * at + static_cast<std::size_t>(x)]);
    r[e] = static_cast<Real<T>>(edges.r[at]);
    if constexpr (is_dual<T>) {
      double velocity[3];
      r[e].d = static_cast<Real<T>>(edge_velocity(frame, edges, static_cast<std::size_t>(i), at, velocity));
      for (int x = 0; x < 3; ++x) d[x * lanes + e].d = static_cast<Real<T>>(velocity[x]);
    }
  }
  for (int e = n; e < lanes; ++e) {
    for (int x = 0; x < 3; ++x) d[x * lanes + e] = T(0);
    r[e] = T(1);
  }
}

/// Rows of repinit's type tables for the first n edges of centre i, whose type is returned.
template <class R>
int combinations(const Prepared<R>& model, const Frame& frame, int i, int n, int lanes, int* combination) {
  const Edges& edges = *frame.edges;
  const auto type = [&](int row) { return frame.types[row] < 0 ? 0 : frame.types[row]; };
  const std::size_t e0 = static_cast<std::size_t>(edges.start[static_cast<std::size_t>(i)]);
  const int ti = type(i);
  for (int e = 0; e < n; ++e) {
    const int tj = type(edges.j[e0 + static_cast<std::size_t>(e)]);
    combination[e] = model.one_side ? tj : tj * model.ntypes + ti;
  }
  for (int e = n; e < lanes; ++e) combination[e] = 0;
  return ti;
}

/// The environment of centre i as repinit sees it; memory from the arena.
template <class T>
Lanes<T> repinit_lanes(const Prepared<Real<T>>& model, const Kernels<T>& kernels, const Frame& frame, int i, Arena& arena) {
  const int n = frame.edges->count(i), m = padded<T>(n);
  const Lanes<T> e{n, m, arena.take<T>(3L * m), arena.take<T>(m), arena.take<T>(4L * m), arena.take<T>(m), arena.take<int>(m)};
  const int ti = combinations(model, frame, i, n, m, e.index);
  load_lanes(frame, i, n, m, e.d, e.r);
  kernels.env_mat(n, m, e.R, e.sw, e.d, e.r, model.stats_repinit.cut, model.stats_repinit.mean + 4L * ti,
                  model.stats_repinit.inv_std + 4L * ti);
  return e;
}

}  // namespace dpa2
