// Sizes of the pair channel of the paths in registers (pair_fast.cuh, pair_tiled.cuh and their backward): shared by host and kernels.
#pragma once

#include "cuda/tiles.hpp"

namespace dpa2 {
namespace cuda {

/// Tiles in which rows r, r + 4, r + 8 and so on follow each other, in quarters: numbers from row 0 to row 1 (as from 2 to 3) and to row 2,
/// and of a whole tile. Vectors of two rows and half of the columns are then in different banks, and so are those of rows 0, 4 and so on.
DPA2_MATH constexpr int to_row_1(int size) { return size == 4 ? 304 : 280; }
DPA2_MATH constexpr int to_row_2(int size) { return size == 4 ? 588 : 552; }
DPA2_MATH constexpr int quartered_tile(int size) { return size == 4 ? 1176 : 1104; }

/// Bytes of dynamic shared memory for numbers of `size` bytes: tiles, with edges in their margins, switches; in the forward, what warps have
/// to add, and queries where these are not the keys.
DPA2_MATH constexpr int pair_fast_shared(int warps, int size) {
  return size * ((2 + warps) * quartered_tile(size) + 2 * tile + warps * 5 * tile + 4 * tile);
}
DPA2_MATH constexpr int pair_fast_shared_backward(int warps, int size) {
  return size * ((2 + 2 * warps) * quartered_tile(size) + 2 * tile);
}

/// Numbers of scratch of a block in the backward: q of each warp, and z where heads come in rounds.
DPA2_MATH constexpr int pair_fast_scratch_backward(int warps, int rounds) { return (warps + (rounds > 1 ? 1 : 0)) * tile_numbers; }

/// Where edges are several tiles: of a warp in the forward, q and y.
constexpr int pair_tiled_scratch = 2 * tile_numbers;

/// Of a warp in the backward: q, y and V, or what each of its heads adds to z in place of the last; sums of the queries. Of a block for a
/// centre of `most` edges: these, z in tiles, four numbers for the softmax of every query and head, and for the gradients of h2.
DPA2_MATH constexpr int pair_tiled_warp_scratch_backward(int rounds) { return (2 + rounds) * tile_numbers + 4 * tile; }
DPA2_MATH constexpr int pair_tiled_scratch_backward(int warps, int rounds, int heads, int most) {
  return warps * pair_tiled_warp_scratch_backward(rounds) + tiles_of(most) * (tile_numbers + 4 * tile * (heads + 1));
}

}  // namespace cuda
}  // namespace dpa2
