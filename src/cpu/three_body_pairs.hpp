// The pairs of a centre's neighbours, in chunks.
#pragma once

#include "cpu/arena.hpp"
#include "math/dual.hpp"

namespace dpa2 {

/// A chunk of pairs, on the lanes; the pad neighbour has index n. Lanes beyond the last pair have weight 0.
template <class T>
struct Pairs {
  /// The net's activations of a chunk stay in L1/L2; those of dual numbers are twice as large.
  static constexpr int most = is_dual<T> ? 128 : 256;

  int count;
  int *j, *k, *combination;
  T *e, *ss;        ///< v_j . v_k, sw_j sw_k
  Real<T>* weight;  ///< multiplicity of the pair
};

}  // namespace dpa2
