// Products of rows with constant matrices, C (m, n) = A (m, k) B (k, n): a block makes one tile of C, each thread 4 ROWS of its results in
// registers, with -DTENSOR=1 by tensor cores. Rows of A come from an object that may do something to them first, and the results stay in
// registers for what is done to them next: neither costs a pass of its own. The sum over k has the order of k, whatever the tile.
#pragma once

#include "cuda/block.cuh"
#include "cuda/product.hpp"
#include "cuda/vector.cuh"

#ifndef ROWS
#define ROWS (sizeof(real) == 4 ? 8 : 4)
#endif
#ifdef TENSOR
#include "cuda/product_mma.cuh"
#endif

namespace dpa2 {

static_assert(ROWS == 2 || ROWS == 4 || ROWS == 8, "the tiles are read two or four numbers at a time");

/// Blocks that a multiprocessor is to hold: what registers a kernel may take.
#ifdef TENSOR
constexpr int RESIDENT = ROWS == 2 ? 4 : 3;
#else
constexpr int RESIDENT = sizeof(real) == 4 && ROWS == 2 ? 7 : 4;
#endif

// Rows of A: row(i)(k) is its element, after skip(n) the one of n columns farther on. Pointers that move are cheaper than addresses that
// are made of row and column for every load.

/// As they are stored, `width` apart.
struct PlainRows {
  struct Row {
    const real* at;
    __device__ __forceinline__ real operator()(int k) const { return at[k]; }
    __device__ __forceinline__ void skip(int columns) { at += columns; }
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
    __device__ __forceinline__ void skip(int columns) { at += columns, factor += columns; }
  };
  const real *a, *factor;
  int width;
  __device__ __forceinline__ Row row(int i) const { return {row_of(a, i, width), row_of(factor, i, width)}; }
};

/// Columns next to each other of one row of a result, N where all of them exist. What lies beyond the edge is not read and not written.
template <int N>
struct Cells {
  int first, count;
  bool whole;  // rows begin where vectors may

  __device__ __forceinline__ void read(const real* row, real (&v)[N]) const {
    if (whole) {
      read_vector<N>(row + first, v);
    } else {
#pragma unroll
      for (int y = 0; y < N; ++y) v[y] = y < count ? row[first + y] : real(0);
    }
  }
  __device__ __forceinline__ void write(real* row, const real (&v)[N]) const {
    if (whole) {
      write_vector<N>(row + first, v);
    } else {
#pragma unroll
      for (int y = 0; y < N; ++y)
        if (y < count) row[first + y] = v[y];
    }
  }
};

/// A thread brings OWN_COLUMNS columns of A, LANES_OF_A apart, of OWN_ROWS rows, ROWS_AT_ONCE apart.
constexpr int LANES_OF_A = ROWS == 2 ? 8 : 4, ROWS_AT_ONCE = cuda::product_threads / LANES_OF_A;
constexpr int OWN_COLUMNS = cuda::product_depth / LANES_OF_A, OWN_ROWS = cuda::product_rows(ROWS) / ROWS_AT_ONCE;

#ifdef TENSOR
using ProductTiles = WarpTiles;
using ProductSums = WarpSums;
#else
/// The pieces of A, by columns, and of B that are multiplied at a time.
struct __align__(16) ProductTiles {
  // Columns of A are 16 bytes more than a multiple of 128 bytes apart.
  static constexpr int row = cuda::product_rows(ROWS) + VECTOR, row_of_b = cuda::product_columns;
  real a[cuda::product_depth * row];
  real b[cuda::product_depth * row_of_b];

  /// The row that a thread brings of ROWS_AT_ONCE, given its number among the threads of a column. With it, lanes that write at once fall
  /// on different banks: columns next to each other take 64 bytes of them, and these rows come in two stretches that are 64 bytes apart.
  static __device__ __forceinline__ constexpr int brought(int number) {
    if (LANES_OF_A != 4) return number;
    constexpr int HALF = VECTOR * 4;  // rows in 64 bytes
    return number % VECTOR + number / VECTOR % 2 * HALF + number / (2 * VECTOR) % 4 * VECTOR + number / (8 * VECTOR) * 2 * HALF;
  }
};

/// What a thread has of a tile: ROWS rows, and a vector of columns of each 16 vectors, in double twice. Lanes next to each other have the
/// same columns, and lanes two apart the same rows: then a warp reads 16 bytes for each lane in half the time.
struct ProductSums {
  static constexpr int rows = ROWS, columns = 4, together = VECTOR;  // columns next to each other
  real sum[ROWS][4];

  /// Of the first result, and from there to the others.
  static __device__ __forceinline__ int first_row() {
    const int t = threadIdx.x;
    return (t % 2 + t / 16 % 2 * 2 + t / 64 * 4) * ROWS;
  }
  static __device__ __forceinline__ int first_column() {
    const int t = threadIdx.x;
    return (t / 2 % 8 + t / 32 % 2 * 8) * VECTOR;
  }
  static __device__ __forceinline__ constexpr int down(int x) { return x; }
  static __device__ __forceinline__ constexpr int across(int y) { return y / VECTOR * 16 * VECTOR + y % VECTOR; }
  __device__ __forceinline__ real& at(int x, int y) { return sum[x][y]; }

  __device__ __forceinline__ void add(const ProductTiles& tiles) {
    const real *const a = tiles.a + first_row(), *const b = tiles.b + first_column();
#pragma unroll
    for (int k = 0; k < cuda::product_depth; ++k) {
      real u[ROWS], v[4];
      read_vector<ROWS>(a + k * ProductTiles::row, u);
#pragma unroll
      for (int y = 0; y < 4; y += VECTOR) read_vector<VECTOR>(b + k * ProductTiles::row_of_b + 16 * y, v + y);
#pragma unroll
      for (int x = 0; x < ROWS; ++x)
#pragma unroll
        for (int y = 0; y < 4; ++y) sum[x][y] += u[x] * v[y];
    }
  }
};
#endif

/// One tile of C: rows from i0, columns from product_columns times `column`. All product_threads of the block take part in `add`.
class ProductTile {
 public:
  __device__ __forceinline__ ProductTile(ProductTiles& tiles, int i0, int column, int rows, int n)
      : tiles_(tiles), i0_(i0), column_(column), rows_(rows), n_(n) {
    clear();
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int x = 0; x < ProductSums::rows; ++x)
#pragma unroll
      for (int y = 0; y < ProductSums::columns; ++y) sums_.at(x, y) = real(0);
  }

  /// C += A B; `a` is asked for rows and columns that exist; b (depth, n) packed.
  template <class Rows>
  __device__ __forceinline__ void add(int depth, const Rows& a, const real* b) {
    if (depth <= 0) return;
    constexpr int DEPTH = cuda::product_depth, PIECE = DEPTH * cuda::product_columns;
    constexpr int STEP = cuda::product_threads * VECTOR, PER = PIECE / STEP;
    const int t = threadIdx.x, ka = t % LANES_OF_A, own = ProductTiles::brought(t / LANES_OF_A);
    typename Rows::Row rows[OWN_ROWS];
#pragma unroll
    for (int s = 0; s < OWN_ROWS; ++s) {
      rows[s] = a.row(min(i0_ + own + ROWS_AT_ONCE * s, rows_ - 1));  // beyond the edge the last one: nobody takes it
      rows[s].skip(ka);
    }
    const real* from = b + column_ * cuda::product_columns * cuda::product_padded(depth) + t * VECTOR;
    real* const to_a = tiles_.a + ka * ProductTiles::row + own;
    constexpr int ACROSS = cuda::product_columns;
    real* const to_b = tiles_.b + t * VECTOR / ACROSS * ProductTiles::row_of_b + t * VECTOR % ACROSS;
    real na[OWN_ROWS][OWN_COLUMNS];
    real __align__(16) nb[PER * VECTOR];
    const auto fetch = [&](int k0) {
      const int left = depth - k0;
      if (left >= DEPTH) {
#pragma unroll
        for (int s = 0; s < OWN_ROWS; ++s)
#pragma unroll
          for (int j = 0; j < OWN_COLUMNS; ++j) na[s][j] = rows[s](LANES_OF_A * j);
      } else {
#pragma unroll
        for (int s = 0; s < OWN_ROWS; ++s)
#pragma unroll
          for (int j = 0; j < OWN_COLUMNS; ++j) na[s][j] = ka + LANES_OF_A * j < left ? rows[s](LANES_OF_A * j) : real(0);
      }
#pragma unroll
      for (int s = 0; s < OWN_ROWS; ++s) rows[s].skip(DEPTH);
#pragma unroll
      for (int s = 0; s < PER; ++s) copy_vector(nb + s * VECTOR, from + s * STEP);
      from += PIECE;
    };
    fetch(0);
    for (int k0 = 0; k0 < depth; k0 += DEPTH) {
      __syncthreads();  // the piece before has been used
#pragma unroll
      for (int s = 0; s < OWN_ROWS; ++s)
#pragma unroll
        for (int j = 0; j < OWN_COLUMNS; ++j) to_a[LANES_OF_A * j * ProductTiles::row + ROWS_AT_ONCE * s] = na[s][j];
#pragma unroll
      for (int s = 0; s < PER; ++s) copy_vector(to_b + s * (STEP / ACROSS) * ProductTiles::row_of_b, nb + s * VECTOR);
      __syncthreads();
      if (k0 + DEPTH < depth) fetch(k0 + DEPTH);  // on its way while this piece is multiplied
      sums_.add(tiles_);
    }
  }

  /// out(i, cells, sums) for the results of this thread that exist: N of them, those of row i in these columns.
  static constexpr int N = ProductSums::together;
  template <class Out>
  __device__ __forceinline__ void each(Out out) {
    const int i0 = own_row(), c0 = own_column(), rows = rows_ - i0, columns = n_ - c0;
    const bool whole = n_ % N == 0;
#pragma unroll
    for (int x = 0; x < ProductSums::rows; ++x)
#pragma unroll
      for (int y = 0; y < ProductSums::columns; y += N) {
        const int offset = ProductSums::across(y);
        if (ProductSums::down(x) >= rows || offset >= columns) continue;
        real sums[N];
#pragma unroll
        for (int z = 0; z < N; ++z) sums[z] = sums_.at(x, y + z);
        out(i0 + ProductSums::down(x), Cells<N>{c0 + offset, columns - offset, whole}, sums);
      }
  }
  /// out(i, c) for the same results: for code that is long and seldom runs.
  template <class Out>
  __device__ __forceinline__ void again(Out out) {
#pragma unroll 1
    for (int t = 0; t < ProductSums::rows * ProductSums::columns; ++t) {
      const int i = own_row() + ProductSums::down(t / ProductSums::columns);
      const int c = own_column() + ProductSums::across(t % ProductSums::columns);
      if (i < rows_ && c < n_) out(i, c);
    }
  }

 private:
  __device__ __forceinline__ int own_row() const { return i0_ + ProductSums::first_row(); }
  __device__ __forceinline__ int own_column() const { return column_ * cuda::product_columns + ProductSums::first_column(); }

  ProductTiles& tiles_;
  const int i0_, column_, rows_, n_;
  ProductSums sums_;
};

}  // namespace dpa2
