// The tables of compressed models: from the file's piecewise polynomials to what the kernels evaluate.
#pragma once

#include "cpu/quintic.hpp"
#include "graph/packing.hpp"
#include "schema/config.hpp"

namespace dpa2 {

/// Fills `table` from the weight (ncurves, intervals, 6, channels) of a file: coefficients of the powers of (s - begin) / length
/// of an interval. The straight lines at both ends are added.
template <class T>
void build_quintic(Storage& storage, QuinticTable<T>& table, const TableConfig& config, const Tensor& weight);

}  // namespace dpa2
