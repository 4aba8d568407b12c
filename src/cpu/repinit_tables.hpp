// The moments of the first descriptor where series or polynomials stand in for its network (theory S6, 4.3).
#pragma once

#include "cpu/repinit.hpp"

namespace dpa2 {

/// What the backward of a centre needs of its forward.
template <class T>
struct RepinitTabulated {
  QuinticArguments<Real<T>> at;  ///< of polynomials
  SeriesGroups<T> groups;        ///< of series
  T* f = nullptr;                ///< (4 or 8, npositions): R, and with a gate R times the gate's switch, at the positions of the groups
};

/// Polynomials are those of plain numbers alone. Memory of the arena is the caller's to release.
template <class T, class Isa>
struct RepinitTables {
  /// G (ng, m): polynomials of m edges, without the gate
  static void values(const RepinitParams<Real<T>>& p, int m, T* G, const T* s, const int* combination, Arena& arena);
  /// M (4, ngp) =; false where the network has to be evaluated
  static bool moments(const RepinitParams<Real<T>>& p, int n, int m, T* M, RepinitTabulated<T>& tape, const T* R, const T* sw,
                      const int* combination, const RepinitPad<Real<T>>& pad, Arena& arena);
  /// dR (4, m) +=, dsw (m) +=, or null; unless null, g's series and gate +=; given dM (4, ngp)
  static void backward(const RepinitParams<Real<T>>& p, int n, int m, T* dR, T* dsw, const RepinitGradient<Real<T>>* g, const T* dM,
                       const RepinitTabulated<T>& tape, const T* R, const T* sw, const int* combination, Arena& arena);
};

}  // namespace dpa2
