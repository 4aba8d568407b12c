// Repinit: the Gram matrix of embedded neighbour moments (theory 5, 12.14). One block per centre at a time; the rows of the environment
// matrix and the embedding of a tile of edges live in the block and nowhere else.
#include "cuda/embedding_net.cuh"
#include "cuda/env_mat.cuh"
#include "cuda/repinit.hpp"

using namespace dpa2;

namespace {

constexpr int THREADS = cuda::embedding_threads;

/// A tile of edges of one centre in shared memory; lanes without an edge hold zeros.
struct Tile {
  real *R, *sw, *sums;  // (4, LANES), (LANES); of sum_lanes
  int* row;             // (LANES): of the tables of types

  __device__ __forceinline__ explicit Tile(real* shared, bool backward)
      : R(shared),
        sw(shared + 4 * LANES),
        sums(shared + 5 * LANES),
        row(reinterpret_cast<int*>(shared + (5 + (backward ? cuda::repinit_sums(gated) * cuda::embedding_parts : 0)) * LANES)) {}

  /// Lane e = edge `first` + e, by the threads of the lanes.
  template <class Args>
  __device__ __forceinline__ void load(const Args& a, int first, int count, int centre_type) {
    __syncthreads();
    const int e = threadIdx.x;
    if (e >= LANES) return;
    real values[4] = {}, weight = 0;
    int combination = 0;
    if (e < count) {
      environment(a.statistics, Edge(a.d, a.r, first + e), centre_type, values, weight);
      const int type = a.types[a.j[first + e]];
      combination = a.one_side != 0 ? type : type * a.ntypes + centre_type;
    }
    for (int x = 0; x < 4; ++x) R[x * LANES + e] = values[x];
    sw[e] = weight;
    row[e] = combination;
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::embedding_threads, FORWARD_BLOCKS) repinit(const cuda::RepinitArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  const int ng = a.ng, axis = a.axis;
  Tile tile(shared, false);
  real* const moments = work_of(shared, cuda::repinit_tile(false, gated, LANES, sizeof(real)) / int(sizeof(real)), a.scratch,
                                cuda::repinit_work(ng, a.net.even, a.net.odd, false, LANES, sizeof(real)));  // (ng, 4)
  real* const work = moments + 4 * ng;
  for (int i = blockIdx.x; i < a.centres; i += gridDim.x) {
    const int type = a.types[i], end = a.start[i + 1];
    __syncthreads();  // the moments of the centre before have been used
    for (int c = threadIdx.x; c < ng; c += THREADS) write_quad(moments + 4 * c, {});
    for (int first = a.start[i]; first < end; first += LANES) {
      const int count = min(LANES, end - first);
      tile.load(a, first, count, type);
      const Embedded G = embed<false>(a.net, tile.R, tile.row, work);
      for (int c = threadIdx.x; c < ng; c += THREADS) {
        Quad sum = read_quad(moments + 4 * c);
        for (int e = 0; e < count; e += 4) {
          Quad g = read_quad(G.value + c * LANE_ROW + e);
          if constexpr (gated)
            for (int l = 0; l < 4; ++l)
              g.at[l] *= real(1) + a.net.gate[tile.row[e + l] * ng + c] * (a.net.gate_switch != 0 ? tile.sw[e + l] : real(1));
#pragma unroll
          for (int x = 0; x < 4; ++x) {
            const Quad R = read_quad(tile.R + x * LANES + e);
#pragma unroll
            for (int l = 0; l < 4; ++l) sum.at[x] += R.at[l] * g.at[l];
          }
        }
        write_quad(moments + 4 * c, sum);
      }
    }
    for (int c = threadIdx.x; c < ng; c += THREADS) {  // of the same thread as before
      Quad m = read_quad(moments + 4 * c);
      for (int x = 0; x < 4; ++x) m.at[x] *= a.inv_nsel;
      if (a.pad_G != nullptr) {
        const int slot = a.pad_types[i / a.per_frame] * a.ntypes + type;
        const real factor = real(a.pad[i]) * a.inv_nsel * row_of(a.pad_G, slot, ng)[c];
        for (int x = 0; x < 4; ++x) m.at[x] += factor * a.pad_R[4 * type + x];
      }
      write_quad(moments + 4 * c, m);
      if (a.M != nullptr) write_quad(row_of(a.M, i, 4 * ng) + 4 * c, m);
    }
    __syncthreads();
    real* const D = row_of(a.D, i, a.d_width);
    int c = threadIdx.x / axis, k = threadIdx.x % axis;
    for (int t = threadIdx.x; t < ng * axis; t += THREADS) {
      const Quad mc = read_quad(moments + 4 * c), mk = read_quad(moments + 4 * k);
      real sum = 0;
      for (int x = 0; x < 4; ++x) sum += mc.at[x] * mk.at[x];
      D[t] = sum;
      c += THREADS / axis;
      k += THREADS % axis;
      if (k >= axis) {
        k -= axis;
        ++c;
      }
    }
  }
}

namespace {

/// dM (ng, 4) = the gradient of the sums over the edges, from that of the Gram matrix: dM_c = sum_a dD_ca M_a, and for c < axis
/// + sum_k dD_kc M_k.
__device__ __forceinline__ void moments_gradient(int ng, int axis, real factor, const real* dD, const real* M, real* dM) {
  for (int c = threadIdx.x; c < ng; c += THREADS) {
    Quad sum = {};
    for (int k = 0; k < axis; ++k) {
      const Quad m = read_quad(M + 4 * k);
      for (int x = 0; x < 4; ++x) sum.at[x] += dD[c * axis + k] * m.at[x];
    }
    for (int x = 0; x < 4; ++x) sum.at[x] *= factor;
    write_quad(dM + 4 * c, sum);
  }
  __syncthreads();
  for (int c = threadIdx.x / 32; c < axis; c += cuda::embedding_warps) {
    Quad sum = {};
    for (int k = threadIdx.x % 32; k < ng; k += 32) {
      const Quad m = read_quad(M + 4 * k);
      for (int x = 0; x < 4; ++x) sum.at[x] += dD[k * axis + c] * m.at[x];
    }
    for (int x = 0; x < 4; ++x) sum.at[x] = warp_sum(sum.at[x]);
    if (threadIdx.x % 32 == 0) {
      Quad first = read_quad(dM + 4 * c);
      for (int x = 0; x < 4; ++x) first.at[x] += sum.at[x] * factor;
      write_quad(dM + 4 * c, first);
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::embedding_threads, BACKWARD_BLOCKS)
    repinit_backward(const cuda::RepinitBackwardArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  const int ng = a.ng;
  Tile tile(shared, true);
  real* const dM = work_of(shared, cuda::repinit_tile(true, gated, LANES, sizeof(real)) / int(sizeof(real)), a.scratch,
                           cuda::repinit_work(ng, a.net.even, a.net.odd, true, LANES, sizeof(real)));
  real* const work = dM + 4 * ng;
  const int lane = threadIdx.x % QUADS * 4;
  for (int i = blockIdx.x; i < a.centres; i += gridDim.x) {
    const int type = a.types[i], end = a.start[i + 1];
    __syncthreads();  // dM of the centre before has been used
    moments_gradient(ng, a.axis, a.inv_nsel, row_of(a.dD, i, a.d_width), row_of(a.M, i, 4 * ng), dM);
    for (int first = a.start[i]; first < end; first += LANES) {
      const int count = min(LANES, end - first);
      tile.load(a, first, count, type);
      const Embedded G = embed<true>(a.net, tile.R, tile.row, work);
      // By edge: the gradient of its row, the share of its scalar, and what the switch gets through the gate.
      constexpr int SUMS = cuda::repinit_sums(gated);
      real sums[SUMS][4] = {};
      for (int c = threadIdx.x / QUADS; c < ng; c += THREADS / QUADS) {
        const Quad m = read_quad(dM + 4 * c), value = read_quad(G.value + c * LANE_ROW + lane);
        const Quad slope = read_quad(G.tangent + c * LANE_ROW + lane);
        real along[4] = {};
#pragma unroll
        for (int x = 0; x < 4; ++x) {
          const Quad R = read_quad(tile.R + x * LANES + lane);
#pragma unroll
          for (int l = 0; l < 4; ++l) along[l] += R.at[l] * m.at[x];
        }
#pragma unroll
        for (int l = 0; l < 4; ++l) {
          real factor = 1, g = 0;
          if constexpr (gated) {
            g = a.net.gate[tile.row[lane + l] * ng + c];
            factor += g * (a.net.gate_switch != 0 ? tile.sw[lane + l] : real(1));
            sums[SUMS - 1][l] += along[l] * value.at[l] * g;
          }
          const real whole = gated ? value.at[l] * factor : value.at[l];
#pragma unroll
          for (int x = 0; x < 4; ++x) sums[x][l] += m.at[x] * whole;
          sums[4][l] += along[l] * (gated ? factor * slope.at[l] : slope.at[l]);
        }
      }
      sum_lanes(sums, tile.sums);
      const int e = threadIdx.x;
      if (e < count) {
        real dR[4], g[3] = {};
        for (int x = 0; x < 4; ++x) dR[x] = tile.sums[x * LANES + e];
        dR[0] += tile.sums[4 * LANES + e];
        real dsw = 0;
        if constexpr (gated) dsw = a.net.gate_switch != 0 ? tile.sums[(SUMS - 1) * LANES + e] : real(0);
        environment_backward(a.statistics, Edge(a.d, a.r, first + e), type, dR, dsw, g);
        for (int x = 0; x < 3; ++x) a.gamma[3LL * (first + e) + x] = g[x];
      }
    }
  }
}
