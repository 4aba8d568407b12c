// Tiles of 32 by 32 numbers, as kernels multiply them and as the host lays out matrices for them.
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace cuda {

constexpr int tile = 32;
constexpr int tile_numbers = tile * tile;

/// How many tiles `count` rows or columns make.
DPA2_MATH constexpr int tiles_of(int count) { return (count + tile - 1) / tile; }

/// Leading dimension in shared memory for numbers of `size` bytes: rows begin at 16 bytes, eight of them in banks of their own.
DPA2_MATH constexpr int tile_row(int size) { return tile + 16 / size; }

/// The same for a whole tile, in numbers.
DPA2_MATH constexpr int padded_tile(int size) { return tile * tile_row(size); }

}  // namespace cuda
}  // namespace dpa2
