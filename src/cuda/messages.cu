// What passes from the neighbours to a centre in one layer: convolution and symmetrisation (theory 8.4, 8.8, 12.5, 12.6). One
// block per centre; back to the neighbours is in gather.cu.
//
// With g1_out_conv the projection P acts on g2. It is taken out of the sum over the edges, conv_c = sum_k P[k][c] (sum_e w_e g2_e[k]
// g1_j[c]): the neighbours' rows of g1 are read once for this and for the moments. Else P acts on g1, atom by atom, and comes as rows
// (node).
#include "cuda/messages.hpp"

#include "cuda/edge_sums.cuh"
#include "math/normalisation.hpp"

using namespace dpa2;

namespace {

/// out (axis, nc) = (1/3) sum_x C[x, a] C[x, c], C (3, nc)
__device__ __forceinline__ void gram(real* out, const real* C, int nc, int axis) {
  for (int c = threadIdx.x; c < nc; c += blockDim.x) {
    const real m[3] = {C[c], C[nc + c], C[2 * nc + c]};
    for (int a = 0; a < axis; ++a) out[a * nc + c] = (C[a] * m[0] + C[nc + a] * m[1] + C[2 * nc + a] * m[2]) * real(1.0 / 3.0);
  }
}

/// What the parts of the kernel share: the edges of a centre, in shared memory.
struct Centre {
  const cuda::MessagesArgs<real>& a;
  EdgeFactors factors;
  Outgoing edges;
  int n;
  bool at_once;  // all edges and numbers have been staged

  __device__ __forceinline__ void stage(int k0, int first, int count) const {
    const bool numbers = a.P != nullptr || a.grrg != nullptr || a.node != nullptr;
    stage_factors(factors, edges, a.w, a.h2, numbers ? a.g2 : nullptr, a.n2, k0, first, count);
  }
  template <bool Whole>
  __device__ __forceinline__ void add_neighbours(EdgeSums& sums, int count, int c) const {
    const Columns<Whole, 1> g1(a.g1, a.n1, c);
    if (a.P != nullptr)
      add_edges<true, true, false>(sums, factors, count, g1, g1);
    else
      add_edges<false, true, false>(sums, factors, count, g1, g1);
  }
};

/// conv, and the moments of the neighbours' g1.
__device__ __forceinline__ void of_neighbours(const Centre& centre, real kn, real kh) {
  const cuda::MessagesArgs<real>& a = centre.a;
  const int i = blockIdx.x, k_end = a.P != nullptr ? a.n2 : 1;
  for (int c0 = 0; c0 < a.n1; c0 += 32 * WARPS) {
    const int chunk = c0 + threadIdx.x / 32 * 32, c = chunk + column_of_lane();
    const bool mine = chunk < a.n1;
    real conv[4] = {};
    for (int k0 = 0; k0 < k_end; k0 += NUMBERS) {
      EdgeSums sums;
      for (int first = 0; first < centre.n; first += AT_ONCE) {
        const int count = min(AT_ONCE, centre.n - first);
        if (!centre.at_once) centre.stage(k0, first, count);
        if (!mine) continue;
        if (a.n1 % 4 == 0)
          centre.add_neighbours<true>(sums, count, c);
        else
          centre.add_neighbours<false>(sums, count, c);
      }
      if (!mine) continue;
      if (a.P != nullptr) add_product(conv, sums, a.P + cuda::strip_of(chunk, a.n2) + k0 * TILE + column_of_lane());
      if (a.drrd != nullptr && k0 == 0 && group_of_lane() < 3) {
#pragma unroll
        for (int x = 0; x < 4; ++x) sums.v[x] *= kh;
        store_row4(row_of(a.drrd, 3 * i + group_of_lane(), a.n1), c, a.n1, sums.v);
      }
    }
    if (a.P == nullptr) continue;
    for (int x = 0; x < 4; ++x) conv[x] = kn * sum_of_groups(conv[x]);
    if (mine && group_of_lane() == 0) store_row4(row_of(a.conv, i, a.n1), c, a.n1, conv);
  }
}

/// The moments of g2, and conv where P acted on g1.
__device__ __forceinline__ void of_pairs(const Centre& centre, real* parts, real kn, real kh) {
  const cuda::MessagesArgs<real>& a = centre.a;
  const int i = blockIdx.x, d = threadIdx.x / NUMBERS;
  for (int k0 = 0; k0 < a.n2; k0 += NUMBERS) {
    PairSums pairs;
    for (int first = 0; first < centre.n; first += AT_ONCE) {
      const int count = min(AT_ONCE, centre.n - first);
      if (!centre.at_once) centre.stage(k0, first, count);
      if (a.grrg != nullptr) pairs.add_vectors(centre.factors, count);
      if (a.node != nullptr) pairs.add_rows(centre.factors, count, a.node + k0, a.n2, a.n2 - k0);
    }
    const real whole = pairs.whole(parts);
    const int k = k0 + PairSums::number();
    if (k >= a.n2) continue;
    if (d == 0 && a.node != nullptr) row_of(a.cat, i, a.cat_width)[a.cat_conv + k] = kn * whole;
    if (d > 0 && d < 4 && a.grrg != nullptr) row_of(a.grrg, 3 * i + d - 1, a.n2)[k] = kh * whole;
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, BLOCKS) messages(const cuda::MessagesArgs<real> a) {
  __align__(16) __shared__ real number[AT_ONCE * FACTORS];
  __align__(16) __shared__ real vector[AT_ONCE * 4];
  __align__(16) __shared__ int place[AT_ONCE];
  __shared__ int row[AT_ONCE], edge[AT_ONCE];
  __shared__ real parts[4 * cuda::edge_threads];
  const int i = blockIdx.x, begin = a.start[i], n = a.start[i + 1] - begin;
  const Centre centre{a, {number, vector, row, place, edge, a.n1}, {a.j, begin}, n, n <= AT_ONCE && a.n2 <= NUMBERS};
  if (centre.at_once) centre.stage(0, 0, n);
  const math::Normalisation<DeviceMath, real> kappa{a.nsel, a.smooth != 0, a.root != 0};
  const real kn = kappa.conv(n), kh = kappa.moment(n);
  if (a.P != nullptr || a.drrd != nullptr) of_neighbours(centre, kn, kh);
  if (a.grrg != nullptr || a.node != nullptr) of_pairs(centre, parts, kn, kh);
  if (a.cat == nullptr) return;
  __syncthreads();
  real* cat = row_of(a.cat, i, a.cat_width);
  if (a.grrg != nullptr && a.cat_grrg >= 0) gram(cat + a.cat_grrg, row_of(a.grrg, 3 * i, a.n2), a.n2, a.axis);
  if (a.drrd != nullptr) gram(cat + a.cat_drrd, row_of(a.drrd, 3 * i, a.n1), a.n1, a.axis);
}

namespace {

/// factor (TILE, 4): the weight of an edge in the convolution and, times h2, in the moments.
__device__ __forceinline__ void weigh_edges(real* factor, const real* w, const real* h2, int first, int count, real kn, real kh) {
  const int e = threadIdx.x;
  if (e >= count) return;
  const real* h = h2 + 3LL * (first + e);
  const real weight = w[first + e], along = kh * weight;
  const real f[4] = {kn * weight, along * h[0], along * h[1], along * h[2]};
  store4(factor + 4 * e, f);
}

/// dC (3, nc) = what flows into C from the Gram products, and the seed; either may be null. Axis channels have sums over all channels
/// besides, which a warp makes.
__device__ __forceinline__ void gram_backward(real* dC, const real* dgram, const real* seed, const real* C, int nc, int axis) {
  const int lane = threadIdx.x % 32, sums = dgram != nullptr ? axis : 0;
  for (int first = 0; first < sums; first += WARPS) {
    const int a = first + threadIdx.x / 32;
    real acc[4] = {};
    if (a < sums)
#pragma unroll 4
      for (int k = lane; k < nc; k += 32) {
        const real d = dgram[a * nc + k];
        for (int x = 0; x < 3; ++x) acc[x] += d * C[x * nc + k];
      }
    const real sum = lane_sums<4, 32>(acc);
    if (a < sums && lane % 8 == 0 && lane < 24) dC[lane / 8 * nc + a] = sum;
  }
  __syncthreads();
  for (int c = threadIdx.x; c < nc; c += blockDim.x) {
    real acc[3] = {};
    if (c < sums)
      for (int x = 0; x < 3; ++x) acc[x] = dC[x * nc + c];
#pragma unroll 4
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

/// Of the warp's channels of g1: its share of the gradients of g2 before kappa and w, to its slab (TILE, ROW) for the columns k0.. with
/// Pt; and of the vectors of the edges, to share (3, TILE), with drrd where k0 is 0.
struct FromNeighbours {
  const cuda::MessagesBackwardArgs<real>& a;
  real *slab, *share;
  const int* row;
  int k0;

  template <int M>
  __device__ __forceinline__ void run() const {
    const int i = blockIdx.x;
    const bool vectors = a.ddrrd != nullptr && k0 == 0, numbers = a.Pt != nullptr;
    const real* Pt = a.Pt + cuda::strip_of(k0, a.n1) + column_of_lane();
    real acc[M][4] = {}, df[3] = {};
    for (int c0 = 0; c0 < a.n1; c0 += 32 * WARPS) {
      const int chunk = c0 + threadIdx.x / 32 * 32, c = chunk + column_of_lane();
      real v[M][4];
      load_neighbours<M>(v, a.g1, row, a.n1, c);
      if (vectors)
#pragma unroll
        for (int x = 0; x < 3; ++x) {
          real d[4], along[8] = {};
          load_row4(d, row_of(a.ddrrd, 3 * i + x, a.n1), c, a.n1);
#pragma unroll
          for (int m = 0; m < M; ++m) along[m] = d[0] * v[m][0] + d[1] * v[m][1] + d[2] * v[m][2] + d[3] * v[m][3];
          df[x] += lane_sums<8, 8>(along);
        }
      if (!numbers) continue;
      real scale[4], r[4];
      load_row4(scale, row_of(a.dout, i, a.n1), c, a.n1);
      load_row4(r, a.r_conv, c, a.n1);
      for (int x = 0; x < 4; ++x) scale[x] *= r[x];
      __syncwarp();
      store_scaled<M>(slab, v, scale);
      __syncwarp();
      if (chunk < a.n1) tile_product<M>(acc, slab + edge_of_lane() * ROW, Pt + chunk * TILE, TILE);
    }
    __syncwarp();
    if (numbers) store_tile<M>(slab, acc);
    // Eight lanes had the same edges; this one has the sums of edge number threadIdx.x % 8 of theirs.
    if (vectors)
      for (int x = 0; x < 3; ++x) share[TILE * x + threadIdx.x % 8 * 4 + edge_of_lane()] = df[x];
  }
};

/// dg2 of a tile in the columns k0..k0 + 31, and the edges' sums (TILE, 4) over them: of conv, of the vector.
__device__ __forceinline__ void to_pairs(const cuda::MessagesBackwardArgs<real>& a, const real* slabs, const real* factor, real* sums,
                                         const int* row, int first, int count, int k0) {
  const int i = blockIdx.x, k = k0 + column_of_lane();
  real d[3][4] = {}, given[4] = {};
  if (a.dgrrg != nullptr)
    for (int x = 0; x < 3; ++x) load_row4(d[x], row_of(a.dgrrg, 3 * i + x, a.n2), k, a.n2);
  if (a.node != nullptr)
    for (int x = 0; x < 4; ++x) given[x] = k + x < a.n2 ? row_of(a.dcat, i, a.cat_width)[a.cat_conv + k + x] : real(0);
  for (int e0 = 0; e0 < count; e0 += 4 * WARPS) {
    const int e = e0 + threadIdx.x / 8;
    const bool inside = e < count;
    real part[4] = {};
    if (inside) {
      real f[4], v[4], q[4] = {}, out[4];
      load4(f, factor + 4 * e);
      load_row4(v, row_of(a.g2, first + e, a.n2), k, a.n2);
      if (a.Pt != nullptr) sum_of_slabs(q, slabs, e);
      if (a.node != nullptr) {
        load_row4(q, row_of(a.node, row[e], a.n2), k, a.n2);
        for (int x = 0; x < 4; ++x) q[x] *= given[x];
      }
      real* to = row_of(a.dg2, first + e, a.n2);
      real before[4] = {};
      if (a.fresh == 0) load_row4(before, to, k, a.n2);
#pragma unroll
      for (int x = 0; x < 4; ++x) {
        part[0] += q[x] * v[x];
#pragma unroll
        for (int y = 0; y < 3; ++y) part[1 + y] += d[y][x] * v[x];
        out[x] = before[x] + f[0] * q[x] + f[1] * d[0][x] + f[2] * d[1][x] + f[3] * d[2][x];
      }
      store_row4(to, k, a.n2, out);
    }
    const real sum = lane_sums<4, 8>(part);
    if (inside && threadIdx.x % 2 == 0) sums[4 * e + threadIdx.x % 8 / 2] += sum;
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, BLOCKS) messages_backward(const cuda::MessagesBackwardArgs<real> a) {
  __align__(16) __shared__ real slabs[WARPS * TILE * ROW];
  __align__(16) __shared__ real factor[4 * TILE];
  __align__(16) __shared__ real sums[TILE * 4];
  __shared__ real share[WARPS * 3 * TILE];
  __align__(16) __shared__ int row[TILE];
  static_assert(sizeof(slabs) + sizeof(factor) + sizeof(sums) + sizeof(share) + sizeof(row) <= 48 * 1024, "any device has this for a block");
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
  for (int first = begin, each = edges_of_tile(end - begin); first < end; first += each) {
    const int count = min(each, end - first);
    __syncthreads();
    weigh_edges(factor, a.w, a.h2, first, count, kn, kh);
    stage_rows(row, a.j, first, count);
    for (int t = threadIdx.x; t < 4 * TILE; t += blockDim.x) sums[t] = 0;
    __syncthreads();
    for (int k0 = 0; k0 == 0 || k0 < a.n2; k0 += 32) {
      if (a.Pt != nullptr || (a.ddrrd != nullptr && k0 == 0)) {
        if (k0 > 0) __syncthreads();
        with_edges_per_lane(count, FromNeighbours{a, slabs + warp * TILE * ROW, share + warp * 3 * TILE, row, k0});
        __syncthreads();
      }
      if (a.fresh != 0 || a.Pt != nullptr || a.node != nullptr || a.dgrrg != nullptr)
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
