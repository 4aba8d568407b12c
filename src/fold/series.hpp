// An embedding network as Chebyshev series (theory S6), for backends that want it. The fold itself makes none: see graph/series.hpp.
#pragma once

#include <vector>

namespace dpa2 {

/// Curves on a common range [lo, hi), each in intervals of its own, for one precision.
struct FoldedSeries {
  int terms = 0, channels = 0;
  int curves = 0, cells = 0, intervals = 0;  ///< cells: the finest subdivision of the range
  double lo = 0, hi = 0;
  std::vector<int> interval;         ///< (curves, cells): interval that covers a cell
  std::vector<double> centre, half;  ///< (intervals): of a width
  std::vector<double> coefficients;  ///< (intervals, terms, channels)
};

}  // namespace dpa2
