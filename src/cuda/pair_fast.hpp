// Sizes of the pair channel of a centre whose edges are one tile (pair_fast.cuh, pair_fast_backward.cuh): shared by host and kernels.
#pragma once

#include "cuda/tiles.hpp"

namespace dpa2 {
namespace cuda {

/// Tiles in which rows r, r + 4, r + 8 and so on follow each other, in quarters: numbers from row 0 to row 1 (as from 2 to 3) and to row 2,
/// and of a whole tile. Vectors of two rows and half of the columns are then in different banks, and so are those of rows 0, 4 and so on.
DPA2_MATH constexpr int to_row_1(int size) { return size == 4 ? 304 : 280; }
DPA2_MATH constexpr int to_row_2(int size) { return size == 4 ? 588 : 552; }
DPA2_MATH constexpr int quartered_tile(int size) { return size == 4 ? 1176 : 1104; }

/// Bytes of dynamic shared memory for numbers of `size` bytes: tiles, with edges in their margins, switches, and what warps have to add.
DPA2_MATH constexpr int pair_fast_shared(int warps, int size) {
  return size * ((2 + warps) * quartered_tile(size) + 2 * tile + warps * 5 * tile);
}
DPA2_MATH constexpr int pair_fast_shared_backward(int warps, int size) {
  return size * ((2 + 2 * warps) * quartered_tile(size) + 2 * tile);
}

/// Numbers of scratch of a block in the backward: q of each warp, and z where heads come in rounds.
DPA2_MATH constexpr int pair_fast_scratch_backward(int warps, int rounds) { return (warps + (rounds > 1 ? 1 : 0)) * tile_numbers; }

}  // namespace cuda
}  // namespace dpa2
