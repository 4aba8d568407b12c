// Arguments and sizes of the first block: shared by host and kernels.
#pragma once

#include "cuda/embedding_net.hpp"
#include "cuda/env_mat.hpp"

namespace dpa2 {
namespace cuda {

/// D and M of every centre.
template <class T>
struct RepinitArgs {
  T* D;                  // (centres, d_width) columns 0..ng * axis =
  T* M;                  // (centres, ng, 4) = the moments, or null
  T* scratch;            // (blocks, repinit_work) with GLOBAL_WORK
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
  EmbeddingNetArgs<T> net;
  T inv_nsel;
  int centres;
  int per_frame;  // centres of a frame
  int ng;
  int axis;
  int ntypes;
  int one_side;  // 1: the types of an edge are that of the neighbour alone
  int d_width;
};
static_assert(sizeof(RepinitArgs<float>) == 224 && sizeof(RepinitArgs<double>) == 240, "fixed-width");

/// The gradients of the edge vectors from that of D.
template <class T>
struct RepinitBackwardArgs {
  T* gamma;          // (edges, 3) =
  T* scratch;        // (blocks, repinit_work) with GLOBAL_WORK
  const T* dD;       // (centres, d_width)
  const T* M;        // (centres, ng, 4)
  const double* d;   // (edges, 3)
  const double* r;   // (edges)
  const int* start;  // (centres + 1)
  const int* j;      // (edges)
  const int* types;  // (atoms)
  StatisticsArgs<T> statistics;
  EmbeddingNetArgs<T> net;
  T inv_nsel;
  int centres;
  int ng;
  int axis;
  int ntypes;
  int one_side;
  int d_width;
};
static_assert(sizeof(RepinitBackwardArgs<float>) == 200 && sizeof(RepinitBackwardArgs<double>) == 208, "fixed-width");

/// Numbers of either kernel for moments and channels.
DPA2_MATH constexpr long long repinit_work(int ng, int even, int odd, bool backward, int lanes, int bytes_of_scalar) {
  return 4LL * ng + embedding_numbers(even, odd, backward, lanes, bytes_of_scalar);
}
/// What the backward adds up for every edge.
DPA2_MATH constexpr int repinit_sums(bool gated) { return gated ? 6 : 5; }
/// Bytes of shared memory for a tile of edges, in front of them: rows, switches, numbers of types, and the sums of the backward.
DPA2_MATH constexpr int repinit_tile(bool backward, bool gated, int lanes, int bytes_of_scalar) {
  return (5 + (backward ? repinit_sums(gated) * embedding_parts : 0)) * lanes * bytes_of_scalar + lanes * 4;
}

}  // namespace cuda
}  // namespace dpa2
