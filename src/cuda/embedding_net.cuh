// The embedding networks of repinit and of the three-body block where there are no series: evaluated by one block for LANES scalars at a
// time (theory 4.1).
//
//   -DLANES=n       scalars at a time: the host takes what fits into shared memory
//   -DNARROW        a network of few channels: threads share the scalars, each takes one channel at a time
//   -DGLOBAL_WORK   the values of the channels are in global memory, for widths that fit into no shared memory: slow
//   -DTABLE         the network is a table
#pragma once

#include "cuda/embedding.cuh"
#include "cuda/vector.cuh"
#include "math/quintic.hpp"

#ifndef LANES
#define LANES 16
#endif

namespace dpa2 {

constexpr int LANE_ROW = cuda::lane_row(LANES, sizeof(real));
constexpr int QUADS = LANES / 4;  // lanes are read and written four at a time
// Blocks of a multiprocessor that registers are to leave room for: more of them would spill.
constexpr int FORWARD_BLOCKS = 4;
#ifdef GLOBAL_WORK
constexpr int BACKWARD_BLOCKS = 2;
#else
constexpr int BACKWARD_BLOCKS = sizeof(real) == 4 ? 4 : 3;
#endif
static_assert(LANES >= cuda::least_lanes && (LANES & (LANES - 1)) == 0 && LANES <= 128, "a power of two");

/// Memory of this block for channels: behind `small` bytes of the shared memory, or its share of the scratch.
__device__ __forceinline__ real* work_of(real* shared, int small, real* scratch, long long numbers) {
#ifdef GLOBAL_WORK
  return scratch + blockIdx.x * numbers;
#else
  return shared + small;
#endif
}

/// embed() from a table: quintic polynomials of the place in an interval, straight lines beyond the ends. A warp per lane.
template <bool tangent>
__device__ __forceinline__ Embedded look_up(const cuda::EmbeddingNetArgs<real>& net, const real* s, const int* row, real* work) {
  const int intervals = net.intervals, channels = net.even, slopes = channels * LANE_ROW;
  const real* ends = net.weights;
  const real* table = net.weights + intervals + 1;
  __syncthreads();
  for (int e = threadIdx.x / 32; e < LANES; e += cuda::embedding_warps) {
    int n = 0, above = intervals;  // the last interval that begins at s or before
    while (above - n > 1) {
      const int middle = (n + above) / 2;
      if (ends[middle] <= s[e])
        n = middle;
      else
        above = middle;
    }
    const real inv_length = real(1) / (ends[n + 1] - ends[n]);
    const real within = s[e] < ends[0] ? ends[0] : s[e] > ends[intervals] ? ends[intervals] : s[e];
    const real u = (within - ends[n]) * inv_length, beyond = (s[e] - within) * inv_length;
    const int curve = net.typed != 0 ? row[e] : 0;
    const real* a = table + (static_cast<long long>(curve) * intervals + n) * quintic_terms * channels;
    for (int c = threadIdx.x % 32; c < channels; c += 32) {
      real value, slope;
      math::quintic(u, [&](int k) { return a[k * channels + c]; }, value, slope);
      work[c * LANE_ROW + e] = value + slope * beyond;
      if (tangent) work[slopes + c * LANE_ROW + e] = slope * inv_length;
    }
  }
  __syncthreads();
  return {work, work + slopes};
}

/// A further layer from `from` to `to`, derivatives `dfrom` and `dto` numbers behind the values. A thread has CHANNELS channels of some
/// lanes in registers, by fours: one vector load brings four numbers of a channel, one four weights.
template <bool tangent>
__device__ __forceinline__ void embed_layer(const cuda::EmbeddingNetArgs<real>& net, const int* layer, const real* from, int dfrom,
                                            real* to, int dto) {
#ifdef NARROW
  constexpr int CHANNELS = 1;
#else
  constexpr int CHANNELS = 4;
#endif
  constexpr int PACKS = !tangent && CHANNELS == 4 && sizeof(real) == 4 && LANES >= 8 ? 2 : 1;
  constexpr int SHARES = QUADS / PACKS, KINDS = tangent ? 2 : 1;
  const int in = layer[0], out = layer[1], skip = layer[2], idt_at = layer[5], padded = (out + 3) / 4 * 4;
  const int tasks = (out + CHANNELS - 1) / CHANNELS * SHARES;
  for (int t = threadIdx.x; t < tasks; t += cuda::embedding_threads) {
    const int lane = t % SHARES * 4, c0 = t / SHARES * CHANNELS;
    const real* x = from + lane;
    const real* w = net.weights + layer[3] + c0;
    real z[KINDS][CHANNELS][PACKS][4] = {};
#pragma unroll 2
    for (int k = 0; k < in; ++k) {
      real factor[CHANNELS];
      if constexpr (CHANNELS == 4) {
        const Quad four = read_quad(w);
        for (int y = 0; y < CHANNELS; ++y) factor[y] = four.at[y];
      } else {
        factor[0] = *w;
      }
#pragma unroll
      for (int kind = 0; kind < KINDS; ++kind)
#pragma unroll
        for (int p = 0; p < PACKS; ++p) {
          const Quad u = read_quad(x + kind * dfrom + p * (LANES / 2));
#pragma unroll
          for (int y = 0; y < CHANNELS; ++y)
#pragma unroll
            for (int l = 0; l < 4; ++l) z[kind][y][p][l] += factor[y] * u.at[l];
        }
      x += LANE_ROW;
      w += padded;
    }
#pragma unroll
    for (int y = 0; y < CHANNELS; ++y) {
      const int c = c0 + y;
      if (c >= out) break;  // the padding of the matrix
      const real bias = net.weights[layer[4] + c], idt = idt_at >= 0 ? net.weights[idt_at + c] : real(1);
      const int own = (c < in ? c : c - in) * LANE_ROW + lane;
#pragma unroll
      for (int p = 0; p < PACKS; ++p) {
        Quad value, slope;
#pragma unroll
        for (int l = 0; l < 4; ++l) {
          activate(z[0][y][p][l] + bias, value.at[l], slope.at[l]);
          value.at[l] *= idt;
          if (tangent) slope.at[l] *= idt * z[KINDS - 1][y][p][l];
        }
        if (skip != 0) {
          const Quad u = read_quad(from + own + p * (LANES / 2));
          for (int l = 0; l < 4; ++l) value.at[l] += u.at[l];
          if (tangent) {
            const Quad du = read_quad(from + own + dfrom + p * (LANES / 2));
            for (int l = 0; l < 4; ++l) slope.at[l] += du.at[l];
          }
        }
        real* const at = to + c * LANE_ROW + lane + p * (LANES / 2);
        write_quad(at, value);
        if (tangent) write_quad(at + dto, slope);
      }
    }
  }
}

/// net(s[lane], row[lane]) of all lanes; work: cuda::embedding_numbers. Begins and ends with all threads at one place.
template <bool tangent>
__device__ __forceinline__ Embedded embed(const cuda::EmbeddingNetArgs<real>& net, const real* s, const int* row, real* work) {
#ifdef TABLE
  return look_up<tangent>(net, s, row, work);
#else
  // Offsets, not pointers: the compiler must see where every load goes.
  int from = 0, to = (tangent ? 2 : 1) * net.even * LANE_ROW, dfrom = net.even * LANE_ROW, dto = net.odd * LANE_ROW;
  __syncthreads();
  embed_first<tangent>(net, s, row, work, dfrom, LANES, LANE_ROW, threadIdx.x, cuda::embedding_threads);
  __syncthreads();
  for (int l = 1; l < net.layers; ++l) {
    embed_layer<tangent>(net, net.layout + cuda::embedding_layer * l, work + from, dfrom, work + to, dto);
    __syncthreads();
    exchange(from, to);
    exchange(dfrom, dto);
  }
  return {work + from, work + from + dfrom};
#endif
}

/// The sums over the threads that have the same four lanes, t % QUADS, of v[n]: sum n of lane e at sums[n * LANES + e], where there is
/// room for cuda::embedding_parts times as much. Begins without and ends with all threads at one place.
template <int N>
__device__ __forceinline__ void sum_lanes(real (&v)[N][4], real* sums) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32 * 4;
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int l = 0; l < 4; ++l)
#pragma unroll
      for (int step = 16; step >= QUADS; step /= 2) v[n][l] += __shfl_xor_sync(FULL_MASK, v[n][l], step);
  if (warp > 0 && lane < LANES)
#pragma unroll
    for (int n = 0; n < N; ++n) write_quad(sums + ((warp - 1) * N + n) * LANES + lane, {{v[n][0], v[n][1], v[n][2], v[n][3]}});
  __syncthreads();
  if (warp == 0 && lane < LANES)
#pragma unroll
    for (int n = 0; n < N; ++n) {
      Quad sum = {{v[n][0], v[n][1], v[n][2], v[n][3]}};
#pragma unroll
      for (int part = 0; part < cuda::embedding_parts; ++part) {
        const Quad other = read_quad(sums + (part * N + n) * LANES + lane);
        for (int l = 0; l < 4; ++l) sum.at[l] += other.at[l];
      }
      write_quad(sums + n * LANES + lane, sum);
    }
  __syncthreads();
}

}  // namespace dpa2
