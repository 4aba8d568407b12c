// The update of g2 and h2 in a layer, but for the attention itself: linear2, LayerNorm, residual (theory 8.2, 8.6, 8.11, 12.3, 12.4, 12.8).
// A warp takes 32 edges; linear2 before its activation is computed again for the gradient, not kept.
#include "cuda/activation.cuh"
#include "cuda/pair_update.hpp"
#include "cuda/tiles.cuh"
#include "math/layer_norm.hpp"

using namespace dpa2;

namespace {

constexpr int THREADS = cuda::pair_update_threads;

/// The edges of a warp, and where a lane's results are among rows of n2 channels.
struct Edges {
  int first, count, n2;

  __device__ __forceinline__ Edges(const int* start, int centres, int channels) : n2(channels) {
    const int edges = start[centres];
    first = (blockIdx.x * cuda::pair_update_warps + threadIdx.x / 32) * TILE;
    count = edges - first < TILE ? edges - first : TILE;
  }

  /// Tile `chunk` of the channels into shared memory, zero beyond the edges; the warp alone reads it.
  __device__ __forceinline__ void load(real* tile, const real* rows, int chunk) const {
    const int lane = threadIdx.x % 32, c = chunk * TILE + lane;
    __syncwarp();
#pragma unroll 8
    for (int r = 0; r < TILE; ++r) tile[r * TILE_ROW + lane] = r < count && c < n2 ? row_of(rows, first + r, n2)[c] : real(0);
    __syncwarp();
  }

  /// f(row of the edge, first channel, x, group) for the vectors of this lane; beyond the last edge the last one again, so that
  /// all lanes take part.
  __device__ __forceinline__ int row(int x) const {
    const int r = lane_row() + 4 * x;
    return first + (r < count ? r : count - 1);
  }
  __device__ __forceinline__ bool has(int x) const { return lane_row() + 4 * x < count; }

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

/// The sum over the eight lanes that have the same rows, in each of them.
__device__ __forceinline__ real sum_over_columns(real v) { return part_sum(v, 8); }

/// For row x: 1 / sigma of z; and with `dout`, <dout gain z> / sigma^2.
__device__ __forceinline__ real inverse_sigma(const Edges& e, const real* z, real eps, const real* dout, const real* gain, real& along) {
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
  const real inv = math::inverse_sigma<DeviceMath>(sum_over_columns(squares), real(e.n2), eps);
  if (dout != nullptr) along = sum_over_columns(product) * inv * inv / real(e.n2);
  return inv;
}

/// g2 times tile column c of the matrix.
__device__ __forceinline__ void linear(const Edges& e, Results& r, real* tile, const real* g2, const real* w, int c) {
  const int chunks = cuda::tiles_of(e.n2);
  r.clear();
#pragma unroll 1
  for (int b = 0; b < chunks; ++b) {
    if (chunks > 1 || c == 0) e.load(tile, g2, b);
    r.add_rows_times_matrix(depth_of(e.n2, b), tile, w + (b * chunks + c) * cuda::tile_numbers, TILE);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS) pair_update(const cuda::PairUpdateArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  real* const tile = shared + threadIdx.x / 32 * PADDED_TILE;
  const Edges e(a.start, a.centres, a.n2);
  if (e.count <= 0) return;
  if (a.h2_out != nullptr)
    for (int t = threadIdx.x % 32; t < 3 * e.count; t += 32) {
      const long long at = 3LL * e.first + t;
      a.h2_out[at] = a.h2_a * a.h2[at] + a.h2_r * a.dh[at];
    }
  real inv[8];
  if (a.z != nullptr)
#pragma unroll
    for (int x = 0; x < 8; ++x) {
      real unused;
      inv[x] = inverse_sigma(e, row_of(a.z, e.row(x), a.n2), a.eps, nullptr, nullptr, unused);
    }
#pragma unroll 1
  for (int chunk = 0; chunk < cuda::tiles_of(a.n2); ++chunk) {
    Results r;
    linear(e, r, tile, a.g2, a.w, chunk);
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      const int c = chunk * TILE + vector_column(g);
      const Vector b = e.read(a.b, c), by = e.read(a.linear_r, c);
      Vector of_U{}, gain{}, shift{};
      if (a.U != nullptr) of_U = e.read(a.g1g1_r, c);
      if (a.z != nullptr) {
        gain = e.read(a.gain, c);
        shift = e.read(a.shift, c);
      }
#pragma unroll
      for (int x = 0; x < 8; ++x) {
        const int row = e.row(x);
        Vector sum = e.read(row_of(a.g2, row, a.n2), c), U{}, z{};
        if (a.U != nullptr) U = e.read(row_of(a.U, row, a.n2), c);
        if (a.z != nullptr) z = e.read(row_of(a.z, row, a.n2), c);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) {
          real value, slope;
          activate(r.at[x][g * VECTOR + i] + b.v[i], value, slope);
          sum.v[i] = a.a * sum.v[i] + by.v[i] * value;
          if (a.U != nullptr) sum.v[i] += of_U.v[i] * U.v[i];
          if (a.z != nullptr) sum.v[i] += z.v[i] * inv[x] * gain.v[i] + shift.v[i];
        }
        if (e.has(x)) e.write(row_of(a.out, row, a.n2), c, sum);
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) pair_update_backward(const cuda::PairUpdateBackwardArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  real* const tile = shared + threadIdx.x / 32 * PADDED_TILE;
  const Edges e(a.start, a.centres, a.n2);
  if (e.count <= 0) return;
  if (a.dh2 != nullptr)
    for (int t = threadIdx.x % 32; t < 3 * e.count; t += 32) {
      const long long at = 3LL * e.first + t;
      const real given = a.dh2[at];
      a.ddh[at] = a.h2_r * given;
      a.dh2[at] = a.h2_a * given;
    }
  if (a.dz != nullptr || a.dU != nullptr)
#pragma unroll 1
    for (int x = 0; x < 8; ++x) {
      const int row = e.row(x);
      const real* const dout = row_of(a.dg2, row, a.n2);
      real inv = 0, along = 0;
      if (a.dz != nullptr) inv = inverse_sigma(e, row_of(a.z, row, a.n2), a.eps, dout, a.gain, along);
#pragma unroll 1
      for (int c0 = 0; e.has(x) && c0 < a.n2; c0 += TILE)
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) {
          const int c = c0 + vector_column(g);
          const Vector given = e.read(dout, c);
          if (a.dU != nullptr) {
            Vector dU = e.read(a.g1g1_r, c);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) dU.v[i] *= given.v[i];
            e.write(row_of(a.dU, row, a.n2), c, dU);
          }
          if (a.dz != nullptr) {
            const Vector gain = e.read(a.gain, c);
            Vector z = e.read(row_of(a.z, row, a.n2), c);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) z.v[i] = math::layer_norm_backward(given.v[i] * gain.v[i], z.v[i], along, inv);
            e.write(row_of(a.dz, row, a.n2), c, z);
          }
        }
    }
  const int chunks = cuda::tiles_of(a.n2);
  Results r;
  // Gradients of linear2 before its activation: into the tile, or with more than one of them into memory.
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) {
    linear(e, r, tile, a.g2, a.w, chunk);
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      const int c = chunk * TILE + vector_column(g);
      const Vector b = e.read(a.b, c), by = e.read(a.linear_r, c);
#pragma unroll
      for (int x = 0; x < 8; ++x) {
        Vector given = e.read(row_of(a.dg2, e.row(x), a.n2), c);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) {
          real value, slope;
          activate(r.at[x][g * VECTOR + i] + b.v[i], value, slope);
          given.v[i] *= by.v[i] * slope;
          r.at[x][g * VECTOR + i] = given.v[i];
        }
        if (chunks > 1 && e.has(x)) e.write(row_of(a.dlinear, e.row(x), a.n2), c, given);
      }
    }
  }
  __syncwarp();
  if (chunks == 1) {
    r.write_channels(tile);
    __syncwarp();
  }
#pragma unroll 1
  for (int chunk = 0; chunk < chunks; ++chunk) {
    r.clear();
#pragma unroll 1
    for (int b = 0; b < chunks; ++b) {
      if (chunks > 1) e.load(tile, a.dlinear, b);
      r.add_rows_times_matrix(depth_of(a.n2, b), tile, a.w_t + (b * chunks + chunk) * cuda::tile_numbers, TILE);
    }
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      const int c = chunk * TILE + vector_column(g);
#pragma unroll
      for (int x = 0; x < 8; ++x) {
        if (!e.has(x)) continue;
        real* const to = row_of(a.dg2, e.row(x), a.n2);
        Vector sum = e.read(to, c);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) sum.v[i] = a.a * sum.v[i] + r.at[x][g * VECTOR + i];
        e.write(to, c, sum);
      }
    }
  }
}
