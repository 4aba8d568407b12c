// Tiles of edges in shared memory: sizes that the kernels and those who launch them agree on.
#pragma once

#include "math/portable.hpp"

namespace dpa2::cuda {

/// Edges of a tile, and channels of a chunk.
constexpr int tile_edges = 32;
/// Threads of a block that works on tiles.
constexpr int tile_warps = 4, tile_threads = 32 * tile_warps;
/// Numbers from one row of a tile to the next, for scalars of that many bytes: columns lie in different banks, rows begin at 16 bytes.
DPA2_MATH constexpr int tile_row(int size) { return tile_edges + 16 / size; }
/// Matrices that products of tiles read have whole chunks of rows and columns; what they do not need is zero.
DPA2_MATH constexpr int padded_to_tiles(int n) { return (n + tile_edges - 1) / tile_edges * tile_edges; }

}  // namespace dpa2::cuda
