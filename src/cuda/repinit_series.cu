// Repinit with its network as series (theory 5, S6): moments of the edges of an interval from sums over few terms. A warp has a centre.
// Edges outside of the range of the series go through the network, those of a tile together.
#include "cuda/repinit_tile.cuh"

using namespace dpa2;

namespace {

constexpr int PART = cuda::repinit_series_part(sizeof(real)), ROW = cuda::repinit_series_row(sizeof(real));
constexpr int SUMS = cuda::repinit_series_run(false, gated, sizeof(real)), TOGETHER = cuda::repinit_series_runs(false, sizeof(real));
static_assert(PART <= 32 && K <= 32, "a lane has an edge, or a term");

/// Where the four moments of a channel are: lanes with four channels each, and lanes with one, fall on different banks.
__device__ __forceinline__ int place_of(int c) { return 4 * (c ^ (c >> 3 & 3)); }

/// Chebyshev polynomials of the edges `begin`... of a tile, ROW numbers from an edge to the next.
__device__ __forceinline__ void write_terms(const Tile& tile, int begin, real* terms) {
  const int lane = threadIdx.x % 32, p = begin + lane;
  __syncwarp(FULL_MASK);  // those before have been used
  if (lane < PART && p < tile.count) {
    const real x = tile.x[p], twice = x + x;
    real t0 = 1, t1 = x;
#pragma unroll
    for (int k = 0; k < K; k += 4) {
      Quad four;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        four.at[n] = t0;
        const real t2 = twice * t1 - t0;
        t0 = t1;
        t1 = t2;
      }
      write_quad(terms + lane * ROW + k, four);
    }
  }
  __syncwarp(FULL_MASK);
}

/// moments += the sums of some runs times the coefficients of their intervals. A lane has four channels.
__device__ __forceinline__ void add_product(const cuda::SeriesArgs<real>& series, const Tile& tile, int first_run, int runs,
                                            const real* sums, real* moments) {
  for (int c = 4 * (threadIdx.x % 32); c < series.nc; c += 128) {
    real total[4][4];
#pragma unroll
    for (int y = 0; y < 4; ++y) load4(total[y], moments + place_of(c + y));
    for (int n = 0; n < runs; ++n) {
      const int p = tile.first[first_run + n];
      const real* a = row_of(series.a, tile.interval[p], K * series.nc) + c;
      const real* b = sums + n * SUMS;
      real with_gate[4][4] = {};
#pragma unroll 4
      for (int k = 0; k < K; ++k) {
        const Quad factor = read_quad(a), sum = read_quad(b + 4 * KINDS * k);
#pragma unroll
        for (int y = 0; y < 4; ++y)
#pragma unroll
          for (int x = 0; x < 4; ++x) total[y][x] += factor.at[y] * sum.at[x];
        if constexpr (gated) {
          const Quad other = read_quad(b + 4 * KINDS * k + 4);
#pragma unroll
          for (int y = 0; y < 4; ++y)
#pragma unroll
            for (int x = 0; x < 4; ++x) with_gate[y][x] += factor.at[y] * other.at[x];
        }
        a += series.nc;
      }
      if constexpr (gated) {
        const Quad gate = read_quad(row_of(series.gate, tile.combination[p], series.nc) + c);
#pragma unroll
        for (int y = 0; y < 4; ++y)
#pragma unroll
          for (int x = 0; x < 4; ++x) total[y][x] += gate.at[y] * with_gate[y][x];
      }
    }
#pragma unroll
    for (int y = 0; y < 4; ++y) store4(moments + place_of(c + y), total[y]);
  }
}

/// moments += those of a tile.
__device__ __forceinline__ void add_moments(const cuda::SeriesArgs<real>& series, const Tile& tile, real* terms, real* sums,
                                            real* moments) {
  constexpr int SHARES = 32 / K;  // lanes of a term: each has every so many edges
  const int lane = threadIdx.x % 32, k = lane % K, share = lane / K;
  real sum[KINDS][4] = {};
  int p = 0, run = 0, full = 0;
  for (int begin = 0; begin < tile.count; begin += PART) {
    write_terms(tile, begin, terms);
    const int end = min(begin + PART, tile.count);
    while (p < end) {
      const int behind = tile.first[run + 1], stop = min(behind, end);
      if (share < SHARES)
        for (int e = p + share; e < stop; e += SHARES) {
          const real term = terms[(e - begin) * ROW + k];
          const Quad R = read_quad(tile.R + 4 * e);
#pragma unroll
          for (int x = 0; x < 4; ++x) sum[0][x] += R.at[x] * term;
          if constexpr (gated) {
            const real weighted = term * tile.weight[e];
#pragma unroll
            for (int x = 0; x < 4; ++x) sum[KINDS - 1][x] += R.at[x] * weighted;
          }
        }
      p = stop;
      if (stop < behind) continue;
#pragma unroll
      for (int kind = 0; kind < KINDS; ++kind) {
        if constexpr (SHARES == 2)
#pragma unroll
          for (int x = 0; x < 4; ++x) sum[kind][x] += __shfl_xor_sync(FULL_MASK, sum[kind][x], 16);
        if (lane < K) store4(sums + full * SUMS + 4 * (KINDS * k + kind), sum[kind]);
#pragma unroll
        for (int x = 0; x < 4; ++x) sum[kind][x] = real(0);
      }
      ++run;
      if (++full == TOGETHER || run == tile.runs) {
        __syncwarp(FULL_MASK);
        add_product(series, tile, run - full, full, sums, moments);
        __syncwarp(FULL_MASK);
        full = 0;
      }
    }
  }
}

/// The Gram matrix of the moments, a row of ng * axis numbers.
__device__ __forceinline__ void write_gram(int ng, int axis, bool vectors, const real* moments, real* D) {
  const int each = vectors ? 4 : 1, columns = axis / each, total = ng * columns;
  int c = threadIdx.x % 32 / columns, k = threadIdx.x % 32 % columns;
  for (int t = threadIdx.x % 32; t < total; t += 32) {
    const Quad own = read_quad(moments + place_of(c));
    Quad sums = {};
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      if (n >= each) break;
      const Quad other = read_quad(moments + place_of(each * k + n));
#pragma unroll
      for (int x = 0; x < 4; ++x) sums.at[n] += own.at[x] * other.at[x];
    }
    if (vectors)
      write_quad(D + 4 * t, sums);
    else
      D[t] = sums.at[0];
    c += 32 / columns;
    k += 32 % columns;
    if (k >= columns) {
      k -= columns;
      ++c;
    }
  }
}

/// moments += those of the edges of a tile that are outside of the range, by the network.
__device__ __forceinline__ void add_outside(const cuda::RepinitSeriesArgs<real>& args, Tile& tile, int begin, int type, real* work,
                                            real* moments) {
  const cuda::RepinitArgs<real>& a = args.block;
  const int each = cuda::embedding_each(a.net.even, a.net.odd, false);
  const int scalars = cuda::embedding_scalars(cuda::repinit_series_work(each, false, gated, sizeof(real)), each);
  tile.keep_outside(args, begin, type);
  for (int first = 0; first < tile.count; first += scalars) {
    const int count = min(scalars, tile.count - first);
    const Embedded G = embed_in_warp<false>(a.net, count, tile.x + first, tile.combination + first, work);
#pragma unroll 1
    for (int c = threadIdx.x % 32; c < a.ng; c += 32) {
      Quad sum = read_quad(moments + place_of(c));
#pragma unroll 1
      for (int e = 0; e < count; ++e) {
        real g = G.value[c * count + e];
        if constexpr (gated)
          g *= real(1) + row_of(args.series.gate, tile.combination[first + e], args.series.nc)[c] * tile.weight[first + e];
        const Quad R = read_quad(tile.R + 4 * (first + e));
        for (int x = 0; x < 4; ++x) sum.at[x] += R.at[x] * g;
      }
      write_quad(moments + place_of(c), sum);
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS) repinit_series(const cuda::RepinitSeriesArgs<real> args) {
  DYNAMIC_SHARED(real, shared);
  const cuda::RepinitArgs<real>& a = args.block;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, nc = args.series.nc;
  const int each = cuda::embedding_each(a.net.even, a.net.odd, false);
  const int numbers = static_cast<int>(cuda::repinit_series_numbers(nc, each, false, gated, sizeof(real)));
  real* const moments = behind(shared, warp * numbers);
  real* const sums = moments + 4 * nc;
  real* const terms = sums + TOGETHER * SUMS;
  Tile tile(behind(sums, cuda::repinit_series_work(each, false, gated, sizeof(real))),
            reinterpret_cast<int*>(shared + WARPS * numbers) + warp * cuda::repinit_series_integers(sizeof(real)));
  for (int i = blockIdx.x * WARPS + warp; i < a.centres; i += gridDim.x * WARPS) {
    const int type = a.types[i], end = a.start[i + 1];
    __syncwarp(FULL_MASK);  // the moments of the centre before have been used
    for (int c = lane; c < nc; c += 32) write_quad(moments + place_of(c), {});
    for (int first = a.start[i]; first < end; first += TILE) {
      const bool inside = tile.load(args, first, end, type);
      add_moments(args.series, tile, terms, sums, moments);
      if (!inside) add_outside(args, tile, first, type, sums, moments);
    }
    __syncwarp(FULL_MASK);
    for (int c = lane; c < a.ng; c += 32) {
      Quad m = read_quad(moments + place_of(c));
      for (int x = 0; x < 4; ++x) m.at[x] *= a.inv_nsel;
      if (a.pad_G != nullptr) {
        const int slot = a.pad_types[i / a.per_frame] * a.ntypes + type;
        const real factor = real(a.pad[i]) * a.inv_nsel * row_of(a.pad_G, slot, a.ng)[c];
        for (int x = 0; x < 4; ++x) m.at[x] += factor * a.pad_R[4 * type + x];
      }
      write_quad(moments + place_of(c), m);
      if (a.M != nullptr) write_quad(row_of(a.M, i, 4 * a.ng) + 4 * c, m);
    }
    __syncwarp(FULL_MASK);
    write_gram(a.ng, a.axis, a.axis % 4 == 0 && a.d_width % 4 == 0, moments, row_of(a.D, i, a.d_width));
  }
}

namespace {

/// dM (nc, 4) = the gradient of the sums over the edges, from that of the Gram matrix: dM_c = sum_k dD_ck M_k, and for c < axis
/// + sum_k dD_kc M_k. Zero beyond ng.
__device__ __forceinline__ void moments_gradient(const cuda::RepinitBackwardArgs<real>& a, int nc, int i, real* dM) {
  const int lane = threadIdx.x % 32, ng = a.ng, axis = a.axis;
  const real* const dD = row_of(a.dD, i, a.d_width);
  const real* const M = row_of(a.M, i, 4 * ng);
  const bool vectors = axis % 4 == 0 && a.d_width % 4 == 0;
  for (int c = lane; c < nc; c += 32) {
    Quad sum = {};
    if (c < ng && vectors)
      for (int k = 0; k < axis; k += 4) {
        const Quad d = read_quad(dD + c * axis + k);
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const Quad m = read_quad(M + 4 * (k + n));
#pragma unroll
          for (int x = 0; x < 4; ++x) sum.at[x] += d.at[n] * m.at[x];
        }
      }
    else if (c < ng)
      for (int k = 0; k < axis; ++k) {
        const Quad m = read_quad(M + 4 * k);
        for (int x = 0; x < 4; ++x) sum.at[x] += dD[c * axis + k] * m.at[x];
      }
    for (int x = 0; x < 4; ++x) sum.at[x] *= a.inv_nsel;
    write_quad(dM + place_of(c), sum);
  }
  __syncwarp(FULL_MASK);
  int lanes = 1;  // of neighbouring columns; the others share the rows
  while (lanes < axis && lanes < 32) lanes *= 2;
  for (int c0 = 0; c0 < axis; c0 += lanes) {
    const int c = c0 + lane % lanes;
    Quad sum = {};
    if (c < axis)
      for (int k = lane / lanes; k < ng; k += 32 / lanes) {
        const Quad m = read_quad(M + 4 * k);
        const real d = dD[k * axis + c];
#pragma unroll
        for (int x = 0; x < 4; ++x) sum.at[x] += d * m.at[x];
      }
    for (int step = lanes; step < 32; step *= 2)
      for (int x = 0; x < 4; ++x) sum.at[x] += __shfl_xor_sync(FULL_MASK, sum.at[x], step);
    if (c < axis && lane < lanes) {
      Quad first = read_quad(dM + place_of(c));
      for (int x = 0; x < 4; ++x) first.at[x] += sum.at[x] * a.inv_nsel;
      write_quad(dM + place_of(c), first);
    }
  }
  __syncwarp(FULL_MASK);
}

/// The gradients of a run's sums: dB (terms, 4) = sum_c dM_c a_c, with `gate` that of a run's combination of types also over dM_c gate_c.
/// A lane has a fourth of the terms and every eighth channel.
__device__ __forceinline__ void write_gradients(int nc, const real* at, const real* gate, const real* dM, real* dB) {
  constexpr int TERMS = K / 4;
  const int lane = threadIdx.x % 32, quarter = lane % 4, share = lane / 4;
  real sum[4 * TERMS] = {};
  const real* from = at + share * K + quarter * TERMS;
#pragma unroll 2
  for (int c = share; c < nc; c += 8) {
    real factor[TERMS];
#pragma unroll
    for (int k = 0; k < TERMS; k += TERMS % 4 == 0 ? 4 : 2) {
      if constexpr (TERMS % 4 == 0)
        load4(factor + k, from + k);
      else
        load2(factor + k, from + k);
    }
    Quad m = read_quad(dM + place_of(c));
    if (gate != nullptr)
      for (int x = 0; x < 4; ++x) m.at[x] *= gate[c];
#pragma unroll
    for (int k = 0; k < TERMS; ++k)
#pragma unroll
      for (int x = 0; x < 4; ++x) sum[4 * k + x] += factor[k] * m.at[x];
    from += 8 * K;
  }
  scatter_sums<4 * TERMS>(sum);
#pragma unroll
  for (int n = 0; n < TERMS / 2; ++n) dB[4 * TERMS * quarter + share * (TERMS / 2) + n] = sum[n];
}

/// The gradients of the edges of a tile that are outside of the range, by the network, in place of what is there.
__device__ __forceinline__ void write_outside(const cuda::RepinitSeriesBackwardArgs<real>& args, Tile& tile, int begin, int type,
                                              const real* dM, real* work) {
  const cuda::RepinitBackwardArgs<real>& a = args.block;
  const int each = cuda::embedding_each(a.net.even, a.net.odd, true);
  const int scalars = cuda::embedding_scalars(cuda::repinit_series_work(each, true, gated, sizeof(real)), each);
  tile.keep_outside(args, begin, type);
  for (int first = 0; first < tile.count; first += scalars) {
    const int count = min(scalars, tile.count - first);
    const Embedded G = embed_in_warp<true>(a.net, count, tile.x + first, tile.combination + first, work);
    for (int n = 0; n < count; ++n) {
      const Quad R = read_quad(tile.R + 4 * (first + n));
      real dR[4] = {}, dweight = 0;
      for (int c = threadIdx.x % 32; c < a.ng; c += 32) {
        const Quad m = read_quad(dM + place_of(c));
        real value = G.value[c * count + n], slope = G.tangent[c * count + n], along = 0;
        for (int x = 0; x < 4; ++x) along += R.at[x] * m.at[x];
        if constexpr (gated) {
          const real gate = row_of(args.series.gate, tile.combination[first + n], args.series.nc)[c];
          const real factor = real(1) + gate * tile.weight[first + n];
          dweight += along * value * gate;
          value *= factor;
          slope *= factor;
        }
        for (int x = 0; x < 4; ++x) dR[x] += m.at[x] * value;
        dR[0] += along * slope;
      }
      for (int x = 0; x < 4; ++x) dR[x] = warp_sum(dR[x]);
      dweight = gated && args.series.gate_switch != 0 ? warp_sum(dweight) : real(0);
      if (threadIdx.x % 32 != 0) continue;
      const int e = begin + tile.edge[first + n];
      real g[3] = {};
      environment_backward(a.statistics, Edge(a.d, a.r, e), type, dR, dweight, g);
      for (int x = 0; x < 3; ++x) a.gamma[3LL * e + x] = g[x];
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS) repinit_series_backward(const cuda::RepinitSeriesBackwardArgs<real> args) {
  DYNAMIC_SHARED(real, shared);
  const cuda::RepinitBackwardArgs<real>& a = args.block;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, nc = args.series.nc;
  constexpr int RUN = cuda::repinit_series_run(true, gated, sizeof(real)), RUNS = cuda::repinit_series_runs(true, sizeof(real));
  const int each = cuda::embedding_each(a.net.even, a.net.odd, true);
  const int numbers = static_cast<int>(cuda::repinit_series_numbers(nc, each, true, gated, sizeof(real)));
  real* const dM = behind(shared, warp * numbers);
  real* const dB = dM + 4 * nc;
  Tile tile(behind(dB, cuda::repinit_series_work(each, true, gated, sizeof(real))),
            reinterpret_cast<int*>(shared + WARPS * numbers) + warp * cuda::repinit_series_integers(sizeof(real)));
  for (int i = blockIdx.x * WARPS + warp; i < a.centres; i += gridDim.x * WARPS) {
    const int type = a.types[i], end = a.start[i + 1];
    __syncwarp(FULL_MASK);  // dM of the centre before has been used
    moments_gradient(a, nc, i, dM);
    for (int begin = a.start[i]; begin < end; begin += TILE) {
      const bool inside = tile.load(args, begin, end, type);
      for (int first_run = 0; first_run < tile.runs; first_run += RUNS) {
        const int runs = min(RUNS, tile.runs - first_run);
        __syncwarp(FULL_MASK);  // the runs before have been used
        for (int n = 0; n < runs; ++n) {
          const int p = tile.first[first_run + n];
          const real* const at = row_of(args.series.at, tile.interval[p], K * nc);
          write_gradients(nc, at, nullptr, dM, dB + n * RUN);
          if constexpr (gated) write_gradients(nc, at, row_of(args.series.gate, tile.combination[p], nc), dM, dB + n * RUN + 4 * K);
        }
        __syncwarp(FULL_MASK);
        for (int p = tile.first[first_run] + lane; p < tile.first[first_run + runs]; p += 32) {
          const real* const b = dB + (tile.run[p] - first_run) * RUN;
          const Quad R = read_quad(tile.R + 4 * p);
          const real x = tile.x[p], twice = x + x, weight = gated ? tile.weight[p] : real(0);
          real dR[4] = {}, along = 0, dweight = 0;
          real t0 = 1, t1 = x, slope0 = 0, slope1 = 1;  // of a term and the next, and their derivatives
#pragma unroll 4
          for (int k = 0; k < K; ++k) {
            Quad d = read_quad(b + 4 * k);
            if constexpr (gated) {
              const Quad other = read_quad(b + 4 * K + 4 * k);
              real through = 0;
#pragma unroll
              for (int y = 0; y < 4; ++y) {
                through += R.at[y] * other.at[y];
                d.at[y] += weight * other.at[y];
              }
              dweight += through * t0;
            }
            real sum = 0;
#pragma unroll
            for (int y = 0; y < 4; ++y) {
              dR[y] += d.at[y] * t0;
              sum += d.at[y] * R.at[y];
            }
            along += sum * slope0;
            const real t2 = twice * t1 - t0, slope2 = twice * slope1 + (real(2) * t1 - slope0);
            t0 = t1;
            t1 = t2;
            slope0 = slope1;
            slope1 = slope2;
          }
          dR[0] += along * args.series.place[cuda::series_place * tile.interval[p] + 2];
          const int e = begin + tile.edge[p];
          real g[3] = {};
          environment_backward(a.statistics, Edge(a.d, a.r, e), type, dR, gated && args.series.gate_switch != 0 ? dweight : real(0), g);
          for (int y = 0; y < 3; ++y) a.gamma[3LL * e + y] = g[y];
        }
      }
      if (!inside) write_outside(args, tile, begin, type, dM, dB);
    }
  }
}
