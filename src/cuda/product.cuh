// Products of rows with constant matrices, C (m, n) = A (m, k) B (k, n): a block makes one tile of C, each thread ROWS by four of its
// results in registers. Rows of A come from an object that may do something to them first, and the results stay in registers for
// what is done to them next: neither costs a pass of its own. The sum over k has the order of k, whatever the tile.
#pragma once

#include "cuda/block.cuh"
#include "cuda/product.hpp"
#include "cuda/vector.cuh"

#ifndef ROWS
#define ROWS (sizeof(real) == 4 ? 8 : 4)
#endif

namespace dpa2 {

static_assert(ROWS == 2 || ROWS == 4 || ROWS == 8, "the tiles are read two or four numbers at a time");

/// Blocks that a multiprocessor is to hold: what registers a kernel may take.
constexpr int RESIDENT = sizeof(real) == 4 ? (ROWS == 2 ? 8 : 4) : (ROWS == 2 ? 5 : 3);

/// N numbers, 2 or a multiple of 4, from where they are aligned for that many.
template <int N>
__device__ __forceinline__ void read_vector(const real* from, real* to) {
  if constexpr (N == 2) {
    load2(to, from);
  } else {
#pragma unroll
    for (int x = 0; x < N; x += 4) load4(to + x, from + x);
  }
}

/// Sixteen bytes.
__device__ __forceinline__ void copy_vector(real* to, const real* from) {
  if constexpr (sizeof(real) == 8)
    *reinterpret_cast<double2*>(to) = *reinterpret_cast<const double2*>(from);
  else
    *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
}

/// Rows of A as they are stored, `width` apart.
struct PlainRows {
  struct Row {
    const real* at;
    __device__ __forceinline__ real operator()(int k) const { return at[k]; }
  };
  const real* a;
  int width;
  __device__ __forceinline__ Row row(int i) const { return {row_of(a, i, width)}; }
};

/// Rows of A times, element by element, those of another array: a gradient through an activation.
struct ScaledRows {
  struct Row {
    const real *at, *factor;
    __device__ __forceinline__ real operator()(int k) const { return at[k] * factor[k]; }
  };
  const real *a, *factor;
  int width;
  __device__ __forceinline__ Row row(int i) const { return {row_of(a, i, width), row_of(factor, i, width)}; }
};

/// The pieces of A, by columns, and of B that are multiplied at a time.
struct __align__(16) ProductTiles {
  // Lanes write eight columns by four rows of A: with sixteen bytes more than the rows need, each to a bank of its own.
  static constexpr int row = cuda::product_rows(ROWS) + VECTOR;
  real a[cuda::product_depth * row];
  real b[cuda::product_depth * cuda::product_columns];
};

/// One tile of C: rows from i0, columns from product_columns times `column`. All product_threads of the block take part in `add`.
class ProductTile {
 public:
  __device__ __forceinline__ ProductTile(ProductTiles& tiles, int i0, int column, int rows, int n)
      : tiles_(tiles), i0_(i0), column_(column), rows_(rows), n_(n) {
    clear();
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int x = 0; x < ROWS; ++x)
#pragma unroll
      for (int y = 0; y < 4; ++y) sum_[x][y] = real(0);
  }

  /// C += A B; a.row(i)(k) is asked for rows and columns that exist; b (depth, n) packed.
  template <class Rows>
  __device__ __forceinline__ void add(int depth, const Rows& a, const real* b) {
    if (depth <= 0) return;
    constexpr int DEPTH = cuda::product_depth, PIECE = DEPTH * cuda::product_columns;
    constexpr int STEP = cuda::product_threads * VECTOR, PER = PIECE / STEP;
    const int t = threadIdx.x, ka = t % 8;  // of A: eight columns of sixteen rows at a time
    typename Rows::Row rows[ROWS / 2];
#pragma unroll
    for (int s = 0; s < ROWS / 2; ++s)
      rows[s] = a.row(min(i0_ + t / 8 + 16 * s, rows_ - 1));  // beyond the edge the last one: nobody takes it
    const real* from = b + column_ * cuda::product_columns * cuda::product_padded(depth) + t * VECTOR;
    real* const to_a = tiles_.a + ka * ProductTiles::row + t / 8;
    real* const to_b = tiles_.b + t * VECTOR;
    const real* const own_a = tiles_.a + t / 16 * ROWS;
    const real* const own_b = tiles_.b + t % 16 * VECTOR;
    real na[ROWS];
    real __align__(16) nb[PER * VECTOR];
    const auto fetch = [&](int k0) {
      const int k = k0 + ka;
      if (k0 + DEPTH <= depth) {
#pragma unroll
        for (int s = 0; s < ROWS; ++s) na[s] = rows[s / 2](k + 8 * (s % 2));
      } else {
        // Beyond the edge the last one, which meets zeros of B.
#pragma unroll
        for (int s = 0; s < ROWS; ++s) na[s] = rows[s / 2](min(k + 8 * (s % 2), depth - 1));
      }
#pragma unroll
      for (int s = 0; s < PER; ++s) copy_vector(nb + s * VECTOR, from + s * STEP);
      from += PIECE;
    };
    fetch(0);
    for (int k0 = 0; k0 < depth; k0 += DEPTH) {
      __syncthreads();  // the piece before has been used
#pragma unroll
      for (int s = 0; s < ROWS; ++s) to_a[8 * (s % 2) * ProductTiles::row + 16 * (s / 2)] = na[s];
#pragma unroll
      for (int s = 0; s < PER; ++s) copy_vector(to_b + s * STEP, nb + s * VECTOR);
      __syncthreads();
      if (k0 + DEPTH < depth) fetch(k0 + DEPTH);  // on its way while this piece is multiplied
#pragma unroll
      for (int k = 0; k < DEPTH; ++k) {
        real u[ROWS], v[4];
        read_vector<ROWS>(own_a + k * ProductTiles::row, u);
#pragma unroll
        for (int y = 0; y < 4; y += VECTOR) read_vector<VECTOR>(own_b + k * cuda::product_columns + 16 * y, v + y);
#pragma unroll
        for (int x = 0; x < ROWS; ++x)
#pragma unroll
          for (int y = 0; y < 4; ++y) sum_[x][y] += u[x] * v[y];
      }
    }
  }

  /// out(i, c, sum) for the results of this thread that exist.
  template <class Out>
  __device__ __forceinline__ void each(Out out) {
    const int i0 = own_row(), c0 = own_column();
#pragma unroll
    for (int x = 0; x < ROWS; ++x)
#pragma unroll
      for (int y = 0; y < 4; ++y)
        if (i0 + x < rows_ && c0 + across(y) < n_) out(i0 + x, c0 + across(y), sum_[x][y]);
  }
  /// out(i, c, column(c), sum) likewise: what depends on the column alone is asked for once.
  template <class Column, class Out>
  __device__ __forceinline__ void each(Column column, Out out) {
    const int i0 = own_row(), c0 = own_column();
    decltype(column(0)) of[4];
#pragma unroll
    for (int y = 0; y < 4; ++y) of[y] = column(min(c0 + across(y), n_ - 1));
#pragma unroll
    for (int x = 0; x < ROWS; ++x)
#pragma unroll
      for (int y = 0; y < 4; ++y)
        if (i0 + x < rows_ && c0 + across(y) < n_) out(i0 + x, c0 + across(y), of[y], sum_[x][y]);
  }
  /// out(i, c) for the same results: for code that is long and seldom runs.
  template <class Out>
  __device__ __forceinline__ void again(Out out) {
#pragma unroll 1
    for (int t = 0; t < 4 * ROWS; ++t) {
      const int i = own_row() + t / 4, c = own_column() + across(t % 4);
      if (i < rows_ && c < n_) out(i, c);
    }
  }

 private:
  /// Of the first result of the thread.
  __device__ __forceinline__ int own_row() const { return i0_ + threadIdx.x / 16 * ROWS; }
  __device__ __forceinline__ int own_column() const { return column_ * cuda::product_columns + threadIdx.x % 16 * VECTOR; }
  /// From there to its column y: sixteen threads next to each other own sixteen times a vector of columns, in double twice.
  static __device__ __forceinline__ int across(int y) { return y / VECTOR * 16 * VECTOR + y % VECTOR; }

  ProductTiles& tiles_;
  const int i0_, column_, rows_, n_;
  real sum_[ROWS][4];
};

}  // namespace dpa2
