// Sizes of the pair channel of a centre whose edges are one tile (pair_fast.cuh, pair_fast_backward.cuh): shared by host and kernels.
#pragma once

#include "cuda/tiles.hpp"

namespace dpa2 {
namespace cuda {

/// One warp per head at a time; as many at once as 48 KiB have room for, evenly.
DPA2_MATH constexpr int pair_fast_most_warps(int size) { return size == 4 ? 4 : 2; }
DPA2_MATH constexpr int pair_fast_rounds(int heads, int size) {
  return (heads + pair_fast_most_warps(size) - 1) / pair_fast_most_warps(size);
}
DPA2_MATH constexpr int pair_fast_warps(int heads, int size) {
  return (heads + pair_fast_rounds(heads, size) - 1) / pair_fast_rounds(heads, size);
}

/// Tiles in which rows r, r + 4, r + 8 and so on follow each other, in quarters: numbers from row 0 to row 1 (as from 2 to 3) and to row 2,
/// and of a whole tile. Vectors of two rows and half of the columns are then in different banks, and so are those of rows 0, 4 and so on.
DPA2_MATH constexpr int to_row_1(int size) { return size == 4 ? 304 : 280; }
DPA2_MATH constexpr int to_row_2(int size) { return size == 4 ? 588 : 552; }
DPA2_MATH constexpr int quartered_tile(int size) { return size == 4 ? 1176 : 1104; }

/// Bytes of dynamic shared memory for numbers of `size` bytes: tiles, edges, and what warps have to add.
DPA2_MATH constexpr int pair_fast_shared(int heads, int size) {
  return size * ((2 + pair_fast_warps(heads, size)) * quartered_tile(size) + (2 * 4 + 2) * tile + pair_fast_warps(heads, size) * 5 * tile);
}
DPA2_MATH constexpr int pair_fast_shared_backward(int heads, int size) {
  return size * (((size == 4 ? 2 : 1) + 2 * pair_fast_warps(heads, size)) * quartered_tile(size) + (3 * 4 + 2) * tile);
}
static_assert(pair_fast_shared(4, 4) <= 49152 && pair_fast_shared(2, 8) <= 49152, "any device has 48 KiB");
static_assert(pair_fast_shared_backward(4, 4) <= 49152 && pair_fast_shared_backward(2, 8) <= 49152, "any device has 48 KiB");

/// Numbers of scratch of a block in the backward: c1 where shared memory has no room for it, and z where heads come in rounds.
DPA2_MATH constexpr int pair_fast_scratch_backward(int heads, int size) {
  return (size == 4 ? 0 : quartered_tile(size)) + (pair_fast_rounds(heads, size) > 1 ? tile_numbers : 0);
}

}  // namespace cuda
}  // namespace dpa2
