// Tiles of edges in shared memory: sizes that the kernels and those who launch them agree on.
#pragma once

#include "cuda/tiles.hpp"

namespace dpa2::cuda {

/// Threads of a block that works on tiles: of tile edges, in chunks of tile channels.
constexpr int edge_warps = 4, edge_threads = 32 * edge_warps;
/// Matrices that products of tiles read are strips of `tile` columns, one behind the other, each with whole tiles of rows; what is not
/// there is zero. The number at row k, column c is at strip_of(c / tile * tile, rows) + k tile + c % tile.
DPA2_MATH constexpr int padded_to_edge_tiles(int n) { return tiles_of(n) * tile; }
DPA2_MATH constexpr int strip_of(int column, int rows) { return column * padded_to_edge_tiles(rows); }

}  // namespace dpa2::cuda
