// Arguments of the attention among the edges of one centre (pair_attention.cu): shared by host and kernels.
//
// Matrices of the heads are in tiles: (heads, n2 / 32, n2 / 32, 32, 32), the first tile index and the first of 32 being the one that is
// summed over; zero beyond n2. `query` is A, `value` B of theory S1 and S3.
#pragma once

#include "cuda/tiles.hpp"

namespace dpa2 {
namespace cuda {

/// z = the update of g2 before LayerNorm where value is given, dh = that of h2 where h2_weight is.
template <class T>
struct PairAttentionArgs {
  T* z;                // (capacity, n2)
  T* dh;               // (capacity, 3)
  T* top;              // (capacity, heads) the largest logit of a query, or null: not kept
  T* inv_sum;          // (capacity, heads) 1 / sum of exponentials relative to it, or null
  T* scratch;          // pair_blocks(centres) pair_warps(heads) pair_scratch(n2, most) numbers, or null where that is 0
  const T* g2;         // (capacity, n2)
  const T* h2;         // (capacity, 3)
  const T* w;          // (capacity) switches, 1 where not smooth
  const int* start;    // (centres + 1)
  const T* query_t;    // tiles of A^T
  const T* value;      // tiles of B, or null
  const T* bias;       // (n2)
  const T* h2_weight;  // (heads) or null
  int centres;
  int n2;
  int heads;
  int gate;
  int nsel;  // slots of a centre where smooth, else 0
  T shift;   // of the logits where smooth, else 0
};
static_assert(sizeof(PairAttentionArgs<float>) == 128 && sizeof(PairAttentionArgs<double>) == 136, "fixed-width");

/// dg2, dh2, dw +=, given dz where value is given and ddh where h2_weight is.
template <class T>
struct PairAttentionBackwardArgs {
  T* dg2;              // (capacity, n2)
  T* dh2;              // (capacity, 3)
  T* dw;               // (capacity)
  T* scratch;          // pair_blocks(centres) pair_warps(heads) pair_scratch_backward(n2, most) numbers
  const T* dz;         // (capacity, n2) or null
  const T* ddh;        // (capacity, 3) or null
  const T* top;        // (capacity, heads) of the forward
  const T* inv_sum;    // (capacity, heads)
  const T* g2;         // (capacity, n2)
  const T* h2;         // (capacity, 3)
  const T* w;          // (capacity)
  const int* start;    // (centres + 1)
  const T* query;      // tiles of A
  const T* query_t;    // tiles of A^T
  const T* value_t;    // tiles of B^T, or null
  const T* h2_weight;  // (heads) or null
  int centres;
  int n2;
  int heads;
  int gate;
  int most;  // of edges of a centre: scratch is made for it
  T shift;   // of the logits where smooth, else 0
};
static_assert(sizeof(PairAttentionBackwardArgs<float>) == 152 && sizeof(PairAttentionBackwardArgs<double>) == 160, "fixed-width");

/// One warp per head at a time; as many at once as 48 KiB have room for, evenly.
DPA2_MATH constexpr int pair_most_warps(int size) { return size == 4 ? 4 : 2; }
DPA2_MATH constexpr int pair_rounds(int heads, int size) { return (heads + pair_most_warps(size) - 1) / pair_most_warps(size); }
DPA2_MATH constexpr int pair_warps(int heads, int size) { return (heads + pair_rounds(heads, size) - 1) / pair_rounds(heads, size); }
DPA2_MATH constexpr int pair_threads(int heads, int size) { return 32 * pair_warps(heads, size); }

/// Blocks take centres in turns, so that scratch does not grow with the system: some more than any device runs at once.
DPA2_MATH constexpr int pair_blocks(int centres) { return centres < 1536 ? centres : 1536; }

/// Numbers of scratch per warp. Where everything is one tile, the forward needs none; else maps and sums of the queries are there.
DPA2_MATH constexpr int pair_scratch(int n2, int most) { return n2 <= tile && most <= tile ? 0 : 2 * tiles_of(n2) * tile_numbers; }
DPA2_MATH constexpr int pair_scratch_backward(int n2, int most) {
  return (n2 <= tile && most <= tile ? 1 : 4) * tiles_of(n2) * tile_numbers;
}

/// Bytes of dynamic shared memory for numbers of `size` bytes: tiles, edges as four numbers, and what warps have to add.
DPA2_MATH constexpr int pair_shared(int heads, int size) {
  return size * (padded_tile(size) * (1 + pair_warps(heads, size)) + 2 * 4 * tile + pair_warps(heads, size) * 5 * tile);
}
DPA2_MATH constexpr int pair_shared_backward(int heads, int size) {
  return size * (padded_tile(size) * (1 + 2 * pair_warps(heads, size)) + 3 * 4 * tile + pair_warps(heads, size) * 5 * tile);
}
static_assert(pair_shared(4, 4) <= 49152 && pair_shared(2, 8) <= 49152, "any device has 48 KiB");
static_assert(pair_shared_backward(4, 4) <= 49152 && pair_shared_backward(2, 8) <= 49152, "any device has 48 KiB");

}  // namespace cuda
}  // namespace dpa2
