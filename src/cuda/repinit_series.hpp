// Arguments and sizes of the first block with its network as series: shared by host and kernels.
#pragma once

#include "cuda/repinit.hpp"
#include "cuda/series.hpp"

namespace dpa2 {
namespace cuda {

/// D and M of every centre. Without scratch.
template <class T>
struct RepinitSeriesArgs {
  RepinitArgs<T> block;  // its network for edges outside of the range of the series
  SeriesArgs<T> series;
};
static_assert(sizeof(RepinitSeriesArgs<float>) == 296 && sizeof(RepinitSeriesArgs<double>) == 328, "fixed-width");

/// The gradients of the edge vectors from that of D.
template <class T>
struct RepinitSeriesBackwardArgs {
  RepinitBackwardArgs<T> block;
  SeriesArgs<T> series;
};
static_assert(sizeof(RepinitSeriesBackwardArgs<float>) == 272 && sizeof(RepinitSeriesBackwardArgs<double>) == 296, "fixed-width");

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
/// Numbers for runs and terms, or for the network of which a scalar takes `each`: a multiple of four.
DPA2_MATH constexpr int repinit_series_work(int each, bool backward, bool gated, int bytes_of_scalar) {
  const int work = repinit_series_runs(backward, bytes_of_scalar) * repinit_series_run(backward, gated, bytes_of_scalar) +
                   (backward ? 0 : repinit_series_part(bytes_of_scalar) * repinit_series_row(bytes_of_scalar));
  return work > each ? work : (each + 3) / 4 * 4;
}
/// Numbers of a warp: moments or their gradients, the edges of a tile, and these.
DPA2_MATH constexpr long long repinit_series_numbers(int nc, int each, bool backward, bool gated, int bytes_of_scalar) {
  return 4LL * nc + 6 * repinit_series_tile(bytes_of_scalar) + repinit_series_work(each, backward, gated, bytes_of_scalar);
}
/// Whole numbers of a warp: the interval, types, run and place in the list of every edge, and where runs begin.
DPA2_MATH constexpr int repinit_series_integers(int bytes_of_scalar) { return 5 * repinit_series_tile(bytes_of_scalar) + 4; }
/// Bytes of shared memory of a warp.
DPA2_MATH constexpr long long repinit_series_bytes(int nc, int each, bool backward, bool gated, int bytes_of_scalar) {
  return repinit_series_numbers(nc, each, backward, gated, bytes_of_scalar) * bytes_of_scalar +
         4LL * repinit_series_integers(bytes_of_scalar);
}

}  // namespace cuda
}  // namespace dpa2
