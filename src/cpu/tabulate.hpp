// Functions of one scalar as local Chebyshev series, and their moments (specification, section 11, S6).
//
// An embedding network sees one scalar s per edge (and types), so G(s) is a curve per combination of types. On an interval
// it is a short series, G_c(s) = sum_k a[k][c] T_k(x), exact to rounding when the interval is small enough. A moment over
// edges then factorises: sum_e f_e G_c(s_e) = sum_k (sum_e f_e T_k(x_e)) a[k][c]: the channels are touched once per interval
// that has edges, not once per edge.
#pragma once

#include "cpu/arena.hpp"

namespace dpa2 {

/// Terms of the series: a multiple of 64 bytes in both precisions.
template <class T>
inline constexpr int series_terms = 24;
template <>
inline constexpr int series_terms<float> = 16;

/// Curves on a common range [lo, hi), each split into intervals of its own.
template <class T>
struct SeriesTable {
  int nc = 0;                    ///< channels, padded to 64 bytes
  int nintervals = 0;
  int ncells = 0;                ///< the finest subdivision of the range
  double lo = 0, hi = 0, inv_cell = 0;
  const int* interval = nullptr;  ///< (ncurves, ncells): interval that covers a cell
  const double* centre = nullptr;    ///< (nintervals)
  const double* inv_half = nullptr;  ///< (nintervals): 1 / half width
  const T* a = nullptr;           ///< (nintervals, K, nc)
  const T* at = nullptr;          ///< (nintervals, nc, K)
};

/// Arguments sorted into the intervals of a table: entry p of `order` stands at position p, groups are runs of one key.
struct SeriesGroups {
  int ngroups = 0;
  int* order = nullptr;  ///< (n): argument at each position
  int* first = nullptr;  ///< (ngroups + 1): positions
  int* key = nullptr;    ///< (ngroups): key of the group
  int* interval = nullptr;  ///< (ngroups)
};

template <class T, class Isa>
struct Tabulate {
  /// Groups n arguments s by (key, interval); curve (n) is the curve of an argument, 0 <= key (n) < nkeys whatever else
  /// separates groups. False, and nothing usable, when an argument lies outside of the table.
  static bool group(const SeriesTable<T>& table, int n, const T* s, const int* curve, const int* key, int nkeys, SeriesGroups& groups,
                    Arena& arena);
  /// t (n, K), dt (n, K) or null: T_k and its derivative with respect to s, by position
  static void basis(const SeriesTable<T>& table, const T* s, const SeriesGroups& groups, T* t, T* dt);
};

}  // namespace dpa2
