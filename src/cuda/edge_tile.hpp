// Tiles of edges in shared memory: sizes that the kernels and those who launch them agree on.
#pragma once

#include "cuda/tiles.hpp"

namespace dpa2::cuda {

/// Threads of a block that works on tiles: of tile edges, in chunks of tile channels.
constexpr int edge_warps = 4, edge_threads = 32 * edge_warps;
/// Matrices that products of tiles read have whole chunks of rows and columns; what they do not need is zero.
DPA2_MATH constexpr int padded_to_edge_tiles(int n) { return tiles_of(n) * tile; }

}  // namespace dpa2::cuda
