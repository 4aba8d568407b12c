// Arguments of the pair channel of a layer (pair_layer.cu; without attention pair_update.cu), shared by host and kernels: attention among
// the edges of a centre, linear2, LayerNorm, residual.
//
// Matrices are in tiles: (n2 / 32, n2 / 32, 32, 32), one such set per head for the attention's; the first tile index and the first of 32
// are the one that is summed over; zero beyond n2. `query` is A, `value` B of theory S1 and S3. LayerNorm's gain and shift are times the
// attention's weight in the update.
#pragma once

#include "cuda/pair_fast.hpp"
#include "cuda/tiles.hpp"

namespace dpa2 {
namespace cuda {

/// Of one layer.
template <class T>
struct PairConstants {
  const T* query;       // tiles of A; null where neither g2 nor h2 has attention
  const T* query_t;     // tiles of A^T
  const T* value;       // tiles of B, or null: no attention of g2
  const T* value_t;     // tiles of B^T, or null
  const T* bias;        // (n2) of z, or null
  const T* h2_weight;   // (heads), or null: h2 stays
  const T* linear_w;    // tiles
  const T* linear_wt;   // tiles of the transposed matrix
  const T* linear_b;    // (n2)
  const T* linear_r;    // (n2)
  const T* g1g1_r;      // (n2), or null: no update by g1g1
  const T* gain;        // (n2), or null
  const T* norm_shift;  // (n2), or null
  int n2;
  int heads;
  int gate;
  int nsel;  // slots of a centre where smooth, else 0
  T shift;   // of the logits where smooth, else 0
  T a;       // of g2 in its update
  T h2_a;
  T h2_r;
  T eps;  // of LayerNorm
};
static_assert(sizeof(PairConstants<float>) == 144 && sizeof(PairConstants<double>) == 160, "fixed-width");

/// out = a g2 + linear_r phi(g2 linear_w + linear_b) + g1g1_r U + gain z / sigma + norm_shift, h2_out = h2_a h2 + h2_r dh, with z and dh of
/// the attention.
template <class T>
struct PairLayerArgs {
  T* out;            // (capacity, n2), not g2
  T* h2_out;         // (capacity, 3), or null where h2 stays
  T* scratch;        // pair_layer_blocks pair_layer_scratch numbers, or null where that is 0
  const T* g2;       // (capacity, n2)
  const T* h2;       // (capacity, 3)
  const T* w;        // (capacity) switches, 1 where not smooth
  const T* U;        // (capacity, n2) the update by g1g1, or null
  const int* start;  // (centres + 1)
  int* taken;        // pair_layer_counters, zero before
  int centres;
  int most;  // edges of a centre: scratch is made for it
  PairConstants<T> with;
};
static_assert(sizeof(PairLayerArgs<float>) == 80 + 144 && sizeof(PairLayerArgs<double>) == 80 + 160, "fixed-width");

/// dg2 and dh2, in place: from the gradients of out and h2_out to those of g2 and h2; dw +=, dU =.
template <class T>
struct PairLayerBackwardArgs {
  T* dg2;            // (capacity, n2)
  T* dh2;            // (capacity, 3)
  T* dw;             // (capacity)
  T* dU;             // (capacity, n2), or null
  T* scratch;        // pair_layer_blocks pair_layer_scratch_backward numbers
  const T* g2;       // (capacity, n2)
  const T* h2;       // (capacity, 3)
  const T* w;        // (capacity)
  const int* start;  // (centres + 1)
  int* taken;        // pair_layer_counters, zero before
  int centres;
  int most;
  PairConstants<T> with;
};
static_assert(sizeof(PairLayerBackwardArgs<float>) == 88 + 144 && sizeof(PairLayerBackwardArgs<double>) == 88 + 160, "fixed-width");

/// One warp per head at a time; as many at once as 48 KiB have room for, evenly.
DPA2_MATH constexpr int pair_layer_most_warps(int size) { return size == 4 ? 4 : 2; }
DPA2_MATH constexpr int pair_layer_rounds(int heads, int size) {
  return (heads + pair_layer_most_warps(size) - 1) / pair_layer_most_warps(size);
}
DPA2_MATH constexpr int pair_layer_warps(int heads, int size) {
  return (heads + pair_layer_rounds(heads, size) - 1) / pair_layer_rounds(heads, size);
}
DPA2_MATH constexpr int pair_layer_threads(int heads, int size) { return 32 * pair_layer_warps(heads, size); }

/// Whether the kernels are compiled with the paths in registers, for any number of edges, or else with that for any number of channels. Rows
/// of g2 are whole vectors in the former: code for others would be at every access. In double there are not enough registers. `fast` below
/// is this.
DPA2_MATH constexpr bool pair_layer_fast(int n2, int size) { return size == 4 && n2 <= tile && n2 % 4 == 0; }

/// Numbers of scratch of one warp of the path for any number of channels, for a centre of `most` edges: maps and sums of the queries of a
/// tile. Where everything is one tile, the forward needs none.
DPA2_MATH constexpr int pair_warp_scratch(int n2, int most) { return n2 <= tile && most <= tile ? 0 : 2 * tiles_of(n2) * tile_numbers; }
DPA2_MATH constexpr int pair_warp_scratch_backward(int n2, int most, int rounds) {
  const bool one = n2 <= tile && most <= tile;
  const int first = one ? rounds : 2 + rounds, second = one ? 2 : 4;  // maps, and what each head adds to z; then maps of the gradient
  return (first > second ? first : second) * tiles_of(n2) * tile_numbers + 4 * tile;
}

/// Numbers that begin at 16 bytes.
DPA2_MATH constexpr int pair_whole_vectors(int numbers) { return (numbers + 3) / 4 * 4; }

/// Numbers of scratch of a block: of its warps; z of a centre; in the backward the softmax of its queries and gradients of h2.
DPA2_MATH constexpr int pair_layer_scratch(bool fast, int n2, int heads, int most, int size) {
  const int warps = pair_layer_warps(heads, size);
  if (fast) return most <= tile ? 0 : warps * pair_tiled_scratch;
  return warps * pair_warp_scratch(n2, most) + pair_whole_vectors(most * n2);
}
DPA2_MATH constexpr int pair_layer_scratch_backward(bool fast, int n2, int heads, int most, int size) {
  const int warps = pair_layer_warps(heads, size), rounds = pair_layer_rounds(heads, size);
  if (fast && most <= tile) return pair_fast_scratch_backward(warps, rounds);
  if (fast) return pair_tiled_scratch_backward(warps, rounds, heads, most);
  return warps * pair_warp_scratch_backward(n2, most, rounds) + pair_whole_vectors(most * n2) +
         pair_whole_vectors(tiles_of(most) * 3 * tile * heads + most * 3);
}

/// What the blocks of one launch have taken: pieces of the centres with more than one tile of edges, then centres of one tile.
constexpr int pair_layer_counters = 2;

/// Warps that a multiprocessor has registers for: with 128 per thread in registers' forward and 168 in its backward, with 168 and 255 where
/// there is any number of channels; in double with all that there are.
DPA2_MATH constexpr int pair_layer_resident(bool fast, int size, bool backward) {
  return size == 8 ? 8 : (fast ? 16 : 12) - (backward ? 4 : 0);
}

/// Blocks take centre after centre, whoever is free, so that scratch does not grow with the system: as many as run at once, and no more
/// than 256 MiB have room for. `scratch`: numbers of one block; `resident`: blocks of this kernel that the device has registers for.
DPA2_MATH constexpr int pair_layer_blocks(int centres, int scratch, int size, int resident) {
  const int room = scratch > 0 ? (256 << 20) / size / scratch : resident;
  const int most = room < 1 ? 1 : room < resident ? room : resident;
  return centres < most ? centres : most;
}

/// Bytes of shared memory in which a block tells its warps which centre is next; in double there are none to spare, and it uses those of
/// the work between two centres.
constexpr int pair_layer_slots = 32;
DPA2_MATH constexpr int pair_layer_own_slots(int size) { return size == 4 ? pair_layer_slots : 0; }

/// Bytes of dynamic shared memory for numbers of `size` bytes: these slots; and what the paths in registers need, or tiles, edges as four
/// numbers, and what warps have to add.
DPA2_MATH constexpr int pair_layer_shared(bool fast, int heads, int size) {
  const int warps = pair_layer_warps(heads, size), any = size * (padded_tile(size) * (1 + warps) + 2 * 4 * tile + warps * 6 * tile);
  return pair_layer_own_slots(size) + (fast ? pair_fast_shared(warps, size) : any);
}
DPA2_MATH constexpr int pair_layer_shared_backward(bool fast, int heads, int size) {
  const int warps = pair_layer_warps(heads, size), any = size * (padded_tile(size) * (1 + 2 * warps) + 3 * 4 * tile + warps * 5 * tile);
  return pair_layer_own_slots(size) + (fast ? pair_fast_shared_backward(warps, size) : any);
}
static_assert(pair_layer_shared(true, 4, 4) <= 49152 && pair_layer_shared(false, 4, 4) <= 49152, "any device has 48 KiB");
static_assert(pair_layer_shared_backward(true, 4, 4) <= 49152 && pair_layer_shared_backward(false, 4, 4) <= 49152, "any device has 48 KiB");
static_assert(pair_layer_shared(false, 2, 8) <= 49152 && pair_layer_shared_backward(false, 2, 8) <= 49152, "any device has 48 KiB");

/// Without attention a warp takes 32 edges of any centres (pair_update.cu), in a grid for all of them.
constexpr int pair_update_warps = 4;
constexpr int pair_update_threads = 32 * pair_update_warps;
constexpr int pair_update_edges = tile * pair_update_warps;
DPA2_MATH constexpr int pair_update_shared(int size) { return size * padded_tile(size) * pair_update_warps; }
static_assert(pair_update_shared(8) <= 49152, "any device has 48 KiB");

/// Numbers of scratch of its backward for 32 edges: the gradient of linear2 before its activation, where that is more than a tile.
DPA2_MATH constexpr int pair_update_scratch(int n2) { return n2 <= tile ? 0 : tiles_of(n2) * tile_numbers; }

}  // namespace cuda
}  // namespace dpa2
