// The pair features before the first layer: g2 = phi(x Wg + bg) (theory 8, 12.12).
#pragma once

#include "cpu/activation.hpp"
#include "cpu/arena.hpp"

namespace dpa2 {

/// Row layout: g2 (n, n2) with n2 padded to 64 bytes (weights of the padding are zero); x (n): one scalar per edge.
template <class T, class Isa>
struct G2Embed {
  static void forward(int n, int n2, T* g2, const T* x, const Real<T>* w, const Real<T>* b, const ActivationSpec<Real<T>>& act);
  /// dx (n) = unless null, dw (n2), db (n2) += unless null, given dg2 (n, n2)
  static void backward(int n, int n2, T* dx, Real<T>* dw, Real<T>* db, const T* dg2, const T* x, const Real<T>* w, const Real<T>* b,
                       const ActivationSpec<Real<T>>& act, Arena& arena);
};

}  // namespace dpa2
