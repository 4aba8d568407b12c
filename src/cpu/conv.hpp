// The convolution of neighbour features with pair features (theory 8.4, 12.6, 15.3).
#pragma once

#include "cpu/arena.hpp"
#include "cpu/edge_rows.hpp"
#include "cpu/linear.hpp"

namespace dpa2 {

/// conv_i = sum_e s_e (a_e P) * b_e with s_e = kappa_n w_e. With g1_out_conv the projected rows a are g2 and b are the
/// neighbours' g1; without it the roles are exchanged. One operation serves both: `a` is what goes through P.
template <class T, class Isa>
struct Conv {
  /// out (nb) = ; P (na, nb) packed, s (n)
  static void forward(int n, T* out, const EdgeRows<T>& a, const EdgeRows<T>& b, const Packed<Real<T>>& P, const T* s, Arena& arena);
  /// da rows +=, db rows += (at the scatter positions where there is an index), ds (n) +=; Pt (nb, na) packed;
  /// dP (na, nb) += the gradient of P, or null
  static void backward(int n, T* da, long dald, const int* ascatter, T* db, long dbld, const int* bscatter, T* ds, Real<T>* dP,
                       const T* dout, const EdgeRows<T>& a, const EdgeRows<T>& b, const Packed<Real<T>>& P, const Packed<Real<T>>& Pt,
                       const T* s, Arena& arena);
};

}  // namespace dpa2
