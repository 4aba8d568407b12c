// What passes from the neighbours to a centre in one layer: convolution and symmetrisation (theory 8.4, 8.8, 12.5, 12.6). One
// block per centre, tiles of 32 edges; a warp has 32 channels of g1 at a time.
//
// With g1_out_conv the projection P acts on g2, edge by edge, and is done here, tile by tile; the neighbours' rows of g1 are read once
// for it and for drrd. Else it acts on g1, atom by atom, and comes as rows (node).
#include "cuda/messages.hpp"

#include "cuda/edge_tile.cuh"
#include "math/normalisation.hpp"

using namespace dpa2;

namespace {

constexpr int DEPTH = 64;  // channels of g2 in shared memory together, forward

/// factor (TILE, 4): the weight of an edge in the convolution and, times h2, in the moments; zero behind the last.
__device__ __forceinline__ void stage_factors(real* factor, const real* w, const real* h2, int first, int count, real kn, real kh) {
  const int e = threadIdx.x;
  if (e >= TILE) return;
  real f[4] = {};
  if (e < count) {
    const real* h = h2 + 3LL * (first + e);
    const real weight = w[first + e];
    f[0] = kn * weight;
    for (int x = 0; x < 3; ++x) f[1 + x] = kh * weight * h[x];
  }
  store4(factor + 4 * e, f);
}

/// out (axis, nc) = (1/3) sum_x C[x, a] C[x, c], C (3, nc)
__device__ __forceinline__ void gram(real* out, const real* C, int nc, int axis) {
  for (int c = threadIdx.x; c < nc; c += blockDim.x) {
    const real m[3] = {C[c], C[nc + c], C[2 * nc + c]};
    for (int a = 0; a < axis; ++a) out[a * nc + c] = (C[a] * m[0] + C[nc + a] * m[1] + C[2 * nc + a] * m[2]) * real(1.0 / 3.0);
  }
}

/// dC (3, nc) = what flows into C from the Gram products, and the seed; either may be null. Axis channels have sums over all channels,
/// which a warp makes.
__device__ __forceinline__ void gram_backward(real* dC, const real* dgram, const real* seed, const real* C, int nc, int axis) {
  const int lane = threadIdx.x % 32, sums = dgram != nullptr ? axis : 0;
  for (int t = threadIdx.x / 32; t < 3 * sums; t += WARPS) {
    const int a = t / 3, x = t % 3;
    const real* row = C + x * nc;
    real acc = 0;
    for (int k = lane; k < nc; k += 32) acc += dgram[a * nc + k] * row[k];
    for (int b = lane; b < axis; b += 32) acc += dgram[b * nc + a] * row[b];
    acc = warp_sum(acc) * real(1.0 / 3.0);
    if (lane == 0) dC[x * nc + a] = seed != nullptr ? acc + seed[x * nc + a] : acc;
  }
  for (int c = sums + threadIdx.x; c < nc; c += blockDim.x) {
    real acc[3] = {};
    for (int b = 0; b < sums; ++b) {
      const real d = dgram[b * nc + c];
      for (int x = 0; x < 3; ++x) acc[x] += d * C[x * nc + b];
    }
    for (int x = 0; x < 3; ++x) {
      const real v = acc[x] * real(1.0 / 3.0);
      dC[x * nc + c] = seed != nullptr ? v + seed[x * nc + c] : v;
    }
  }
}

/// conv and the moments of the neighbours' g1.
__device__ __forceinline__ void of_neighbours(const cuda::MessagesArgs<real>& a, real* tile, real* factor, int* row, int begin, int end,
                                              real kn, real kh) {
  const int i = blockIdx.x, e0 = edge_of_lane(), ldb = cuda::padded_to_edge_tiles(a.n1);
  for (int c0 = 0; c0 < a.n1; c0 += 32 * WARPS) {
    const int chunk = c0 + threadIdx.x / 32 * 32, c = chunk + column_of_lane();
    const bool mine = chunk < a.n1;
    real sum[4][4] = {};  // conv, moments
    for (int first = begin; first < end; first += TILE) {
      const int count = min(TILE, end - first);
      __syncthreads();
      stage_factors(factor, a.w, a.h2, first, count, kn, kh);
      stage_rows(row, a.j, first, count);
      real y[8][4] = {};
      if (a.P != nullptr)
        project<DEPTH>(y, tile, a.g2, first, count, a.n2, a.P + c, ldb, mine);
      else
        __syncthreads();
      if (mine) {
        int j[8];
        load4(j, row + e0);
        load4(j + 4, row + e0 + 4);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          real f[4], v[4];
          load4(f, factor + 4 * (e0 + e));
          load_row4(v, row_of(a.g1, j[e], a.n1), c, a.n1);
#pragma unroll
          for (int x = 0; x < 4; ++x) {
            sum[0][x] += f[0] * y[e][x] * v[x];
            for (int d = 1; d < 4; ++d) sum[d][x] += f[d] * v[x];
          }
        }
      }
    }
    if (!mine) continue;
    for (int d = 0; d < 4; ++d)
      for (int x = 0; x < 4; ++x) sum[d][x] = sum_of_edges(sum[d][x]);
    if (e0 != 0) continue;
    if (a.P != nullptr) store_row4(row_of(a.conv, i, a.n1), c, a.n1, sum[0]);
    if (a.drrd != nullptr)
      for (int d = 0; d < 3; ++d) store_row4(row_of(a.drrd, 3 * i + d, a.n1), c, a.n1, sum[1 + d]);
  }
}

/// The moments of g2, and conv where P acted on g1. The warps share the edges of a chunk of channels.
__device__ __forceinline__ void of_pairs(const cuda::MessagesArgs<real>& a, real* parts, int begin, int end, real kn, real kh) {
  const int i = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int chunks = (a.n2 + 31) / 32, together = min(chunks, WARPS), shares = WARPS / together;
  for (int chunk = 0; chunk < chunks; chunk += together) {
    const int k = 32 * (chunk + warp % together) + lane, share = warp / together;
    real sum[4] = {};
    if (share < shares && k < a.n2)
      for (int e = begin + share; e < end; e += shares) {
        const real v = row_of(a.g2, e, a.n2)[k], weighted = kh * a.w[e] * v;
        for (int x = 0; x < 3; ++x) sum[1 + x] += weighted * a.h2[3LL * e + x];
        if (a.node != nullptr) sum[0] += kn * a.w[e] * v * row_of(a.node, a.j[e], a.n2)[k];
      }
    __syncthreads();
    for (int d = 0; d < 4; ++d) parts[(4 * warp + d) * 32 + lane] = sum[d];
    __syncthreads();
    if (warp >= together || k >= a.n2) continue;
    for (int s = 1; s < shares; ++s)
      for (int d = 0; d < 4; ++d) sum[d] += parts[(4 * (warp + s * together) + d) * 32 + lane];
    if (a.node != nullptr) row_of(a.cat, i, a.cat_width)[a.cat_conv + k] = sum[0];
    if (a.grrg != nullptr)
      for (int d = 0; d < 3; ++d) row_of(a.grrg, 3 * i + d, a.n2)[k] = sum[1 + d];
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, BLOCKS) messages(const cuda::MessagesArgs<real> a) {
  __align__(16) __shared__ real tile[DEPTH * ROW];
  __align__(16) __shared__ real factor[4 * TILE];
  __align__(16) __shared__ int row[TILE];
  const int i = blockIdx.x, begin = a.start[i], end = a.start[i + 1];
  const math::Normalisation<DeviceMath, real> kappa{a.nsel, a.smooth != 0, a.root != 0};
  const real kn = kappa.conv(end - begin), kh = kappa.moment(end - begin);
  if (a.P != nullptr || a.drrd != nullptr) of_neighbours(a, tile, factor, row, begin, end, kn, kh);
  if (a.grrg != nullptr || a.node != nullptr) of_pairs(a, tile, begin, end, kn, kh);
  if (a.cat == nullptr) return;
  __syncthreads();
  real* cat = row_of(a.cat, i, a.cat_width);
  if (a.grrg != nullptr && a.cat_grrg >= 0) gram(cat + a.cat_grrg, row_of(a.grrg, 3 * i, a.n2), a.n2, a.axis);
  if (a.drrd != nullptr) gram(cat + a.cat_drrd, row_of(a.drrd, 3 * i, a.n1), a.n1, a.axis);
}

namespace {

/// dg1_edge of a tile; tile (32 WARPS, ROW).
__device__ __forceinline__ void to_neighbours(const cuda::MessagesBackwardArgs<real>& a, real* tile, const real* factor, int first,
                                              int count) {
  const int i = blockIdx.x, e0 = edge_of_lane(), ldb = cuda::padded_to_edge_tiles(a.n1);
  for (int c0 = 0; c0 < a.n1; c0 += 32 * WARPS) {
    const int chunk = c0 + threadIdx.x / 32 * 32, c = chunk + column_of_lane();
    const bool mine = chunk < a.n1;
    real y[8][4] = {}, given[4] = {}, d[3][4] = {};
    if (a.P != nullptr) project<32 * WARPS>(y, tile, a.g2, first, count, a.n2, a.P + c, ldb, mine);
    if (!mine) continue;
    if (a.P != nullptr) {
      real r[4];
      load_row4(given, row_of(a.dout, i, a.n1), c, a.n1);
      load_row4(r, a.r_conv, c, a.n1);
      for (int x = 0; x < 4; ++x) given[x] *= r[x];
    }
    if (a.ddrrd != nullptr)
      for (int x = 0; x < 3; ++x) load_row4(d[x], row_of(a.ddrrd, 3 * i + x, a.n1), c, a.n1);
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      if (e0 + e >= count) continue;
      real f[4], out[4];
      load4(f, factor + 4 * (e0 + e));
#pragma unroll
      for (int x = 0; x < 4; ++x) out[x] = f[0] * given[x] * y[e][x] + f[1] * d[0][x] + f[2] * d[1][x] + f[3] * d[2][x];
      store_row4(row_of(a.dg1_edge, first + e0 + e, a.n1), c, a.n1, out);
    }
  }
}

/// Of the warp's channels of g1: its share of the gradients of g2 before kappa and w, to slab (TILE edges, ROW) for the columns k0.. with P;
/// and of the vectors of the edges, to share (3, TILE), with drrd where k0 is 0. channel (4, 32): the gradients of conv and moments.
__device__ __forceinline__ void from_neighbours(const cuda::MessagesBackwardArgs<real>& a, real* slab, real* channel, real* share,
                                                const int* row, int k0) {
  const int i = blockIdx.x, lane = threadIdx.x % 32, ldb = cuda::padded_to_edge_tiles(a.n2);
  const bool vectors = a.ddrrd != nullptr && k0 == 0;
  real acc[8][4] = {}, df[3] = {};
  for (int c0 = threadIdx.x / 32 * 32; c0 < a.n1; c0 += 32 * WARPS) {
    const int c = c0 + lane;
    __syncwarp();
    channel[lane] = a.P != nullptr && c < a.n1 ? row_of(a.dout, i, a.n1)[c] * a.r_conv[c] : real(0);
    if (vectors)
      for (int x = 0; x < 3; ++x) channel[32 * (1 + x) + lane] = c < a.n1 ? row_of(a.ddrrd, 3 * i + x, a.n1)[c] : real(0);
    stage_neighbours(slab, a.g1, row, a.n1, c0);
    __syncwarp();
    if (a.P != nullptr) tile_product<true>(acc, slab + edge_of_lane(), a.Pt + c0 * ldb + k0 + column_of_lane(), ldb, 32, channel);
    if (vectors)
#pragma unroll 2
      for (int m = 0; m < 32; m += 4) {
        real v[4];
#pragma unroll
        for (int s = 0; s < 4; ++s) v[s] = slab[(m + s) * ROW + lane];
#pragma unroll
        for (int x = 0; x < 3; ++x) {
          real d[4];
          load4(d, channel + 32 * (1 + x) + m);
          df[x] += d[0] * v[0] + d[1] * v[1] + d[2] * v[2] + d[3] * v[3];
        }
      }
  }
  __syncwarp();
  if (a.P != nullptr) store_tile(slab, acc);
  if (vectors)
    for (int x = 0; x < 3; ++x) share[TILE * x + lane] = df[x];
}

/// dg2 of a tile in the columns k0..k0 + 31, and the edges' sums (TILE, 4) over them: of conv, of the vector.
__device__ __forceinline__ void to_pairs(const cuda::MessagesBackwardArgs<real>& a, const real* slabs, const real* factor, real* sums,
                                         const int* row, int first, int count, int k0) {
  const int i = blockIdx.x, lane = threadIdx.x % 32, k = k0 + lane;
  const bool inside = k < a.n2;
  real d[3] = {}, given = 0;
  if (inside && a.dgrrg != nullptr)
    for (int x = 0; x < 3; ++x) d[x] = row_of(a.dgrrg, 3 * i + x, a.n2)[k];
  if (inside && a.node != nullptr) given = row_of(a.dcat, i, a.cat_width)[a.cat_conv + k];
  for (int g = threadIdx.x / 32; 4 * g < count; g += WARPS) {
    real part[16] = {};
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const int e = 4 * g + s;
      if (e >= count || !inside) continue;
      real f[4], q = 0;
      load4(f, factor + 4 * e);
      const real v = row_of(a.g2, first + e, a.n2)[k];
      if (a.P != nullptr)
        for (int warp = 0; warp < WARPS; ++warp) q += slabs[(warp * TILE + e) * ROW + lane];
      if (a.node != nullptr) {
        q = given * row_of(a.node, row[e], a.n2)[k];
        row_of(a.dnode_edge, first + e, a.n2)[k] = f[0] * given * v;
      }
      part[4 * s] = q * v;
#pragma unroll
      for (int x = 0; x < 3; ++x) part[4 * s + 1 + x] = d[x] * v;
      const real out = f[0] * q + f[1] * d[0] + f[2] * d[1] + f[3] * d[2];
      real* to = row_of(a.dg2, first + e, a.n2) + k;
      *to = a.fresh != 0 ? out : *to + out;
    }
    const real sum = lane_sums<16, 32>(part);
    if (lane % 2 == 0) sums[16 * g + lane / 2] += sum;
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, BLOCKS) messages_backward(const cuda::MessagesBackwardArgs<real> a) {
  __align__(16) __shared__ real slabs[WARPS * TILE * ROW];
  __align__(16) __shared__ real channel[WARPS * 4 * 32];
  __align__(16) __shared__ real factor[4 * TILE];
  __align__(16) __shared__ real sums[TILE * 4];
  __shared__ real share[WARPS * 3 * TILE];
  __align__(16) __shared__ int row[TILE];
  static_assert(sizeof(slabs) + sizeof(channel) + sizeof(factor) + sizeof(sums) + sizeof(share) + sizeof(row) <= 48 * 1024,
                "any device has this much for a block");
  const int i = blockIdx.x, warp = threadIdx.x / 32, begin = a.start[i], end = a.start[i + 1];
  if (begin == end) return;
  const math::Normalisation<DeviceMath, real> kappa{a.nsel, a.smooth != 0, a.root != 0};
  const real kn = kappa.conv(end - begin), kh = kappa.moment(end - begin);
  const real* dcat = a.dcat != nullptr ? row_of(a.dcat, i, a.cat_width) : nullptr;
  if (a.dgrrg != nullptr)
    gram_backward(row_of(a.dgrrg, 3 * i, a.n2), a.grrg != nullptr ? dcat + a.cat_grrg : nullptr,
                  a.seed != nullptr ? row_of(a.seed, 3 * i, a.n2) : nullptr, a.grrg != nullptr ? row_of(a.grrg, 3 * i, a.n2) : nullptr,
                  a.n2, a.axis);
  if (a.ddrrd != nullptr)
    gram_backward(row_of(a.ddrrd, 3 * i, a.n1), dcat + a.cat_drrd, nullptr, row_of(a.drrd, 3 * i, a.n1), a.n1, a.axis);
  for (int first = begin; first < end; first += TILE) {
    const int count = min(TILE, end - first);
    __syncthreads();
    stage_factors(factor, a.w, a.h2, first, count, kn, kh);
    stage_rows(row, a.j, first, count);
    for (int t = threadIdx.x; t < 4 * TILE; t += blockDim.x) sums[t] = 0;
    __syncthreads();
    if (a.P != nullptr || a.ddrrd != nullptr) to_neighbours(a, slabs, factor, first, count);
    for (int k0 = 0; k0 < a.n2; k0 += 32) {
      __syncthreads();
      if (a.P != nullptr || (a.ddrrd != nullptr && k0 == 0))
        from_neighbours(a, slabs + warp * TILE * ROW, channel + warp * 4 * 32, share + warp * 3 * TILE, row, k0);
      __syncthreads();
      if (a.fresh != 0 || a.P != nullptr || a.node != nullptr || a.dgrrg != nullptr)
        to_pairs(a, slabs, factor, sums, row, first, count, k0);
    }
    __syncthreads();
    const int e = threadIdx.x;
    if (e < count) {
      const long long at = first + e;
      real sum[4], along = 0;
      load4(sum, sums + 4 * e);
      for (int x = 0; x < 3; ++x) {
        real df = sum[1 + x];
        if (a.ddrrd != nullptr)
          for (int s = 0; s < WARPS; ++s) df += share[(3 * s + x) * TILE + e];
        along += a.h2[3 * at + x] * df;
        const real out = kh * a.w[at] * df;
        a.dh2[3 * at + x] = a.fresh != 0 ? out : a.dh2[3 * at + x] + out;
      }
      const real out = kn * sum[0] + kh * along;
      a.dw[at] = a.fresh != 0 ? out : a.dw[at] + out;
    }
  }
}
