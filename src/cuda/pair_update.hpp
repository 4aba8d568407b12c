// Arguments of the update of g2 and h2 (pair_update.cu): shared by host and kernels.
//
// Matrices are in tiles: (n2 / 32, n2 / 32, 32, 32), the first tile index and the first of 32 being the one that is summed over; zero
// beyond n2. LayerNorm's gain and shift are times the attention's weight in the update.
#pragma once

#include "cuda/tiles.hpp"

namespace dpa2 {
namespace cuda {

/// out = a g2 + linear_r phi(g2 w + b) + g1g1_r U + gain z / sigma + shift, h2_out = h2_a h2 + h2_r dh.
template <class T>
struct PairUpdateArgs {
  T* out;             // (capacity, n2), not g2
  T* h2_out;          // (capacity, 3), or null where h2 is not updated
  const T* g2;        // (capacity, n2)
  const T* h2;        // (capacity, 3)
  const T* U;         // (capacity, n2) the update by g1g1, or null
  const T* z;         // (capacity, n2) of the attention before LayerNorm, or null
  const T* dh;        // (capacity, 3) of the attention, or null
  const int* start;   // (centres + 1)
  const T* w;         // tiles
  const T* b;         // (n2)
  const T* linear_r;  // (n2)
  const T* g1g1_r;    // (n2) or null
  const T* gain;      // (n2) or null
  const T* shift;     // (n2) or null
  int centres;
  int n2;
  T a;
  T h2_a;
  T h2_r;
  T eps;  // of LayerNorm
};
static_assert(sizeof(PairUpdateArgs<float>) == 136 && sizeof(PairUpdateArgs<double>) == 152, "fixed-width");

/// dg2 and dh2, in place: from the gradients of the outputs to what the terms here pass on; dz, dU and ddh =.
template <class T>
struct PairUpdateBackwardArgs {
  T* dg2;             // (capacity, n2)
  T* dh2;             // (capacity, 3), or null where h2 is not updated
  T* dz;              // (capacity, n2) or null
  T* dU;              // (capacity, n2) or null
  T* ddh;             // (capacity, 3) or null
  T* dlinear;         // (capacity, n2) of linear2 before its activation, where n2 is more than a tile; else null
  const T* g2;        // (capacity, n2)
  const T* z;         // (capacity, n2) or null
  const int* start;   // (centres + 1)
  const T* w;         // tiles
  const T* w_t;       // tiles of the transposed matrix
  const T* b;         // (n2)
  const T* linear_r;  // (n2)
  const T* g1g1_r;    // (n2) or null
  const T* gain;      // (n2) or null
  int centres;
  int n2;
  T a;
  T h2_a;
  T h2_r;
  T eps;
};
static_assert(sizeof(PairUpdateBackwardArgs<float>) == 144 && sizeof(PairUpdateBackwardArgs<double>) == 160, "fixed-width");

/// A warp takes 32 edges.
constexpr int pair_update_warps = 4;
constexpr int pair_update_threads = 32 * pair_update_warps;
constexpr int pair_update_edges = tile * pair_update_warps;

/// Bytes of dynamic shared memory for numbers of `size` bytes.
DPA2_MATH constexpr int pair_update_shared(int size) { return size * padded_tile(size) * pair_update_warps; }
static_assert(pair_update_shared(8) <= 49152, "any device has 48 KiB");

}  // namespace cuda
}  // namespace dpa2
