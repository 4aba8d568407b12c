// The tile of product.cuh by tensor cores: what a thread has of it, and how its warp multiplies two pieces.
//
// Which row or column of the tile is which of a fragment is free to choose. Here each lane reads what it needs of a column of A or a row
// of B in vectors, without two lanes at one bank, and its results are vectors of columns as well.
#pragma once

#include "cuda/mma.cuh"
#include "cuda/product.hpp"
#include "cuda/vector.cuh"

namespace dpa2 {

/// The warps of a block, over rows and columns of the tile, and what a lane gives for each of its warp's: numbers of A and of B.
constexpr int WARPS_DOWN = ROWS == 2 ? 1 : 2, WARPS_ACROSS = 4 / WARPS_DOWN;
constexpr int WARP_ROWS = cuda::product_rows(ROWS) / WARPS_DOWN, WARP_COLUMNS = cuda::product_columns / WARPS_ACROSS;
constexpr int OF_A = WARP_ROWS / 8, OF_B = WARP_COLUMNS / 8;

/// Numbers of A and of B that a lane reads at once.
constexpr int VECTOR_OF_A = OF_A < VECTOR ? OF_A : VECTOR, VECTOR_OF_B = OF_B < VECTOR ? OF_B : VECTOR;

/// Rows of A are 32 bytes more than a multiple of 128 apart, those of B 16, or 32 where vectors have 8 bytes: of four rows that lanes read
/// at once each is in banks of its own.
struct __align__(16) WarpTiles {
  static constexpr bool wide = VECTOR_OF_B == VECTOR;
  static constexpr int row = cuda::product_rows(ROWS) + 2 * VECTOR, row_of_b = cuda::product_columns + (wide ? VECTOR : 2 * VECTOR);
  real a[cuda::product_depth * row];
  real b[cuda::product_depth * row_of_b];

  /// The row that a thread brings, given its number among the threads of a column.
  static __device__ __forceinline__ constexpr int brought(int number) { return number; }

  /// Where the vectors of a group begin, among eight vectors next to each other. In B those of groups 2 m and 2 m + 1 may be four apart.
  static __device__ __forceinline__ int place_in_a(int group) { return VECTOR_OF_A * group; }
  static __device__ __forceinline__ int place_in_b(int group) { return VECTOR_OF_B * (wide ? 4 * (group % 2) + group / 2 : group); }
  static constexpr int pair_in_b = VECTOR_OF_B * (wide ? 4 : 1);
};

struct WarpSums {
  static constexpr int rows = OF_A, columns = 2 * OF_B, together = VECTOR_OF_B;
  static constexpr int H = HALVES<real>, STEP = 4 * H;
  real sum[OF_A / H][OF_B][H][2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int x = 0; x < rows; ++x)
#pragma unroll
      for (int y = 0; y < columns; ++y) at(x, y) = real(0);
  }

  static __device__ __forceinline__ int group() { return static_cast<int>(threadIdx.x) % 32 / 4; }
  static __device__ __forceinline__ int member() { return static_cast<int>(threadIdx.x) % 4; }
  static __device__ __forceinline__ int rows_of_warp() { return static_cast<int>(threadIdx.x) / 32 / WARPS_ACROSS * WARP_ROWS; }
  static __device__ __forceinline__ int columns_of_warp() { return static_cast<int>(threadIdx.x) / 32 % WARPS_ACROSS * WARP_COLUMNS; }

  /// Of the first result, and from there to the others.
  static __device__ __forceinline__ int first_row() { return rows_of_warp() + WarpTiles::place_in_a(group()); }
  static __device__ __forceinline__ int first_column() { return columns_of_warp() + WarpTiles::place_in_b(2 * member()); }
  static __device__ __forceinline__ constexpr int down(int x) { return x / VECTOR_OF_A * 8 * VECTOR_OF_A + x % VECTOR_OF_A; }
  static __device__ __forceinline__ constexpr int across(int y) {
    const int vector = y / VECTOR_OF_B, side = vector % 2;
    return vector / 2 * 8 * VECTOR_OF_B + side * WarpTiles::pair_in_b + y % VECTOR_OF_B;
  }
  __device__ __forceinline__ real& at(int x, int y) {
    const int vector = y / VECTOR_OF_B, side = vector % 2;
    return sum[x / H][vector / 2 * VECTOR_OF_B + y % VECTOR_OF_B][x % H][side];
  }

  __device__ __forceinline__ void add(const WarpTiles& tiles) {
    const real* const a = tiles.a + member() * WarpTiles::row + first_row();
    const real* const b = tiles.b + member() * WarpTiles::row_of_b + columns_of_warp() + WarpTiles::place_in_b(group());
    // Tensor cores drop bits of their sums, always toward zero. Of a piece that is little, and pieces are added with rounding to nearest.
    constexpr bool apart = sizeof(real) == 4;
    WarpSums piece;
    if constexpr (apart) piece.clear();
    WarpSums& into = apart ? piece : *this;
#pragma unroll
    for (int k = 0; k < cuda::product_depth; k += STEP) {
      Factor<real> u[OF_A / H][H][H], v[OF_B][H];
#pragma unroll
      for (int q = 0; q < H; ++q) {
        real of_a[OF_A], of_b[OF_B];
        read_numbers<OF_A>(a + (k + 4 * q) * WarpTiles::row, of_a);
        read_numbers<OF_B>(b + (k + 4 * q) * WarpTiles::row_of_b, of_b);
#pragma unroll
        for (int x = 0; x < OF_A; ++x) u[x / H][q][x % H] = factor_of(of_a[x]);
#pragma unroll
        for (int y = 0; y < OF_B; ++y) v[y][q] = factor_of(of_b[y]);
      }
#pragma unroll
      for (int x = 0; x < OF_A / H; ++x)
#pragma unroll
        for (int y = 0; y < OF_B; ++y) multiply_add(into.sum[x][y], u[x], v[y]);
    }
    if constexpr (apart) {
#pragma unroll
      for (int x = 0; x < rows; ++x)
#pragma unroll
        for (int y = 0; y < columns; ++y) at(x, y) += piece.at(x, y);
    }
  }

 private:
  template <int NUMBERS>
  static __device__ __forceinline__ void read_numbers(const real* from, real* to) {
    constexpr int size = NUMBERS < VECTOR ? NUMBERS : VECTOR;
#pragma unroll
    for (int x = 0; x < NUMBERS; x += size) read_vector<size>(from + 8 * x, to + x);
  }
};

}  // namespace dpa2
