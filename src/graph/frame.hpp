// One frame as the engine sees it.
#pragma once

#include <cstddef>

#include "neighbors/edges.hpp"

namespace dpa2 {

/// Arrays of nall rows cover local atoms, then ghosts (theory 13).
struct Frame {
  const Edges* edges = nullptr;
  const Edges* pairs = nullptr;     ///< what a pair table sees: also pairs of types that the descriptor alone excludes; null: the edges
  const int* types = nullptr;       ///< (nall), < 0 for virtual atoms
  const int* ids = nullptr;         ///< (nall) as for NeighborBuilder::set_ids, or null: rows
  const double* wrapped = nullptr;  ///< (nlocal, 3): coordinates inside the cell, only for AtomVirial::deepmd
  const double* fparam = nullptr;   ///< (nfparam) or null for the model's default
  const double* aparam = nullptr;   ///< (nlocal, naparam) or null
  const double* weights = nullptr;  ///< (nlocal): forces and virials are those of the weighted sum of the atoms' values; null: ones
  // The direction of dual numbers: the velocities of the atoms, and that of the strain, x_k += sum_l strain_kl x_l, cell included.
  const double* velocity = nullptr;  ///< (nall, 3), or null: zero
  const double* strain = nullptr;    ///< (3, 3), or null: zero
  int pad_type = 0;                  ///< type of atom 0 of the frame: padded slots carry it (theory Q4)
};

/// velocity (3) = how edge `at` of centre i moves along the frame's direction; its length changes at the rate that is returned, 0 at
/// length 0 (theory 15.1).
inline double edge_velocity(const Frame& frame, const Edges& edges, std::size_t i, std::size_t at, double* velocity) {
  const std::size_t j = static_cast<std::size_t>(edges.j[at]);
  double along = 0;
  for (std::size_t x = 0; x < 3; ++x) {
    velocity[x] = frame.velocity != nullptr ? frame.velocity[3 * j + x] - frame.velocity[3 * i + x] : 0.0;
    for (std::size_t y = 0; frame.strain != nullptr && y < 3; ++y) velocity[x] += frame.strain[3 * x + y] * edges.d[3 * at + y];
    along += velocity[x] * edges.d[3 * at + x];
  }
  return edges.r[at] > 0 ? along / edges.r[at] : 0.0;
}

}  // namespace dpa2
