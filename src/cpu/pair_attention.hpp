// Attention among the pairs of one centre: the update of g2 and of h2 (theory 8.5-8.7, 12.9, 12.10, S1-S3).
#pragma once

#include "cpu/arena.hpp"
#include "cpu/linear.hpp"

namespace dpa2 {

/// Weights as folded when the model is prepared: query with key (A), value with head map, LayerNorm's mean and 1/sqrt(3) (B).
/// n2 is padded to 64 bytes; the padding of every matrix is zero.
template <class T>
struct PairAttentionParams {
  int nh = 0, n2 = 0;
  bool gate = false, smooth = true;
  T shift = 0;                   ///< math::attention_shift when smooth, else 0
  Packed<T> A, At;               ///< (n2, nh*n2) block h = Wk_h Wq_h^T / sqrt(nd); its transpose
  Packed<T> B, Bt;               ///< (n2, nh*n2) likewise, empty without the g2 update; its transpose, for gradients of weights
  const T* B_stack = nullptr;    ///< (nh*n2, n2): the blocks of B one below the other, row-major
  const T* bias = nullptr;       ///< (n2): the head map's bias without its mean
  const T* h2_weight = nullptr;  ///< (nh): weights of the h2 update / sqrt(3), or null
};

/// One centre: n edges on rows, m = n padded to 64 bytes on lanes. The query is on the lanes, the key on the rows, so that the
/// softmax and its backward are vertical: S (key, query) of one head after the other.
template <class T>
struct PairAttentionInput {
  int n, m;
  const T* g2;   ///< (n, n2)
  const T* h2;   ///< (n, 3)
  const T* c1;   ///< (n, m): h2_j.h2_k times c2
  const T* c2;   ///< (n, m): sw_j sw_k (smooth) or 1; zero on the lanes n..m. In float32 what that lacks to 1 (by_fall)
  Real<T> npad;  ///< padded slots in the softmax denominator (smooth), else 0
};

/// Where the gradients of the weights go: each += in the shape of its weight, row-major; null: not wanted.
template <class T>
struct PairAttentionGradient {
  T *A = nullptr, *B = nullptr;  ///< (n2, nh*n2)
  T* bias = nullptr;             ///< (n2)
  T* h2 = nullptr;               ///< (nh): of h2_weight
};

template <class T, class Isa>
struct PairAttention {
  /// c1, c2 (n, m) = from h2 (n, 3), sw (n), and in float32 fall (n) = 1 - sw
  static void factors(int n, int m, bool smooth, T* c1, T* c2, const T* h2, const T* sw, const T* fall, Arena& arena);
  /// dh2 (n, 3) +=, dsw (n) +=, given dc1, dc2 (n, m): dc2 is the gradient of sw_j sw_k
  static void factors_backward(int n, int m, bool smooth, T* dh2, T* dsw, const T* dc1, const T* dc2, const T* h2, const T* sw,
                               Arena& arena);
  /// z (n, n2) = attention output before LayerNorm (B given), dh (n, 3) = update of h2 (h2_weight given); null: not wanted
  static void forward(const PairAttentionParams<Real<T>>& p, const PairAttentionInput<T>& in, T* z, T* dh, Arena& arena);
  /// dg2 (n, n2) +=, dh2 (n, 3) += (the values of the h2 update), dc1, dc2 (n, m) = on the lanes in use, given dz (n, n2),
  /// ddh (n, 3), either of them null where there is no such update; g: gradients of the weights, or null
  static void backward(const PairAttentionParams<Real<T>>& p, const PairAttentionInput<T>& in, T* dg2, T* dh2, T* dc1, T* dc2,
                       const PairAttentionGradient<Real<T>>* g, const T* dz, const T* ddh, Arena& arena);
};

}  // namespace dpa2
