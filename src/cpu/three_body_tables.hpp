// The pairs of the three-body sum where series or polynomials stand in for its network (theory S6, 4.3).
#pragma once

#include "cpu/three_body.hpp"
#include "cpu/three_body_pairs.hpp"

namespace dpa2 {

/// Polynomials are those of plain numbers alone.
template <class T, class Isa>
struct ThreeBodyTables {
  /// Whether every pair of a centre lies within the series.
  static bool within_series(const ThreeBodyParams<Real<T>>& p, int n, int m, const T* v, const ThreeBodyPad<Real<T>>& pad);
  /// Q (n3) += sum of the pairs
  static void add(const ThreeBodyParams<Real<T>>& p, const Pairs<T>& pairs, T* Q, Arena& arena);
  /// de (total derivative with respect to e) and dss of every pair, or null; unless null, g's series and gate +=; given dQ (n3)
  static void backward(const ThreeBodyParams<Real<T>>& p, const Pairs<T>& pairs, T* de, T* dss, const ThreeBodyGradient<Real<T>>* g,
                       const T* dQ, Arena& arena);
};

}  // namespace dpa2
