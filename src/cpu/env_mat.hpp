// The environment matrix of one centre (theory 2, 12.15).
#pragma once

#include "math/dual.hpp"
#include "math/env_mat.hpp"

namespace dpa2 {

/// Lane layout: an array [rows][m] with the edges of a centre on the lanes, m = n rounded up to 64 bytes.
template <class T, class Isa>
struct EnvMat {
  ///   R   (4, m)  = (E - mean) * inv_std, zero on the lanes n..m
  ///   sw  (m)     = switch, zero on the lanes n..m
  ///   d   (3, m), r (m): displacement and distance in angstrom; the lanes n..m hold any finite d and a positive r
  ///   mean, inv_std (4): statistics of the centre's type
  /// Of dual numbers the tangent of r belongs to that of d: r' = d . d' / r, and 0 at r = 0.
  static void forward(int n, int m, T* R, T* sw, const T* d, const T* r, const math::Cutoff<Real<T>>& cut, const Real<T>* mean,
                      const Real<T>* inv_std);
  ///   gamma (3, m) += gradient with respect to d, given dR (4, m) and dsw (m)
  static void backward(int m, T* gamma, const T* dR, const T* dsw, const T* d, const T* r, const math::Cutoff<Real<T>>& cut,
                       const Real<T>* inv_std);
};

}  // namespace dpa2
