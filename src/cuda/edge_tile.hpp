// Tiles of edges in shared memory: sizes that the kernels and those who launch them agree on.
#pragma once

#include "math/portable.hpp"

namespace dpa2::cuda {

/// Edges of a tile, and channels of a chunk.
constexpr int edge_tile = 32;
/// Threads of a block that works on tiles.
constexpr int edge_warps = 4, edge_threads = 32 * edge_warps;
/// Numbers from one row of a tile to the next, for scalars of that many bytes: columns lie in different banks, rows begin at 16 bytes.
DPA2_MATH constexpr int edge_row(int size) { return edge_tile + 16 / size; }
/// Matrices that products of tiles read have whole chunks of rows and columns; what they do not need is zero.
DPA2_MATH constexpr int padded_to_edge_tiles(int n) { return (n + edge_tile - 1) / edge_tile * edge_tile; }

}  // namespace dpa2::cuda
