// Embedding networks as Chebyshev series (theory S6): arguments and sizes, shared by host and kernels.
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace cuda {

/// Terms of a series.
DPA2_MATH constexpr int series_terms(int bytes_of_scalar) { return bytes_of_scalar == 4 ? 16 : 24; }
/// Warps of a block, each with a centre of its own: as many as fit into shared memory.
constexpr int series_most_warps = 4;
/// Channels are padded to this number, with zeros.
constexpr int series_channels = 8;
/// Numbers of an interval's place: the centre, what the scalar's precision leaves of it, 1 / half width, and nothing.
constexpr int series_place = 4;

/// Functions of one scalar on a range, one curve per combination of types or one alone, in intervals of their own.
template <class T>
struct SeriesArgs {
  const int* interval;  // (curves, cells): the interval that covers a cell
  const T* place;       // (intervals, series_place)
  const T* a;           // (intervals, terms, nc) coefficients
  const T* at;          // (intervals, nc, terms) the same
  const T* gate;        // (combinations, nc): the types' network of strip mode with -DGATED, or null
  T lo;                 // the range
  T hi;
  T inv_cell;  // cells of a unit
  int cells;
  int intervals;
  int nc;           // channels, padded
  int typed;        // 1: a curve for every combination of types
  int gate_switch;  // 1: the gate goes with the switch
};
static_assert(sizeof(SeriesArgs<float>) == 72 && sizeof(SeriesArgs<double>) == 88, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
