// The pairs of the three-body sum where series or polynomials stand in for its network (theory S6, 4.3).
#pragma once

#include "cpu/three_body.hpp"
#include "cpu/three_body_pairs.hpp"

namespace dpa2 {

/// For float and double.
template <class T, class Isa>
struct ThreeBodyTables {
  /// Whether every pair of a centre lies within the series.
  static bool within_series(const ThreeBodyParams<T>& p, int n, int m, const T* v, const ThreeBodyPad<T>& pad);
  /// Q (n3) += sum of the pairs
  static void add(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, T* Q, Arena& arena);
  /// de (total derivative with respect to e) and dss of every pair, given dQ (n3)
  static void backward(const ThreeBodyParams<T>& p, const Pairs<T>& pairs, T* de, T* dss, const T* dQ, Arena& arena);
};

}  // namespace dpa2
