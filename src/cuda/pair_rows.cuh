// Rows of edges that one warp takes, 32 at a time: linear2 and the residual of the update of g2 (theory 8.2, 8.11, 12.3, 12.4).
#pragma once

#include "cuda/activation.cuh"
#include "cuda/pair_layer.hpp"
#include "cuda/tiles.cuh"
#include "math/layer_norm.hpp"

namespace dpa2 {

/// Where a lane's vectors of a tile begin, eight lanes for a row.
__device__ __forceinline__ int own_place() { return opaque(pair_row(0) * TILE_ROW + vector_column(0)); }

/// The edges of a warp, at most 32, and where a lane's results are among rows of n2 channels.
struct EdgeRows {
  int first, count, n2;

  /// Tile `chunk` of the channels into shared memory, zero beyond n2; beyond the last edge the last one again. The warp alone reads it.
  __device__ __forceinline__ void load(real* tile, const real* rows, int chunk) const {
    const real* const from = of(rows);
    tile += own_place();
    __syncwarp();
#pragma unroll 2
    for (int x = 0; x < 8; ++x)
#pragma unroll
      for (int g = 0; g < GROUPS; ++g)
        write_vector(tile + pair_down(x) * TILE_ROW + g * 8 * VECTOR, read(from + row(x), chunk * TILE + vector_column(g)));
    __syncwarp();
  }

  /// The rows of an array of all edges that this warp has.
  __device__ __forceinline__ const real* of(const real* rows) const { return row_of(rows, first, n2); }
  __device__ __forceinline__ real* of(real* rows) const { return row_of(rows, first, n2); }

  /// Where row x of this lane begins among them; beyond the last edge the last one again, so that all lanes take part.
  __device__ __forceinline__ int row(int x) const {
    const int r = pair_row(x);
    return (r < count ? r : count - 1) * n2;
  }
  __device__ __forceinline__ bool has(int x) const { return pair_row(x) < count; }

  /// A vector of channels from c on; zero beyond n2.
  __device__ __forceinline__ Vector read(const real* from, int c) const {
    if (n2 % VECTOR == 0) return c < n2 ? read_vector(from + c) : Vector{};
    Vector v;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) v.v[i] = c + i < n2 ? from[c + i] : real(0);
    return v;
  }
  __device__ __forceinline__ void write(real* to, int c, const Vector& v) const {
    if (n2 % VECTOR == 0) {
      if (c < n2) write_vector(to + c, v);
      return;
    }
#pragma unroll
    for (int i = 0; i < VECTOR; ++i)
      if (c + i < n2) to[c + i] = v.v[i];
  }
};

/// For one row of z: 1 / sigma; and with `dout`, <dout gain z> / sigma^2. All lanes take part, eight of them for a row.
__device__ __forceinline__ real inverse_sigma(const EdgeRows& e, const real* z, real eps, const real* dout, const real* gain, real& along) {
  real squares = 0, product = 0;
#pragma unroll 1
  for (int c0 = 0; c0 < e.n2; c0 += TILE)
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      const int c = c0 + vector_column(g);
      const Vector v = e.read(z, c);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) squares += v.v[i] * v.v[i];
      if (dout == nullptr) continue;
      const Vector d = e.read(dout, c), by = e.read(gain, c);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) product += d.v[i] * by.v[i] * v.v[i];
    }
  const real inv = math::inverse_sigma<DeviceMath>(part_sum(squares, 8), real(e.n2), eps);
  if (dout != nullptr) along = part_sum(product, 8) * inv * inv / real(e.n2);
  return inv;
}

/// A tile of rows times a matrix, 4 by 8 results per lane: half as many numbers from shared memory as 8 by 4 take. Lanes are 8 rows of 4,
/// and take two vectors of columns side by side, so that those of two rows are in different banks.
struct RowsTimesMatrix {
  real at[4][8] = {};

  static __device__ __forceinline__ int place() { return threadIdx.x % 32 / 4 * TILE_ROW; }
  static __device__ __forceinline__ int column() { return threadIdx.x % 4 * 2 * VECTOR; }
  static __device__ __forceinline__ constexpr int across(int g) { return (g / 2 * 8 + g % 2) * VECTOR; }

  /// += over `depth` columns of the tile, a multiple of VECTOR. `m`: a tile of the matrix, in global memory.
  __device__ __forceinline__ void add(int depth, const real* tile, const real* m) {
    tile += opaque(place());
    m += opaque(column());
#pragma unroll 1
    for (int k = 0; k < depth; k += VECTOR, m += VECTOR * TILE) {
      Vector u[4];
#pragma unroll
      for (int x = 0; x < 4; ++x) u[x] = read_vector(tile + 8 * x * TILE_ROW + k);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i)
#pragma unroll
        for (int g = 0; g < 2 * GROUPS; ++g) {
          const Vector v = read_vector(m + i * TILE + across(g));
#pragma unroll
          for (int x = 0; x < 4; ++x)
#pragma unroll
            for (int y = 0; y < VECTOR; ++y) at[x][g * VECTOR + y] += u[x].v[i] * v.v[y];
        }
    }
  }

  /// Into a tile, from which lanes take other places; between barriers.
  __device__ __forceinline__ void write(real* tile) const {
    __syncwarp();
    tile += opaque(place() + column());
#pragma unroll
    for (int x = 0; x < 4; ++x)
#pragma unroll
      for (int g = 0; g < 2 * GROUPS; ++g) {
        Vector v;
#pragma unroll
        for (int y = 0; y < VECTOR; ++y) v.v[y] = at[x][g * VECTOR + y];
        write_vector(tile + 8 * x * TILE_ROW + across(g), v);
      }
    __syncwarp();
  }
};

/// g2 times tile column c of the matrix, into the tile.
__device__ __forceinline__ void linear(const EdgeRows& e, real* tile, const real* g2, const real* w, int c) {
  const int chunks = cuda::tiles_of(e.n2);
  RowsTimesMatrix r;
#pragma unroll 1
  for (int b = 0; b < chunks; ++b) {
    e.load(tile, g2, b);
    r.add(depth_of(e.n2, b), tile, w + (b * chunks + c) * cuda::tile_numbers);
  }
  r.write(tile);
}

/// The new g2 of the rows; z: of the attention before LayerNorm, beginning with these rows, or null. `tile` belongs to the warp.
__device__ __forceinline__ void update_rows(const EdgeRows& e, real* tile, const cuda::PairLayerArgs<real>& a, const real* z) {
  const real *const g2 = e.of(a.g2), *const U = a.U != nullptr ? e.of(a.U) : nullptr;
  real* const out = e.of(a.out);
#pragma unroll 1
  for (int chunk = 0; chunk < cuda::tiles_of(e.n2); ++chunk) {
    linear(e, tile, a.g2, a.with.linear_w, chunk);
    const real* const own = tile + own_place();
#pragma unroll 1
    for (int x = 0; x < 8; ++x) {
      const int row = e.row(x);
      real inv = 0, unused;
      if (z != nullptr) inv = inverse_sigma(e, z + row, a.with.eps, nullptr, nullptr, unused);
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
        const int c = chunk * TILE + vector_column(g);
        const Vector linear2 = read_vector(own + pair_down(x) * TILE_ROW + g * 8 * VECTOR);
        const Vector b = e.read(a.with.linear_b, c), by = e.read(a.with.linear_r, c);
        Vector sum = e.read(g2 + row, c);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) {
          real value, slope;
          activate(linear2.v[i] + b.v[i], value, slope);
          sum.v[i] = a.with.a * sum.v[i] + by.v[i] * value;
        }
        if (U != nullptr) {
          const Vector by_U = e.read(a.with.g1g1_r, c), of_U = e.read(U + row, c);
#pragma unroll
          for (int i = 0; i < VECTOR; ++i) sum.v[i] += by_U.v[i] * of_U.v[i];
        }
        if (z != nullptr) {
          const Vector gain = e.read(a.with.gain, c), shift = e.read(a.with.norm_shift, c), of_z = e.read(z + row, c);
#pragma unroll
          for (int i = 0; i < VECTOR; ++i) sum.v[i] += of_z.v[i] * inv * gain.v[i] + shift.v[i];
        }
        if (e.has(x)) e.write(out + row, c, sum);
      }
    }
  }
}

/// Of the rows: z becomes its gradient, and dU is set; what both do not have is null.
__device__ __forceinline__ void terms_backward(const EdgeRows& e, const cuda::PairLayerBackwardArgs<real>& a, real* z) {
  if (z == nullptr && a.dU == nullptr) return;
#pragma unroll 1
  for (int x = 0; x < 8; ++x) {
    const int row = e.row(x);
    const real* const dout = e.of(a.dg2) + row;
    real* const own = z == nullptr ? nullptr : z + row;
    real inv = 0, along = 0;
    if (z != nullptr) inv = inverse_sigma(e, own, a.with.eps, dout, a.with.gain, along);
    __syncwarp();  // lanes without a row of their own have read the last one
#pragma unroll 1
    for (int c0 = 0; e.has(x) && c0 < e.n2; c0 += TILE)
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
        const int c = c0 + vector_column(g);
        const Vector given = e.read(dout, c);
        if (a.dU != nullptr) {
          Vector dU = e.read(a.with.g1g1_r, c);
#pragma unroll
          for (int i = 0; i < VECTOR; ++i) dU.v[i] *= given.v[i];
          e.write(e.of(a.dU) + row, c, dU);
        }
        if (z != nullptr) {
          const Vector gain = e.read(a.with.gain, c);
          Vector of_z = e.read(own, c);
#pragma unroll
          for (int i = 0; i < VECTOR; ++i) of_z.v[i] = math::layer_norm_backward(given.v[i] * gain.v[i], of_z.v[i], along, inv);
          e.write(own, c, of_z);
        }
      }
    __syncwarp();
  }
}

/// dg2 of the rows: from the gradient of the new g2 to what linear2 and the residual pass on. linear2 before its activation is computed
/// again. `saved`: tiles_of(n2) tiles of global memory that belong to the warp, where n2 is more than a tile.
__device__ __forceinline__ void update_rows_backward(const EdgeRows& e, real* tile, const cuda::PairLayerBackwardArgs<real>& a,
                                                     real* saved) {
  const int chunks = cuda::tiles_of(e.n2);
  real* const dg2 = e.of(a.dg2);
  // A lane's vectors of a tile, row by row: the loop is short, and needs few registers.
  const auto each = [&](int chunk, auto f) {
    real* const own = tile + own_place();
#pragma unroll 2
    for (int x = 0; x < 8; ++x)
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) { f(x, chunk * TILE + vector_column(g), own + pair_down(x) * TILE_ROW + g * 8 * VECTOR); }
  };
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) {
    linear(e, tile, a.g2, a.with.linear_w, chunk);
    each(chunk, [&](int x, int c, real* at) {
      const Vector b = e.read(a.with.linear_b, c), by = e.read(a.with.linear_r, c);
      Vector found = read_vector(at), given = e.read(dg2 + e.row(x), c);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) {
        real value, slope;
        activate(found.v[i] + b.v[i], value, slope);
        given.v[i] *= by.v[i] * slope;
      }
      write_vector(at, given);
      if (chunks > 1) write_vector(saved + chunk * cuda::tile_numbers + pair_row(x) * TILE + c % TILE, given);
    });
  }
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) {
    RowsTimesMatrix r;
#pragma unroll 1
    for (int b = 0; b < chunks; ++b) {
      __syncwarp();
      if (chunks > 1)
        each(b, [&](int x, int c, real* at) {
          write_vector(at, read_vector(saved + b * cuda::tile_numbers + pair_row(x) * TILE + c % TILE));
        });
      __syncwarp();
      r.add(depth_of(e.n2, b), tile, a.with.linear_wt + (b * chunks + chunk) * cuda::tile_numbers);
    }
    r.write(tile);
    each(chunk, [&](int x, int c, const real* at) {
      if (!e.has(x)) return;
      const Vector found = read_vector(at);
      Vector sum = e.read(dg2 + e.row(x), c);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) sum.v[i] = a.with.a * sum.v[i] + found.v[i];
      e.write(dg2 + e.row(x), c, sum);
    });
  }
}

}  // namespace dpa2
