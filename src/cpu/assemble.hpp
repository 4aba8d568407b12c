// Forces and virials from the gradients of the edge vectors (theory 9.2).
#pragma once

#include <cstdint>

namespace dpa2 {

/// Sums are double whatever the precision of the kernels: the number of terms grows with the system.
template <class T, class Isa>
struct Assemble {
  ///   force  (rows, 3) += , row 0 of `own` is the centre's, row scatter[e] the neighbour's
  ///   virial (9)       -= gamma_k d_l over the edges, row-major, eV
  ///   atom_virial (rows, 9) -= half of each edge's share to both ends, or null
  ///   gamma (3, m): gradient with respect to d, eV/angstrom; d (n, 3) angstrom
  static void centre(int n, int m, double* force, long own, const int* scatter, double* virial, double* atom_virial, const T* gamma,
                     const double* d);
};

}  // namespace dpa2
