// Tiles of 32 by 32 numbers in shared memory, and products of them with 8 by 4 results per lane, for tiles of a centre's edges.
//
// Rows r, r + 4, r + 8 and so on of a tile follow each other, in quarters that begin in other banks. So a lane whose results are rows r +
// 4 x and four columns in vectors reads either factor by rows, and writes results by rows or by columns, without bank conflicts. Lanes are
// 4 rows of 8, such that lane k has the row of k ^ 1 and the column of k ^ 2: a vector that several lanes read then takes half as long.
// Rows beyond the last edge are left out in groups of four.
#pragma once

#include "cuda/pair_fast.hpp"
#include "cuda/pair_tiles.cuh"

namespace dpa2 {
namespace fast {

constexpr int QUARTERED = cuda::quartered_tile(sizeof(real));

/// Where a row of a tile begins.
DPA2_MATH constexpr int place(int row) {
  return row / 4 * TILE_ROW + ((row & 2) != 0 ? cuda::to_row_2(sizeof(real)) : 0) + ((row & 1) != 0 ? cuda::to_row_1(sizeof(real)) : 0);
}
static_assert(place(31) + TILE <= QUARTERED && place(28) + TILE <= place(1) && place(29) + TILE <= place(2), "rows do not overlap");

/// A lane's place in the grid of 4 by 8, where its row begins, and the first column of its vector `group`.
__device__ __forceinline__ int grid_row(int thread) { return (thread >> 1 & 1) | (thread >> 3 & 2); }
__device__ __forceinline__ int grid_column(int thread) { return (thread & 1) | (thread >> 1 & 6); }
__device__ __forceinline__ int grid_place(int thread) { return ((thread & 2) != 0 ? place(1) : 0) + ((thread & 16) != 0 ? place(2) : 0); }
__device__ __forceinline__ int grid_row() { return grid_row(opaque(threadIdx.x)); }
__device__ __forceinline__ int grid_column() { return grid_column(opaque(threadIdx.x)); }
__device__ __forceinline__ int grid_place() { return grid_place(opaque(threadIdx.x)); }
__device__ __forceinline__ int grid_vector(int group) { return (group * 8 + grid_column()) * VECTOR; }

/// Sums over the lanes with the same columns, and over those with the same rows, in each of them.
__device__ __forceinline__ real sum_over_rows(real v) {
  v += __shfl_xor_sync(FULL_MASK, v, 2);
  return v + __shfl_xor_sync(FULL_MASK, v, 16);
}
__device__ __forceinline__ real sum_over_columns(real v) {
  v += __shfl_xor_sync(FULL_MASK, v, 1);
  v += __shfl_xor_sync(FULL_MASK, v, 4);
  return v + __shfl_xor_sync(FULL_MASK, v, 8);
}
/// Of four numbers that one which is left when the two bits choose; summed over the lanes that differ in these bits.
__device__ __forceinline__ real own_sum(const real (&v)[4], int high, int low) {
  const int thread = opaque(threadIdx.x);
  const bool upper = (thread & high) != 0, odd = (thread & low) != 0;
  const real first = (upper ? v[2] : v[0]) + __shfl_xor_sync(FULL_MASK, upper ? v[0] : v[2], high);
  const real second = (upper ? v[3] : v[1]) + __shfl_xor_sync(FULL_MASK, upper ? v[1] : v[3], high);
  return (odd ? second : first) + __shfl_xor_sync(FULL_MASK, odd ? first : second, low);
}

/// at += X rows, `apart` numbers from each other, times a matrix over `depth`, a multiple of 4 and not 0. Four rows of the matrix are NEXT
/// apart; the second is FIRST after the first, and the third SECOND.
template <int X, int NEXT, int FIRST, int SECOND>
__device__ __forceinline__ void add_times(real (*at)[4], int depth, const real* rows, int apart, const real* matrix) {
  const real* const end = rows + depth;
#pragma unroll 1
  do {
#pragma unroll
    for (int part = 0; part < 4 / VECTOR; ++part) {
      Vector v[VECTOR][GROUPS];
#pragma unroll
      for (int i = 0; i < VECTOR; ++i)
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) v[i][g] = read_vector(matrix + (part * VECTOR + i) / 2 * SECOND + i % 2 * FIRST + g * 8 * VECTOR);
#pragma unroll
      for (int x = 0; x < X; ++x) {
        const Vector u = read_vector(rows + x * apart + part * VECTOR);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i)
#pragma unroll
          for (int y = 0; y < 4; ++y) at[x][y] += u.v[i] * v[i][y / VECTOR].v[y % VECTOR];
      }
    }
    rows += 4;
    matrix += NEXT;
  } while (rows != end);
}

/// The results of a lane: rows row() + down(x), columns column() + across(y). Everything that works on them asks for these, and for sums
/// over them. A tile's rows are taken in groups of four: all eight, or where there are no edges in others the first FEWEST.
template <int FEWEST>
struct GridOf {
  static constexpr int ROWS = 8, COLUMNS = 4;
  real at[ROWS][COLUMNS];

  static __device__ __forceinline__ int row() { return grid_row(); }
  static __device__ __forceinline__ constexpr int down(int x) { return 4 * x; }
  static __device__ __forceinline__ int column() { return grid_vector(0); }
  static __device__ __forceinline__ constexpr int across(int y) { return y / VECTOR * 8 * VECTOR + y % VECTOR; }
  /// How many groups of rows are taken for n edges, and whether there can be edges in row x then.
  static __device__ __forceinline__ int groups_of(int n) { return n <= 4 * FEWEST ? FEWEST : ROWS; }
  static __device__ __forceinline__ bool used(int x, int groups) { return x < FEWEST || groups == ROWS; }
  /// The lane's first number of a tile, if rows of the tile are rows of the results; and if they are columns.
  static __device__ __forceinline__ int corner() {
    const int thread = opaque(threadIdx.x);
    return grid_place(thread) + grid_column(thread) * VECTOR;
  }
  static __device__ __forceinline__ int turned_corner() {
    const int thread = opaque(threadIdx.x);
    return place(grid_column(thread) * VECTOR) + grid_row(thread);
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int x = 0; x < ROWS; ++x)
#pragma unroll
      for (int y = 0; y < COLUMNS; ++y) at[x][y] = real(0);
  }

  /// Row x times a number.
  __device__ __forceinline__ void scale(int x, real by) {
#pragma unroll
    for (int y = 0; y < COLUMNS; ++y) at[x][y] *= by;
  }

  // Products of a tile's rows over `depth`, a multiple of 4 and not 0: = or, where ADD, +=. Results are cleared here, next to where they
  // are needed, lest the compiler keeps zeros in registers.

  /// By the rows of another tile.
  template <bool ADD = false>
  __device__ __forceinline__ void rows_times_rows(int groups, int depth, const real* a, const real* b) {
    a += grid_place();
    b += place(grid_vector(0));
    if (groups == ROWS)
      times_rows<ROWS, ADD>(depth, a, b);
    else
      times_rows<FEWEST, ADD>(depth, a, b);
  }
  template <int X, bool ADD>
  __device__ __forceinline__ void times_rows(int depth, const real* a, const real* b) {
    if (!ADD) clear();
    const real* const end = a + depth;
#pragma unroll 1
    do {
      Vector v[COLUMNS];
#pragma unroll
      for (int y = 0; y < COLUMNS; ++y) v[y] = read_vector(b + place(across(y)));
#pragma unroll
      for (int x = 0; x < X; ++x) {
        const Vector u = read_vector(a + x * TILE_ROW);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i)
#pragma unroll
          for (int y = 0; y < COLUMNS; ++y) at[x][y] += u.v[i] * v[y].v[i];
      }
      a += VECTOR;
      b += VECTOR;
    } while (a != end);
  }
  /// By another tile.
  template <bool ADD = false>
  __device__ __forceinline__ void rows_times_tile(int groups, int depth, const real* a, const real* m) {
    times<ADD, TILE_ROW, place(1), place(2)>(groups, depth, a, m);
  }
  /// By a matrix of the host's layout, in global memory.
  template <bool ADD = false>
  __device__ __forceinline__ void rows_times_matrix(int groups, int depth, const real* a, const real* m) {
    times<ADD, 4 * TILE, TILE, 2 * TILE>(groups, depth, a, m);
  }
  template <bool ADD, int NEXT, int FIRST, int SECOND>
  __device__ __forceinline__ void times(int groups, int depth, const real* a, const real* m) {
    a += grid_place();
    m += grid_vector(0);
    if (groups == ROWS) {
      if (!ADD) clear();
      add_times<ROWS, NEXT, FIRST, SECOND>(at, depth, a, TILE_ROW, m);
    } else {
      if (!ADD) clear();
      add_times<FEWEST, NEXT, FIRST, SECOND>(at, depth, a, TILE_ROW, m);
    }
  }

  /// Row x of a tile, from the lane's corner() of it on.
  static __device__ __forceinline__ void read(const real* corner, int x, real (&v)[COLUMNS]) {
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      const Vector one = read_vector(corner + x * TILE_ROW + g * 8 * VECTOR);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) v[g * VECTOR + i] = one.v[i];
    }
  }
  static __device__ __forceinline__ void write(real* corner, int x, const real (&v)[COLUMNS]) {
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      Vector one;
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) one.v[i] = v[g * VECTOR + i];
      write_vector(corner + x * TILE_ROW + g * 8 * VECTOR, one);
    }
  }
  __device__ __forceinline__ void read(const real* tile) {
    tile += corner();
#pragma unroll
    for (int x = 0; x < ROWS; ++x) read(tile, x, at[x]);
  }
  __device__ __forceinline__ void write(real* tile) const {
    tile += corner();
#pragma unroll
    for (int x = 0; x < ROWS; ++x) write(tile, x, at[x]);
  }
  /// To global memory and back, tile_numbers of them: every lane reads what it has written itself.
  __device__ __forceinline__ void save(real* to) const {
    to += opaque(threadIdx.x) % 32 * VECTOR;
#pragma unroll
    for (int x = 0; x < ROWS; ++x)
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
        Vector one;
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) one.v[i] = at[x][g * VECTOR + i];
        write_vector(to + (x * GROUPS + g) * 32 * VECTOR, one);
      }
  }
  __device__ __forceinline__ void restore(const real* from) {
    from += opaque(threadIdx.x) % 32 * VECTOR;
#pragma unroll
    for (int x = 0; x < ROWS; ++x)
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
        const Vector one = read_vector(from + (x * GROUPS + g) * 32 * VECTOR);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) at[x][g * VECTOR + i] = one.v[i];
      }
  }
  /// Rows of the results become columns of the tile.
  __device__ __forceinline__ void write_turned(real* tile) const {
    tile += turned_corner();
#pragma unroll
    for (int x = 0; x < ROWS; ++x)
#pragma unroll
      for (int y = 0; y < COLUMNS; ++y) tile[place(across(y)) + down(x)] = at[x][y];
  }

  /// Over the lanes that have the same columns: the sum and the largest of one number, in each of them; and the sum of number own_row()
  /// of four.
  static __device__ __forceinline__ real sum_over_rows(real v) { return fast::sum_over_rows(v); }
  static __device__ __forceinline__ real most_over_rows(real v) {
    v = max(v, __shfl_xor_sync(FULL_MASK, v, 2));
    return max(v, __shfl_xor_sync(FULL_MASK, v, 16));
  }
  static __device__ __forceinline__ real own_sum_over_rows(const real (&v)[4]) { return own_sum(v, 16, 2); }
  static __device__ __forceinline__ int own_row() { return grid_row(); }
  /// Over the lanes that have the same rows: the sum of number own_column() of four.
  static __device__ __forceinline__ real own_sum_over_columns(const real (&v)[4]) {
    const real sum = own_sum(v, 8, 4);
    return sum + __shfl_xor_sync(FULL_MASK, sum, 1);
  }
  static __device__ __forceinline__ int own_column() { return grid_column() / 2; }
  static __device__ __forceinline__ bool owns_column() { return grid_column() % 2 == 0; }
};

/// Where a centre is one tile, products with fewer rows are not worth code of their own; else the last tile often has few edges.
using Grid = GridOf<7>;
using PartGrid = GridOf<2>;

}  // namespace fast
}  // namespace dpa2
