// grrg and drrd: the Gram matrix of the vector moments of a feature (theory 8.8, 12.5).
#pragma once

#include "cpu/edge_rows.hpp"

namespace dpa2 {

/// nc is padded to 64 bytes; f (n, 3) = kappa_h w_e h2_e.
template <class T, class Isa>
struct Symmetrization {
  /// C (3, nc) = sum_e f_e (x) X_e
  static void moments(int n, int nc, T* C, const T* f, const EdgeRows<T>& X);
  /// gram (axis, nc), axis-major: (1/3) sum_x C[x, a] C[x, c]
  static void gram(int nc, int axis, T* gram, const T* C);
  /// dC (3, nc) = , given dgram (axis, nc)
  static void gram_backward(int nc, int axis, T* dC, const T* dgram, const T* C);
  /// df (n, 3) +=; dX row e += (row scatter[e] of dX where there is an index): row stride dld
  static void moments_backward(int n, int nc, T* df, T* dX, long dld, const int* scatter, const T* dC, const T* f, const EdgeRows<T>& X);
};

}  // namespace dpa2
