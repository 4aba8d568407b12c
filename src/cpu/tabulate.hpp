// Functions of one scalar as local Chebyshev series, and their moments (theory S6).
//
// An embedding network sees one scalar s per edge (and types), so G(s) is a curve per combination of types. On an interval
// it is a short series, G_c(s) = sum_k a[k][c] T_k(x), exact to rounding when the interval is small enough. A moment over
// edges then factorises: sum_e f_e G_c(s_e) = sum_k (sum_e f_e T_k(x_e)) a[k][c]: the channels are touched once per interval
// that has edges, not once per edge.
#pragma once

#include "cpu/arena.hpp"
#include "math/dual.hpp"

namespace dpa2 {

/// Terms of the series: a multiple of 64 bytes in both precisions.
template <class T>
inline constexpr int series_terms = 24;
template <>
inline constexpr int series_terms<float> = 16;
template <class R>
inline constexpr int series_terms<Dual<R>> = series_terms<R>;

/// Curves on a common range [lo, hi), each split into intervals of its own.
template <class T>
struct SeriesTable {
  int nc = 0;  ///< channels, padded to 64 bytes
  int nintervals = 0;
  int ncells = 0;  ///< the finest subdivision of the range
  double lo = 0, hi = 0, inv_cell = 0;
  const int* interval = nullptr;     ///< (ncurves, ncells): interval that covers a cell
  const double* centre = nullptr;    ///< (nintervals)
  const double* inv_half = nullptr;  ///< (nintervals): 1 / half width
  const T* a = nullptr;              ///< (nintervals, K, nc)
  const T* at = nullptr;             ///< (nintervals, nc, K)
};

/// Arguments sorted into the intervals of a table. Groups are runs of positions, each rounded up to whole vectors: position p
/// holds argument order[p], or nothing (-1).
template <class T>
struct SeriesGroups {
  int ngroups = 0, npositions = 0;
  int* order = nullptr;     ///< (npositions)
  T* x = nullptr;           ///< (npositions): argument on the interval's own scale, -1 to 1; 0 where nothing is held
  int* first = nullptr;     ///< (ngroups + 1): positions
  int* key = nullptr;       ///< (ngroups)
  int* interval = nullptr;  ///< (ngroups)
};

template <class T, class Isa>
struct Tabulate {
  /// Groups n arguments s by (key, interval); curve (n) is the curve of an argument, 0 <= key (n) < nkeys whatever else
  /// separates groups. False, and nothing usable, when an argument lies outside of the table.
  static bool group(const SeriesTable<Real<T>>& table, int n, const T* s, const int* curve, const int* key, int nkeys,
                    SeriesGroups<T>& groups, Arena& arena);
  /// B (nrows, K) = sum over the positions of group g of f (nrows, ld) T_k; f is zero where nothing is held
  static void sums(const SeriesGroups<T>& groups, int g, int nrows, T* B, const T* f, long ld);
  /// v (nrows, ld) = sum_k b (nrows, K) T_k and dv = its derivative with respect to s, at the positions of group g
  static void values(const SeriesTable<Real<T>>& table, const SeriesGroups<T>& groups, int g, int nrows, T* v, T* dv, long ld, const T* b);
};

}  // namespace dpa2
