// The first descriptor of a centre: moments of the embedded environment and their Gram matrix (theory 5, 12.14).
#pragma once

#include "cpu/embedding_nets.hpp"
#include "cpu/quintic.hpp"
#include "cpu/tabulate.hpp"

namespace dpa2 {

template <class T>
struct RepinitParams {
  EmbeddingNet<T> net;
  const EmbeddingNet<T>* nets =
      nullptr;  ///< of se_e2_a: one per combination of types, in place of `net`, which is typed and has nothing else
  int ng = 0, axis = 0;
  int ncombinations = 0;  ///< rows of the type tables
  T inv_nsel = 0;
  const T* gate = nullptr;   ///< strip mode: (ncombination, ng rounded up to 64 bytes), the types' factor; null in concat mode
  bool gate_switch = false;  ///< the gate is multiplied by sw (smooth)
  /// The network as series in s, one curve per row of its type tables; null: the network itself is evaluated. Centres with an
  /// edge outside of the table's range use the network.
  const SeriesTable<T>* table = nullptr;
  /// The network as the piecewise polynomials of a compressed model, one curve per row of its type tables; they replace it.
  const QuinticTable<T>* quintic = nullptr;
};

/// Gradients of the weights, +=; null: not wanted. Not of polynomials. With a table those of the network are for the centres that use it.
template <class R>
struct RepinitGradient {
  EmbeddingGradient<R> net;
  R* series = nullptr;  ///< (nintervals, K, ngp): of the coefficients of SeriesTable::a, for the centres that it serves
  R* gate = nullptr;    ///< (ncombination, ngp)
  R* pad_G = nullptr;   ///< (ngp): of RepinitPad::G
};

/// The padded slots of a centre enter the moments as one constant (theory P6): pad_weight * R_pad (4) outer G_pad (ng).
template <class T>
struct RepinitPad {
  T weight = 0;  ///< number of padded slots / nsel
  const T* R = nullptr;
  const T* G = nullptr;
};

/// Lane layout as in env_mat.hpp; combination (m) are rows of the type tables. Dual numbers know no polynomials.
template <class T, class Isa>
struct Repinit {
  /// G (ng, m): the embedding of every edge, in memory of the arena that the caller releases.
  static void embed(const RepinitParams<Real<T>>& p, int m, T** G, const T* s, const T* sw, const int* combination, Arena& arena);
  /// D (ng*axis) =, channel-major; M (4, ngp) =, ngp = ng rounded up to 64 bytes
  static void forward(const RepinitParams<Real<T>>& p, int n, int m, T* D, T* M, const T* R, const T* sw, const int* combination,
                      const RepinitPad<Real<T>>& pad, Arena& arena);
  /// dR (4, m) +=, dsw (m) += and the gradients of the weights, given dD (ng*axis) and dV (3, ngp), that of the vector moments, the last
  /// three rows of M, or null: nothing depends on them. Any of the outputs may be null, and g is with `nets`. The moments are recomputed.
  static void backward(const RepinitParams<Real<T>>& p, int n, int m, T* dR, T* dsw, const RepinitGradient<Real<T>>* g, const T* dD,
                       const T* dV, const T* R, const T* sw, const int* combination, const RepinitPad<Real<T>>& pad, Arena& arena);
};

}  // namespace dpa2
