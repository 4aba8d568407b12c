// Functions of one scalar as piecewise quintic polynomials: the tables of compressed models (theory 4.3).
// docs/compression.md says how they are made.
//
// A table has many short intervals, so that the edges of a centre seldom share one. Each edge therefore evaluates its own
// polynomial, channels on the lanes, where the series of tabulate.hpp gather the edges of an interval first.
#pragma once

#include "cpu/arena.hpp"
#include "math/quintic.hpp"

namespace dpa2 {

/// Curves on common intervals between lo and hi. Outside they go on as straight lines, with the value and slope of the end.
template <class T>
struct QuinticTable {
  int nc = 0;  ///< channels, padded to 64 bytes
  int nintervals = 0;
  int ncells = 0;  ///< the finest subdivision of the range
  double lo = 0, hi = 0, inv_cell = 0;
  const int* interval = nullptr;     ///< (ncells): interval that covers a cell
  const double* centre = nullptr;    ///< (nintervals + 2): then lo and hi, for the lines below and above
  const double* inv_half = nullptr;  ///< (nintervals + 2): 1 / half width
  const T* a = nullptr;              ///< (ncurves, nintervals + 2, 6, nc): of the powers of x = (s - centre) * inv_half
};

/// Where the arguments of a table lie.
template <class T>
struct QuinticArguments {
  const T** a = nullptr;  ///< (n): the coefficients (6, nc) of an argument's interval
  T* x = nullptr;         ///< (n): its place in the interval, -1 to 1
  T* slope = nullptr;     ///< (n): dx/ds
};

/// A factor 1 + rows[key] * weight for every channel: the types' share of strip mode.
template <class T>
struct QuinticGate {
  const T* rows = nullptr;    ///< (nkeys, nc), or null: no factor
  const int* key = nullptr;   ///< (n)
  const T* weight = nullptr;  ///< (n), or null: 1
};

template <class T, class Isa>
struct Quintic {
  /// Finds the intervals of n arguments s on their curves; memory from the arena.
  static void locate(const QuinticTable<T>& table, int n, const T* s, const int* curve, QuinticArguments<T>& at, Arena& arena);
  /// G (ng, m) = the first ng channels at m arguments, without a gate
  static void values(const QuinticTable<T>& table, int ng, int m, T* G, const QuinticArguments<T>& at);
  /// Y (rows, nc) += sum over the arguments of r (rows, ld) times the gated value; rows is 1 or 4
  static void moments(const QuinticTable<T>& table, int n, int rows, T* Y, const T* r, long ld, const QuinticArguments<T>& at,
                      const QuinticGate<T>& gate);
  /// dr (rows, ld) =, ds (n) =, dweight (n) = (null without a gate), given dY (rows, nc)
  static void moments_backward(const QuinticTable<T>& table, int n, int rows, T* dr, T* ds, T* dweight, const T* dY, const T* r, long ld,
                               const QuinticArguments<T>& at, const QuinticGate<T>& gate);
};

}  // namespace dpa2
