// Attention of a centre to its neighbours' g1 (theory 8.10, 12.11, S7).
#pragma once

#include "cpu/arena.hpp"
#include "math/dual.hpp"

namespace dpa2 {

/// The query is folded with the key and the value with the head map when the model is prepared: the centre brings
/// tq (nh, n1) = g1_i A1, and the result o (nh, n1) still has to go through the folded head map (nh*n1, n1).
template <class T, class Isa>
struct LocalAttention {
  /// o (nh, n1) = sum_e A_he g1_j; w (n): the switch (smooth), or null; fall (n) = 1 - w, of smooth float32 (by_fall);
  /// shift: math::attention_shift when smooth; npad: padded slots (smooth) or 0
  static void forward(int n, int n1, int nh, T* o, const T* tq, const T* g1, const int* j, const T* w, const T* fall, Real<T> shift,
                      Real<T> npad, Arena& arena);
  /// dtq (nh, n1) =, dg1 row scatter[e] +=, dw (n) += (smooth), given do (nh, n1)
  static void backward(int n, int n1, int nh, T* dtq, T* dg1, const int* scatter, T* dw, const T* dout, const T* tq, const T* g1,
                       const int* j, const T* w, const T* fall, Real<T> shift, Real<T> npad, Arena& arena);
};

}  // namespace dpa2
