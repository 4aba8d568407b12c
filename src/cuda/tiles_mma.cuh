// The products of tiles.cuh by tensor cores: a warp makes 32 by 32 results, 32 of them per lane, with the fragments of mma.cuh.
//
// Which row or column of a tile is which of a fragment depends on the product, so that lanes read without two at one bank, and write
// likewise but for sums. With group and member of the lane, x < 4, y < 4 and side < 2:
//   pairs      rows spread(group) + 8 x,   columns place(member) + 4 side + 8 y
//   channels   rows the same,              columns in vectors
//   sums       rows in vectors,            columns in vectors
// Tensor cores drop bits of what they add up, so a result should be that of one tile, not of a long chain.
#pragma once

#include "cuda/mma.cuh"
#include "cuda/tiles.cuh"

namespace dpa2 {

struct FragmentResults {
  static constexpr int NUMBERS = TILE / 8, STEP = 4 * HALVES<real>;
  real at[NUMBERS / HALVES<real>][NUMBERS][HALVES<real>][2];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int x = 0; x < NUMBERS; ++x)
#pragma unroll
      for (int y = 0; y < 2 * NUMBERS; ++y) result(x, y) = real(0);
  }

  /// pairs += a b^T over `depth` columns, rounded up to STEP.
  __device__ __forceinline__ void add_rows_times_rows(int depth, const real* a, const real* b) {
    a += spread(group()) * TILE_ROW + member();
    b += spread(group()) * TILE_ROW + member();
    add(depth, [&](int k, real(&u)[NUMBERS]) { read_rows(a + k, u); }, [&](int k, real(&v)[NUMBERS]) { read_rows(b + k, v); });
  }

  /// channels += a m over `depth` columns of a, rounded up to STEP; rows of m are `ld` apart, at best TILE_ROW.
  __device__ __forceinline__ void add_rows_times_matrix(int depth, const real* a, const real* m, int ld) {
    a += spread(group()) * TILE_ROW + member();
    m += member() * ld + VECTOR * spread(group());
    add(depth, [&](int k, real(&u)[NUMBERS]) { read_rows(a + k, u); }, [&](int k, real(&v)[NUMBERS]) { read_vectors(m + k * ld, v); });
  }

  /// sums += a^T b over the first `depth` rows of both, rounded up to STEP.
  __device__ __forceinline__ void add_sum_over_rows(int depth, const real* a, const real* b) {
    const int first = member() * TILE_ROW + VECTOR * spread(group());
    a += first, b += first;
    add(
        depth, [&](int k, real(&u)[NUMBERS]) { read_vectors(a + k * TILE_ROW, u); },
        [&](int k, real(&v)[NUMBERS]) { read_vectors(b + k * TILE_ROW, v); });
  }

  /// Into a tile of shared memory, by what the results are.
  __device__ __forceinline__ void write_pairs(real* tile) {
    tile += spread(group()) * TILE_ROW + place(member());
#pragma unroll
    for (int x = 0; x < NUMBERS; ++x)
#pragma unroll
      for (int y = 0; y < 2 * NUMBERS; ++y) tile[8 * x * TILE_ROW + 8 * (y / 2) + 4 * (y % 2)] = at[x / H][y / 2][x % H][y % 2];
  }
  __device__ __forceinline__ void write_channels(real* tile) {
    tile += spread(group()) * TILE_ROW + VECTOR * place(member());
#pragma unroll
    for (int x = 0; x < NUMBERS; ++x) write_columns(tile + 8 * x * TILE_ROW, x);
  }
  __device__ __forceinline__ void write_sums(real* tile) {
    tile += VECTOR * spread(group()) * TILE_ROW + VECTOR * place(member());
#pragma unroll
    for (int x = 0; x < NUMBERS; ++x) write_columns(tile + (x / VECTOR * 8 * VECTOR + x % VECTOR) * TILE_ROW, x);
  }

 private:
  static constexpr int H = HALVES<real>;
  static __device__ __forceinline__ int group() { return static_cast<int>(threadIdx.x) % 32 / 4; }
  static __device__ __forceinline__ int member() { return static_cast<int>(threadIdx.x) % 4; }
  /// Where a group's row or vector is among eight, so that no two of those that are read or written at once begin at one bank: neighbours
  /// four apart; in double, where half a warp reads a number each, even ones first.
  static __device__ __forceinline__ int spread(int group) { return 4 * (group % 2) + place(group / 2); }
  static __device__ __forceinline__ int place(int member) { return H == 2 ? member : 2 * (member % 2) + member / 2; }
  __device__ __forceinline__ real& result(int x, int y) { return at[x / H][y / 2][x % H][y % 2]; }

  static __device__ __forceinline__ void read_rows(const real* from, real (&to)[NUMBERS]) {
#pragma unroll
    for (int x = 0; x < NUMBERS; ++x) to[x] = from[8 * x * TILE_ROW];
  }
  static __device__ __forceinline__ void read_vectors(const real* from, real (&to)[NUMBERS]) {
#pragma unroll
    for (int x = 0; x < NUMBERS; x += VECTOR) dpa2::read_vector<VECTOR>(from + 8 * x, to + x);
  }
  __device__ __forceinline__ void write_columns(real* to, int x) const {
#pragma unroll
    for (int y = 0; y < NUMBERS; y += VECTOR)
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        real v[VECTOR];
#pragma unroll
        for (int e = 0; e < VECTOR; ++e) v[e] = at[x / H][y + e][x % H][side];
        dpa2::write_vector<VECTOR>(to + 8 * y + 4 * VECTOR * side, v);
      }
  }

  /// rows(k, u) and columns(k, v) give the lane's numbers of column k + member of the left factor and row k + member of the right one.
  template <class Rows, class Columns>
  __device__ __forceinline__ void add(int depth, Rows rows, Columns columns) {
#pragma unroll 1
    for (int k = 0; k < depth; k += STEP) {
      Factor<real> u[NUMBERS / H][H][H], v[NUMBERS][H];
#pragma unroll
      for (int q = 0; q < H; ++q) {
        real left[NUMBERS], right[NUMBERS];
        rows(k + 4 * q, left);
        columns(k + 4 * q, right);
#pragma unroll
        for (int x = 0; x < NUMBERS; ++x) u[x / H][q][x % H] = factor_of(left[x]), v[x][q] = factor_of(right[x]);
      }
#pragma unroll
      for (int x = 0; x < NUMBERS / H; ++x)
#pragma unroll
        for (int y = 0; y < NUMBERS; ++y) multiply_add(at[x][y], u[x], v[y]);
    }
  }
};

}  // namespace dpa2
