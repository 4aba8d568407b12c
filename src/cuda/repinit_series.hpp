// Arguments and sizes of the first block with its network as series: shared by host and kernels.
#pragma once

#include "cuda/env_mat.hpp"
#include "cuda/series.hpp"

namespace dpa2 {
namespace cuda {

/// D and M of every centre whose edges are within the range of the series.
template <class T>
struct RepinitSeriesArgs {
  T* D;                  // (centres, d_width) columns 0..ng * axis =
  T* M;                  // (centres, ng, 4) = the moments, or null
  int* outside;          // (centres) = 1 where an edge is outside of the range: nothing else is written for that centre
  const double* d;       // (edges, 3)
  const double* r;       // (edges)
  const int* start;      // (centres + 1)
  const int* j;          // (edges)
  const int* types;      // (atoms)
  const int* pad;        // (centres) padded slots
  const int* pad_types;  // (frames)
  const T* pad_R;        // (ntypes, 4), or null: padded slots add nothing
  const T* pad_G;        // (ntypes, ntypes, ng) by the types of a padded slot and of the centre, or null
  StatisticsArgs<T> statistics;
  SeriesArgs<T> series;
  T inv_nsel;
  int centres;
  int per_frame;  // centres of a frame
  int ng;
  int axis;
  int ntypes;
  int one_side;  // 1: the types of an edge are that of the neighbour alone
  int d_width;
};
static_assert(sizeof(RepinitSeriesArgs<float>) == 232 && sizeof(RepinitSeriesArgs<double>) == 264, "fixed-width");

/// The gradients of the edge vectors from that of D, of the centres that the forward has done.
template <class T>
struct RepinitSeriesBackwardArgs {
  T* gamma;            // (edges, 3) =
  const int* outside;  // (centres) what the forward has written
  const T* dD;         // (centres, d_width)
  const T* M;          // (centres, ng, 4)
  const double* d;     // (edges, 3)
  const double* r;     // (edges)
  const int* start;    // (centres + 1)
  const int* j;        // (edges)
  const int* types;    // (atoms)
  StatisticsArgs<T> statistics;
  SeriesArgs<T> series;
  T inv_nsel;
  int centres;
  int ng;
  int axis;
  int ntypes;
  int one_side;
  int d_width;
};
static_assert(sizeof(RepinitSeriesBackwardArgs<float>) == 208 && sizeof(RepinitSeriesBackwardArgs<double>) == 232, "fixed-width");

/// Edges that a warp has at a time: the lists of the published models are one tile.
DPA2_MATH constexpr int repinit_series_tile(int bytes_of_scalar) { return bytes_of_scalar == 4 ? 128 : 96; }
/// Edges whose terms it has at a time.
DPA2_MATH constexpr int repinit_series_part(int bytes_of_scalar) { return bytes_of_scalar == 4 ? 32 : 16; }
/// Numbers from the terms of an edge to those of the next: vectors of all lanes fall on different banks.
DPA2_MATH constexpr int repinit_series_row(int bytes_of_scalar) { return series_terms(bytes_of_scalar) + 16 / bytes_of_scalar; }
/// Runs of edges on one interval that are done together.
DPA2_MATH constexpr int repinit_series_runs(bool backward, int bytes_of_scalar) {
  return (backward ? 2 : 1) * (bytes_of_scalar == 4 ? 4 : 2);
}
/// Numbers of a run: a vector for every term, and with a gate another; in the backward apart by banks.
DPA2_MATH constexpr int repinit_series_run(bool backward, bool gated, int bytes_of_scalar) {
  return (gated ? 8 : 4) * series_terms(bytes_of_scalar) + (backward ? 4 : 0);
}
/// Numbers of a warp: moments or their gradients, the edges of a tile, runs, and terms.
DPA2_MATH constexpr long long repinit_series_numbers(int nc, bool backward, bool gated, int bytes_of_scalar) {
  const int tile = repinit_series_tile(bytes_of_scalar);
  return 4LL * nc + 6 * tile + repinit_series_runs(backward, bytes_of_scalar) * repinit_series_run(backward, gated, bytes_of_scalar) +
         (backward ? 0 : repinit_series_part(bytes_of_scalar) * repinit_series_row(bytes_of_scalar));
}
/// Whole numbers of a warp: the interval, types, run and place in the list of every edge, and where runs begin.
DPA2_MATH constexpr int repinit_series_integers(int bytes_of_scalar) { return 5 * repinit_series_tile(bytes_of_scalar) + 4; }
/// Bytes of shared memory of a warp.
DPA2_MATH constexpr long long repinit_series_bytes(int nc, bool backward, bool gated, int bytes_of_scalar) {
  return repinit_series_numbers(nc, backward, gated, bytes_of_scalar) * bytes_of_scalar + 4LL * repinit_series_integers(bytes_of_scalar);
}

}  // namespace cuda
}  // namespace dpa2
