// One frame as the engine sees it.
#pragma once

#include "neighbors/edges.hpp"

namespace dpa2 {

/// Arrays of nall rows cover local atoms, then ghosts (theory 13).
struct Frame {
  const Edges* edges = nullptr;
  const Edges* pairs = nullptr;     ///< what a pair table sees: also pairs of types that the descriptor alone excludes; null: the edges
  const int* types = nullptr;       ///< (nall), < 0 for virtual atoms
  const double* wrapped = nullptr;  ///< (nlocal, 3): coordinates inside the cell, only for AtomVirial::deepmd
  const double* fparam = nullptr;   ///< (nfparam) or null for the model's default
  const double* aparam = nullptr;   ///< (nlocal, naparam) or null
  const double* weights = nullptr;  ///< (nlocal): forces and virials are those of the weighted sum of the atoms' values; null: ones
  // The direction of dual numbers: the velocities of the atoms, and that of the strain, x_k += sum_l strain_kl x_l, cell included.
  const double* velocity = nullptr;  ///< (nall, 3), or null: zero
  const double* strain = nullptr;    ///< (3, 3), or null: zero
  int pad_type = 0;                  ///< type of atom 0 of the frame: padded slots carry it (theory Q4)
};

}  // namespace dpa2
