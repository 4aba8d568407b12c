// The pair update from the product of the two ends' features (theory 8.3, 12.7, 15.3).
#pragma once

#include "cpu/arena.hpp"
#include "cpu/linear.hpp"

namespace dpa2 {

/// U_e = (w_e g1_i * g1_j) Wgg; g1 rows have n1 = W.k channels, U rows n2 = W.n.
template <class T, class Isa>
struct G1G1 {
  /// U (n, n2) =
  static void forward(int n, T* U, const T* g1_i, const T* g1, const int* j, const Packed<Real<T>>& W, const T* w, Arena& arena);
  /// dg1_i (n1) +=, dg1 row scatter[e] +=, dw (n) +=, given dU (n, n2); Wt (n2, n1) packed; dW (n1, n2) += the gradient of W, or null
  static void backward(int n, T* dg1_i, T* dg1, const int* scatter, T* dw, Real<T>* dW, const T* dU, const T* g1_i, const T* g1,
                       const int* j, const Packed<Real<T>>& Wt, const T* w, Arena& arena);
};

}  // namespace dpa2
