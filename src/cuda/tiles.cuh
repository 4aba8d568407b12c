// Products of tiles of 32 by 32 numbers, each by one warp with 8 by 4 results per lane in registers.
//
// Lanes are 4 rows of 8. What a lane has of a tile depends on the product, so that vector loads meet no bank twice:
//   pairs      rows in pairs, columns column + 8 y                  of a product of rows with rows
//   channels   rows in pairs, columns in vectors                    of a product with a matrix
//   sums       rows in vectors, columns in vectors                  of a sum over rows
// Tiles in shared memory have rows of TILE_ROW numbers; what lies beyond the edge of the data is zero.
#pragma once

#include "cuda/block.cuh"
#include "cuda/tiles.hpp"
#include "cuda/vector.cuh"

namespace dpa2 {

constexpr int TILE = cuda::tile;
constexpr int TILE_ROW = cuda::tile_row(sizeof(real));
constexpr int PADDED_TILE = cuda::padded_tile(sizeof(real));
constexpr int GROUPS = 4 / VECTOR;  // vectors of a lane in a row of four columns
constexpr int FEW = 8;              // rows for which a shorter product exists: the last tile of a centre often has so few

/// 16 bytes, loaded and stored at once.
struct __align__(16) Vector {
  real v[VECTOR];
};

__device__ __forceinline__ Vector read_vector(const real* at) {
  Vector v;
  read_vector<VECTOR>(at, v.v);
  return v;
}
__device__ __forceinline__ void write_vector(real* at, const Vector& v) { write_vector<VECTOR>(at, v.v); }

/// A lane's place in the grid of 4 by 8.
__device__ __forceinline__ int lane_row() { return threadIdx.x % 32 / 8; }
__device__ __forceinline__ int lane_column() { return threadIdx.x % 8; }

/// Row x where rows are in pairs, the first eight of a tile being those of x = 0 and 1; and how far it is from the lane's first.
__device__ __forceinline__ constexpr int pair_down(int x) { return x / 2 * 8 + x % 2; }
__device__ __forceinline__ int pair_row(int x) { return lane_row() * 2 + pair_down(x); }

/// The same where rows are in vectors; and the first of the columns in vector `group`.
__device__ __forceinline__ constexpr int vector_down(int x) { return x / VECTOR * 4 * VECTOR + x % VECTOR; }
__device__ __forceinline__ int vector_row(int x) { return lane_row() * VECTOR + vector_down(x); }
__device__ __forceinline__ int vector_column(int group) { return (group * 8 + lane_column()) * VECTOR; }

/// N of the lane's eight numbers of column y of pairs in a tile, from x0 on, which is even. Every lane reads what it has written itself.
template <int N>
__device__ __forceinline__ void read_column(const real* tile, int x0, int y, real (&v)[N]) {
  tile += pair_row(x0) * TILE_ROW + lane_column() + 8 * y;
#pragma unroll
  for (int x = 0; x < N; ++x) v[x] = tile[pair_down(x) * TILE_ROW];
}
template <int N>
__device__ __forceinline__ void write_column(real* tile, int x0, int y, const real (&v)[N]) {
  tile += pair_row(x0) * TILE_ROW + lane_column() + 8 * y;
#pragma unroll
  for (int x = 0; x < N; ++x) tile[pair_down(x) * TILE_ROW] = v[x];
}

/// The 8 by 4 results of a lane.
struct Results {
  real at[8][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int x = 0; x < 8; ++x)
#pragma unroll
      for (int y = 0; y < 4; ++y) at[x][y] = real(0);
  }

  /// pairs += a b^T over `depth` columns, a multiple of VECTOR. Only the first `rows` of a are of use.
  __device__ __forceinline__ void add_rows_times_rows(int depth, const real* a, const real* b, int rows = TILE) {
    if (rows <= FEW)
      add_rows_times_rows_of<FEW / 4>(depth, a, b);
    else
      add_rows_times_rows_of<8>(depth, a, b);
  }
  template <int ROWS_OF_LANE>
  __device__ __forceinline__ void add_rows_times_rows_of(int depth, const real* a, const real* b) {
    a += opaque(pair_row(0) * TILE_ROW);
    b += opaque(lane_column() * TILE_ROW);
#pragma unroll 1
    for (int c = 0; c < depth; c += VECTOR) {
      Vector v[4];
#pragma unroll
      for (int y = 0; y < 4; ++y) v[y] = read_vector(b + 8 * y * TILE_ROW + c);
#pragma unroll
      for (int x = 0; x < ROWS_OF_LANE; ++x) {
        const Vector u = read_vector(a + pair_down(x) * TILE_ROW + c);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i)
#pragma unroll
          for (int y = 0; y < 4; ++y) at[x][y] += u.v[i] * v[y].v[i];
      }
    }
  }

  /// channels += a m over `depth` columns of a, a multiple of VECTOR; rows of m are `ld` apart. Only the first `rows` of a are of use.
  __device__ __forceinline__ void add_rows_times_matrix(int depth, const real* a, const real* m, int ld, int rows = TILE) {
    if (rows <= FEW)
      add_rows_times_matrix_of<FEW / 4>(depth, a, m, ld);
    else
      add_rows_times_matrix_of<8>(depth, a, m, ld);
  }
  template <int ROWS_OF_LANE>
  __device__ __forceinline__ void add_rows_times_matrix_of(int depth, const real* a, const real* m, int ld) {
    a += opaque(pair_row(0) * TILE_ROW);
    m += opaque(vector_column(0));
#pragma unroll 1
    for (int k = 0; k < depth; k += VECTOR) {
      Vector v[VECTOR][GROUPS];
#pragma unroll
      for (int i = 0; i < VECTOR; ++i)
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) v[i][g] = read_vector(m + (k + i) * ld + g * 8 * VECTOR);
#pragma unroll
      for (int x = 0; x < ROWS_OF_LANE; ++x) {
        const Vector u = read_vector(a + pair_down(x) * TILE_ROW + k);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i)
#pragma unroll
          for (int y = 0; y < 4; ++y) at[x][y] += u.v[i] * v[i][y / VECTOR].v[y % VECTOR];
      }
    }
  }

  /// sums += a^T b over the first `depth` rows of both.
  __device__ __forceinline__ void add_sum_over_rows(int depth, const real* a, const real* b) {
    a += opaque(lane_row() * VECTOR);
    b += opaque(vector_column(0));
#pragma unroll 2
    for (int k = 0; k < depth; ++k) {
      Vector u[8 / VECTOR], v[GROUPS];
#pragma unroll
      for (int g = 0; g < 8 / VECTOR; ++g) u[g] = read_vector(a + k * TILE_ROW + g * 4 * VECTOR);
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) v[g] = read_vector(b + k * TILE_ROW + g * 8 * VECTOR);
#pragma unroll
      for (int x = 0; x < 8; ++x)
#pragma unroll
        for (int y = 0; y < 4; ++y) at[x][y] += u[x / VECTOR].v[x % VECTOR] * v[y / VECTOR].v[y % VECTOR];
    }
  }

  /// Row x times a number.
  __device__ __forceinline__ void scale(int x, real by) {
#pragma unroll
    for (int y = 0; y < 4; ++y) at[x][y] *= by;
  }

  __device__ __forceinline__ Vector columns(int x, int group) const {
    Vector v;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) v.v[i] = at[x][group * VECTOR + i];
    return v;
  }
  __device__ __forceinline__ void set_columns(int x, int group, const Vector& v) {
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) at[x][group * VECTOR + i] = v.v[i];
  }

  /// Into a tile and back, by what the results are. Rows of channels and sums are `ld` apart: TILE_ROW in shared memory, TILE elsewhere.
  __device__ __forceinline__ void write_pairs(real* tile) const {
#pragma unroll
    for (int y = 0; y < 4; ++y) {
      real v[8];
#pragma unroll
      for (int x = 0; x < 8; ++x) v[x] = at[x][y];
      write_column(tile, 0, y, v);
    }
  }
  __device__ __forceinline__ void write_channels(real* tile, int ld) const {
    tile += opaque(pair_row(0) * ld + vector_column(0));
#pragma unroll
    for (int x = 0; x < 8; ++x)
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) write_vector(tile + pair_down(x) * ld + g * 8 * VECTOR, columns(x, g));
  }
  __device__ __forceinline__ void read_channels(const real* tile, int ld) {
    tile += opaque(pair_row(0) * ld + vector_column(0));
#pragma unroll
    for (int x = 0; x < 8; ++x)
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) set_columns(x, g, read_vector(tile + pair_down(x) * ld + g * 8 * VECTOR));
  }
  __device__ __forceinline__ void write_sums(real* tile, int ld) const {
    tile += opaque(vector_row(0) * ld + vector_column(0));
#pragma unroll
    for (int x = 0; x < 8; ++x)
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) write_vector(tile + vector_down(x) * ld + g * 8 * VECTOR, columns(x, g));
  }
  __device__ __forceinline__ void read_sums(const real* tile, int ld) {
    tile += opaque(vector_row(0) * ld + vector_column(0));
#pragma unroll
    for (int x = 0; x < 8; ++x)
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) set_columns(x, g, read_vector(tile + vector_down(x) * ld + g * 8 * VECTOR));
  }
};

/// A tile with nothing between its rows into shared memory; in double by way of few registers.
__device__ __forceinline__ void copy_tile(const real* from, real* tile) {
  from += opaque(lane_row() * TILE + vector_column(0));
  tile += opaque(lane_row() * TILE_ROW + vector_column(0));
  constexpr int at_once = sizeof(real) == 8 ? 2 : 4;
#pragma unroll at_once
  for (int x = 0; x < 8; ++x)
#pragma unroll
    for (int g = 0; g < GROUPS; ++g)
      write_vector(tile + 4 * x * TILE_ROW + g * 8 * VECTOR, read_vector(from + 4 * x * TILE + g * 8 * VECTOR));
}

/// How far a product over the channels of tile `chunk` goes: a multiple of VECTOR.
__device__ __forceinline__ int depth_of(int channels, int chunk) {
  const int left = channels - chunk * TILE;
  return left >= TILE ? TILE : (left + VECTOR - 1) / VECTOR * VECTOR;
}

}  // namespace dpa2
