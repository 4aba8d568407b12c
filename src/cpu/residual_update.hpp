// The residual updates of a layer (theory 8.11, 12.3).
#pragma once

#include "math/dual.hpp"

namespace dpa2 {

inline constexpr int max_residual_terms = 4;

/// u' = a u + sum_k r_k * U_k; the three update styles differ only in a and the vectors r_k (nc).
template <class T>
struct Residual {
  T a = 1;
  int nterms = 0;
  const T* r[max_residual_terms] = {};
};

/// Rows of nc channels (padded to 64 bytes), all with row stride nc.
template <class T, class Isa>
struct ResidualUpdate {
  /// out (n, nc) = ; U[k] (n, nc); out may be u
  static void forward(int n, int nc, const Residual<Real<T>>& residual, T* out, const T* u, const T* const* U);
  /// dU[k] (n, nc) = r_k * dout for every k with dU[k] != null; du (n, nc) += a dout; where dr is not null,
  /// dr[k] (nc) += the sum over the rows of dout * U[k] for every k with dr[k] != null
  static void backward(int n, int nc, const Residual<Real<T>>& residual, T* du, T* const* dU, Real<T>* const* dr, const T* const* U,
                       const T* dout);
};

}  // namespace dpa2
