// The three-body sum of a centre over pairs of its neighbours (theory 6, 12.13).
#pragma once

#include "cpu/embedding_net.hpp"
#include "cpu/quintic.hpp"
#include "cpu/tabulate.hpp"

namespace dpa2 {

template <class T>
struct ThreeBodyParams {
  EmbeddingNet<T> net;
  int n3 = 0;
  int ntypes = 0;
  T inv_nsel_squared = 0;
  const T* gate = nullptr;   ///< strip mode: (ntypes*ntypes, n3 rounded up to 64 bytes), the same for both orders; null in concat
  bool gate_switch = false;  ///< the gate is multiplied by sw_j sw_k (smooth)
  /// The network as series in e, one curve per row of its type tables, the same for both orders of a pair, or null; a centre whose
  /// pairs might leave its range uses the network.
  const SeriesTable<T>* table = nullptr;
  /// The network as the piecewise polynomials of a compressed model, one curve per row of its type tables; they replace it.
  const QuinticTable<T>* quintic = nullptr;
};

/// Gradients of the weights, +=; null: not wanted. Not of polynomials. With a table those of the network are for the centres that use it.
template <class R>
struct ThreeBodyGradient {
  EmbeddingGradient<R> net;
  R* series = nullptr;  ///< (nintervals, K, n3 rounded up): of the coefficients of SeriesTable::a, for the centres that it serves
  R* gate = nullptr;    ///< (ntypes*ntypes, n3 rounded up to 64 bytes): of either order; the sum over both counts
};

/// The padded slots of a centre as one more neighbour (theory P7): multiplicity 0 where it contributes nothing.
template <class T>
struct ThreeBodyPad {
  T multiplicity = 0;
  T v[3] = {0, 0, 0};
  int type = 0;
};

/// v (3, m): vector part of the environment matrix, sw (m), types (n): types of the neighbours.
/// The pairs are evaluated without order: e_jk is symmetric, and the two orders of the types are added up. Dual numbers
/// know no polynomials.
template <class T, class Isa>
struct ThreeBody {
  /// Q (n3) =
  static void forward(const ThreeBodyParams<Real<T>>& p, int n, int m, T* Q, const T* v, const T* sw, const int* types,
                      const ThreeBodyPad<Real<T>>& pad, Arena& arena);
  /// dv (3, m) +=, dsw (m) += and the gradients of the weights, given dQ (n3); any of them may be null
  static void backward(const ThreeBodyParams<Real<T>>& p, int n, int m, T* dv, T* dsw, const ThreeBodyGradient<Real<T>>* g, const T* dQ,
                       const T* v, const T* sw, const int* types, const ThreeBodyPad<Real<T>>& pad, Arena& arena);
};

}  // namespace dpa2
