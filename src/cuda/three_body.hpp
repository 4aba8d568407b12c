// Arguments and sizes of the three-body block: shared by host and kernels.
#pragma once

#include "cuda/embedding_net.hpp"
#include "cuda/env_mat.hpp"

namespace dpa2 {
namespace cuda {

constexpr int three_body_tile = 32;                  ///< neighbours of either side of the pairs that a block has at a time
constexpr int three_body_row = three_body_tile + 1;  ///< of a table of their pairs, by rows and by columns free of bank conflicts

/// The block's columns of D.
template <class T>
struct ThreeBodyArgs {
  T* D;                     // (centres, d_width) columns offset..offset + n3 =
  T* scratch;               // (blocks, three_body_work) with GLOBAL_WORK
  const double* d;          // (master edges, 3)
  const double* r;          // (master edges)
  const int* start;         // (centres + 1) of the block: the first edges of every centre of the master list
  const int* master_start;  // (centres + 1)
  const int* j;             // (master edges)
  const int* types;         // (atoms)
  const int* pad;           // (centres) padded slots
  const int* pad_types;     // (frames)
  const T* pad_v;           // (ntypes, 3) the vector of a padded slot by the type of the centre, or null: they add nothing
  StatisticsArgs<T> statistics;
  EmbeddingNetArgs<T> net;
  T inv_nsel_squared;
  int centres;
  int per_frame;  // centres of a frame
  int n3;
  int ntypes;
  int d_width;
  int offset;
};
static_assert(sizeof(ThreeBodyArgs<float>) == 216 && sizeof(ThreeBodyArgs<double>) == 224, "fixed-width");

/// The gradients of the edge vectors from those columns' gradients.
template <class T>
struct ThreeBodyBackwardArgs {
  T* gamma;                 // (master edges, 3) +=
  const T* dD;              // (centres, d_width)
  T* scratch;               // (blocks, three_body_work) with GLOBAL_WORK
  const double* d;          // (master edges, 3)
  const double* r;          // (master edges)
  const int* start;         // (centres + 1) of the block
  const int* master_start;  // (centres + 1)
  const int* j;             // (master edges)
  const int* types;         // (atoms)
  const int* pad;           // (centres)
  const int* pad_types;     // (frames)
  const T* pad_v;           // (ntypes, 3) or null
  StatisticsArgs<T> statistics;
  EmbeddingNetArgs<T> net;
  T inv_nsel_squared;
  int centres;
  int per_frame;
  int n3;
  int ntypes;
  int d_width;
  int offset;
};
static_assert(sizeof(ThreeBodyBackwardArgs<float>) == 224 && sizeof(ThreeBodyBackwardArgs<double>) == 232, "fixed-width");

/// Numbers of either kernel for sums and channels.
DPA2_MATH constexpr long long three_body_work(int n3, int even, int odd, bool backward, int lanes, int bytes_of_scalar) {
  return (n3 + 3) / 4 * 4LL + embedding_numbers(even, odd, backward, lanes, bytes_of_scalar);
}
/// What the backward adds up for every pair.
DPA2_MATH constexpr int three_body_sums(bool gated) { return gated ? 3 : 2; }
/// Numbers in front of them: two tiles of neighbours, a row of pairs; in the backward its sums and a table of pairs, two with gates.
DPA2_MATH constexpr int three_body_numbers(bool backward, bool gated, int lanes) {
  return 8 * three_body_tile + 3 * lanes +
         (backward ? three_body_sums(gated) * embedding_parts * lanes + (gated ? 2 : 1) * three_body_tile * three_body_row : 0);
}
/// Bytes of shared memory for these and for the types.
DPA2_MATH constexpr int three_body_small(bool backward, bool gated, int lanes, int bytes_of_scalar) {
  return three_body_numbers(backward, gated, lanes) * bytes_of_scalar + (2 * three_body_tile + lanes) * 4;
}

}  // namespace cuda
}  // namespace dpa2
