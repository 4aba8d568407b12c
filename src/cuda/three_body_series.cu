// The three-body block with its network as series (theory 6, S5, S6). A warp has a centre, over the unordered pairs of its neighbours; the
// padded slots are one more neighbour, behind the edges, that counts `multiplicity` times.
#include "cuda/three_body_pairs.cuh"

using namespace dpa2;

namespace {

constexpr int PART = cuda::three_body_part(sizeof(real)), ROW = cuda::three_body_terms_row(sizeof(real));
constexpr int SHARES = cuda::three_body_shares(sizeof(real)), GROUP = cuda::three_body_group_row(gated, sizeof(real));
static_assert(K <= 32 && PART <= 32, "a lane has a term, or a pair");

/// channels += the sums of some groups times the coefficients.
template <class Args>
__device__ __forceinline__ void add_channels(const Args& a, const Environment& env, int groups, const real* sums) {
  const int lane = threadIdx.x % 32;
  for (int c = 0; c < a.series.nc; c += 4) {
    Quad total = {};
    for (int t = lane; t < groups * K; t += 32) {
      const int s = t / K;
      const Quad factor = read_quad(row_of(a.series.a, env.interval_of_slot(s) * K + t % K, a.series.nc) + c);
      real sum[KINDS] = {};
#pragma unroll
      for (int kind = 0; kind < KINDS; ++kind)
#pragma unroll
        for (int share = 0; share < SHARES; ++share) sum[kind] += sums[((s * KINDS + kind) * SHARES + share) * K + t % K];
#pragma unroll
      for (int y = 0; y < 4; ++y) total.at[y] += factor.at[y] * sum[0];
      if constexpr (gated) {
        const Quad gate = read_quad(env.gate_of_slot(a, s) + c);
#pragma unroll
        for (int y = 0; y < 4; ++y) total.at[y] += gate.at[y] * factor.at[y] * sum[KINDS - 1];
      }
    }
    for (int y = 0; y < 4; ++y) {
      const real sum = warp_sum(total.at[y]);
      if (lane == y) env.channels[c + y] += sum;
    }
  }
}

/// sums (SLOTS, KINDS, SHARES, K) = those of all pairs in the groups `begin`...: pairs by lanes as their terms are made, terms by lanes as
/// they are added.
template <class Args>
__device__ __forceinline__ void add_pairs(const Args& a, const Environment& env, int begin, real* terms, real* sums) {
  const int lane = threadIdx.x % 32, k_of_lane = lane % K, share = lane / K;
  for (int t = lane; t < SLOTS * KINDS * SHARES * K; t += 32) sums[t] = real(0);
  if (env.m == 0) return;
  Pair pair(lane, env.m);
  for (int first = 0; first < env.pairs; first += 32) {
    real x = 0, f = 0, ss = 0;
    int slot = -1;
    if (first + lane < env.pairs) {
      const int j = pair.j, k = pair.k();
      const Quad vj = read_quad(env.v + 4 * j), vk = read_quad(env.v + 4 * k);
      const real e = Environment::product(vj, vk);
      bool inside;
      real slope;
      const int interval = env.interval(a, e, j, k, inside), found = env.slot(env.key(interval, j, k, inside)) - begin;
      x = argument(a.series, interval, e, slope);
      f = env.weight(j, k) * e;
      ss = a.series.gate_switch != 0 ? vj.at[3] * vk.at[3] : real(1);
      if (found >= 0 && found < SLOTS && inside) slot = found;
    }
    pair.next();
    for (int part = 0; part < 32 && first + part < env.pairs; part += PART) {
      __syncwarp(FULL_MASK);  // the terms before have been used
      env.slots[lane] = slot;
      if (lane >= part && lane < part + PART) {
        const real twice = x + x;
        real t0 = f, t1 = f * x;
        real* const to = terms + (lane - part) * ROW;
#pragma unroll
        for (int k = 0; k < K; k += 4) {
          Quad four;
#pragma unroll
          for (int y = 0; y < 4; ++y) {
            four.at[y] = t0;
            const real t2 = twice * t1 - t0;
            t0 = t1;
            t1 = t2;
          }
          write_quad(to + k, four);
        }
        if (gated) to[K] = ss;
      }
      __syncwarp(FULL_MASK);
      const int count = min(PART, env.pairs - first - part);
      if (share < SHARES)
        for (int t = 0; t < PART / SHARES; ++t) {
          const int p = SHARES == 2 ? t / 4 * 8 + share * 4 + t % 4 : t;  // rows that fall on different banks
          const int s = p < count ? env.slots[part + p] : -1;
          if (s < 0) continue;
          real* const sum = sums + (s * KINDS * SHARES + share) * K + k_of_lane;
          const real term = terms[p * ROW + k_of_lane];
          sum[0] += term;
          if constexpr (gated) sum[SHARES * K] += term * terms[p * ROW + K];
        }
    }
  }
  __syncwarp(FULL_MASK);
}

/// channels += those of the pairs that are in no group, by the network.
__device__ __forceinline__ void add_others(const cuda::ThreeBodySeriesArgs<real>& a, const Environment& env, real* numbers) {
  Others others(a, env, false, numbers);
  for (int first = 0; first < env.pairs; first += 32) {
    others.load(a, env, first, env.pairs);
    for (int order = 0; order < others.orders; ++order) {
      if (order > 0) others.turn(a.block.ntypes);
      for (int begin = 0; begin < others.count; begin += others.scalars) {
        const int count = min(others.scalars, others.count - begin);
        const Embedded H = embed_in_warp<false>(a.block.net, count, others.e + begin, others.row + begin, others.work);
        for (int c = threadIdx.x % 32; c < a.block.n3; c += 32) {
          real sum = 0;
          for (int n = 0; n < count; ++n) {
            real h = H.value[c * count + n];
            if constexpr (gated) h *= real(1) + row_of(a.series.gate, others.row[begin + n], a.series.nc)[c] * others.ss[begin + n];
            sum += others.weight[begin + n] * others.e[begin + n] * h;
          }
          env.channels[c] += sum;
        }
      }
    }
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS) three_body_series(const cuda::ThreeBodySeriesArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int each = cuda::embedding_each(a.block.net.even, a.block.net.odd, false);
  const int numbers = static_cast<int>(cuda::three_body_series_numbers(a.room, a.series.nc, each, false, gated, sizeof(real)));
  real* const own = behind(shared, warp * numbers);
  int* const integers = reinterpret_cast<int*>(behind(shared, WARPS * numbers)) + warp * cuda::three_body_series_integers(a.room, a.words);
  Environment env(own, integers, a.room, a.words);
  real* const terms = env.channels + a.series.nc;
  real* const sums = terms + PART * ROW;
  for (int i = blockIdx.x * WARPS + warp; i < a.block.centres; i += gridDim.x * WARPS) {
    env.load(a, i);
    for (int c = lane; c < a.series.nc; c += 32) env.channels[c] = real(0);
    for (int begin = 0; begin < env.groups; begin += SLOTS) {
      env.list_groups(a, begin);
      add_pairs(a, env, begin, terms, sums);
      add_channels(a, env, min(SLOTS, env.groups - begin), sums);
    }
    __syncwarp(FULL_MASK);
    if (!env.all_in_groups) {
      add_others(a, env, terms);
      __syncwarp(FULL_MASK);
    }
    for (int c = lane; c < a.block.n3; c += 32)
      row_of(a.block.D, i, a.block.d_width)[a.block.offset + c] = env.channels[c] * a.block.inv_nsel_squared;
  }
}

namespace {

/// gradients (SLOTS, GROUP): those of the sums of the groups, given that of the channels; with a gate two rows of terms.
__device__ __forceinline__ void write_gradients(const cuda::ThreeBodySeriesBackwardArgs<real>& a, const Environment& env, int groups,
                                                real* gradients) {
  for (int t = threadIdx.x % 32; t < groups * K; t += 32) {
    const int s = t / K;
    const real* const from = row_of(a.series.a, env.interval_of_slot(s) * K + t % K, a.series.nc);
    const real* const gate = gated ? env.gate_of_slot(a, s) : nullptr;
    real sum[KINDS] = {};
    for (int c = 0; c < a.series.nc; c += 4) {
      const Quad factor = read_quad(from + c), given = read_quad(env.channels + c);
#pragma unroll
      for (int y = 0; y < 4; ++y) sum[0] += factor.at[y] * given.at[y];
      if constexpr (gated) {
        const Quad g = read_quad(gate + c);
#pragma unroll
        for (int y = 0; y < 4; ++y) sum[KINDS - 1] += factor.at[y] * given.at[y] * g.at[y];
      }
    }
#pragma unroll
    for (int kind = 0; kind < KINDS; ++kind) gradients[s * GROUP + kind * K + t % K] = sum[kind];
  }
  __syncwarp(FULL_MASK);
}

/// The gradients of e, and of the product of the switches, of the pairs `first`..`end` in the groups `begin`...; zero in others.
__device__ __forceinline__ void write_pairs(const cuda::ThreeBodySeriesBackwardArgs<real>& a, const Environment& env, int begin, int first,
                                            int end, const real* gradients, real* de, real* dss) {
  const int lane = threadIdx.x % 32;
  Pair pair(first + lane, env.m);
  for (int p = first + lane; p < end; p += 32) {
    const int j = pair.j, k = pair.k();
    const Quad vj = read_quad(env.v + 4 * j), vk = read_quad(env.v + 4 * k);
    const real e = Environment::product(vj, vk), ss = a.series.gate_switch != 0 ? vj.at[3] * vk.at[3] : real(1);
    bool inside;
    const int interval = env.interval(a, e, j, k, inside), slot = env.slot(env.key(interval, j, k, inside)) - begin;
    real of_e = 0, of_ss = 0;
    if (slot >= 0 && slot < SLOTS && inside) {
      real inv_half;
      const real x = argument(a.series, interval, e, inv_half), twice = x + x;
      const real* const d = gradients + slot * GROUP;
      real value = 0, slope = 0, gate_value = 0;
      real t0 = 1, t1 = x, slope0 = 0, slope1 = 1;  // of a term and the next, and their derivatives
#pragma unroll
      for (int n = 0; n < K; ++n) {
        real factor = d[n];
        if constexpr (gated) {
          const real other = d[K + n];
          gate_value += other * t0;
          factor += other * ss;
        }
        value += factor * t0;
        slope += factor * slope0;
        const real t2 = twice * t1 - t0, slope2 = twice * slope1 + (real(2) * t1 - slope0);
        t0 = t1;
        t1 = t2;
        slope0 = slope1;
        slope1 = slope2;
      }
      const real weight = env.weight(j, k);
      of_e = weight * (value + e * inv_half * slope);
      if (gated && a.series.gate_switch != 0) of_ss = weight * e * gate_value;
    }
    de[p - first] = of_e;
    if (gated) dss[p - first] = of_ss;
    pair.next();
  }
  __syncwarp(FULL_MASK);
}

/// sums (m, 4) += what these pairs give to either neighbour: gradients of its vector and its switch.
__device__ __forceinline__ void add_to_neighbours(const Environment& env, int first, int end, const real* de, const real* dss, real* sums) {
  const int m = env.m;
  for (int j = threadIdx.x % 32; j < m; j += 32) {
    Quad sum = read_quad(sums + 4 * j);
    for (int row = first; row < end; row += m) {
      const int o = row / m, ahead = j + o < m ? j + o : j + o - m, behind = j >= o ? j - o : j - o + m;
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const int at = row + (side == 0 ? j : behind), other = side == 0 ? ahead : behind;
        if (at >= end) continue;
        const Quad v = read_quad(env.v + 4 * other);
        const real given = de[at - first];
#pragma unroll
        for (int x = 0; x < 3; ++x) sum.at[x] += given * v.at[x];
        if (gated) sum.at[3] += dss[at - first] * v.at[3];
      }
    }
    write_quad(sums + 4 * j, sum);
  }
  __syncwarp(FULL_MASK);
}

/// Their gradients of the pairs `first`..`end` that are in no group, by the network; zero in others.
__device__ __forceinline__ void write_others(const cuda::ThreeBodySeriesBackwardArgs<real>& a, const Environment& env, int first, int end,
                                             real* numbers, real* de, real* dss) {
  Others others(a, env, true, numbers);
  const int lane = threadIdx.x % 32;
  for (int p = lane; p < end - first; p += 32) {
    de[p] = real(0);
    if (gated) dss[p] = real(0);
  }
  for (int from = first; from < end; from += 32) {
    others.load(a, env, from, end);
    for (int order = 0; order < others.orders; ++order) {
      if (order > 0) others.turn(a.block.ntypes);
      for (int begin = 0; begin < others.count; begin += others.scalars) {
        const int count = min(others.scalars, others.count - begin);
        const Embedded H = embed_in_warp<true>(a.block.net, count, others.e + begin, others.row + begin, others.work);
#pragma unroll 1
        for (int n = 0; n < count; ++n) {
          const real ss = others.ss[begin + n];
          real value = 0, slope = 0, gate_value = 0;
#pragma unroll 1
          for (int c = lane; c < a.block.n3; c += 32) {
            const real given = env.channels[c], h = H.value[c * count + n];
            real factor = given;
            if constexpr (gated) {
              const real gate = row_of(a.series.gate, others.row[begin + n], a.series.nc)[c];
              factor *= real(1) + gate * ss;
              gate_value += given * h * gate;
            }
            value += factor * h;
            slope += factor * H.tangent[c * count + n];
          }
          value = warp_sum(value);
          slope = warp_sum(slope);
          if (gated) gate_value = warp_sum(gate_value);
          if (lane != 0) continue;
          const int at = others.place[begin + n] - first;
          const real e = others.e[begin + n], weight = others.weight[begin + n];
          de[at] += weight * (value + e * slope);
          if (gated && a.series.gate_switch != 0) dss[at] += weight * e * gate_value;
        }
      }
    }
  }
  __syncwarp(FULL_MASK);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(32 * WARPS, sizeof(real) == 8 && IN_DOUBLE == 12 ? 16 / WARPS : BLOCKS)
    three_body_series_backward(const cuda::ThreeBodySeriesBackwardArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int each = cuda::embedding_each(a.block.net.even, a.block.net.odd, true);
  const int numbers = static_cast<int>(cuda::three_body_series_numbers(a.room, a.series.nc, each, true, gated, sizeof(real)));
  const int room = cuda::three_body_band(a.room);
  real* const own = behind(shared, warp * numbers);
  int* const integers = reinterpret_cast<int*>(behind(shared, WARPS * numbers)) + warp * cuda::three_body_series_integers(a.room, a.words);
  Environment env(own, integers, a.room, a.words);
  real* const sums = env.channels + a.series.nc;
  real* const de = sums + 4 * a.room;
  real* const dss = de + (gated ? room : 0);
  real* const gradients = de + KINDS * room;
  for (int i = blockIdx.x * WARPS + warp; i < a.block.centres; i += gridDim.x * WARPS) {
    env.load(a, i);
    if (env.m == 0) continue;
    for (int c = lane; c < a.series.nc; c += 32)
      env.channels[c] = c < a.block.n3 ? row_of(a.block.dD, i, a.block.d_width)[a.block.offset + c] * a.block.inv_nsel_squared : real(0);
    for (int k = lane; k < env.m; k += 32) write_quad(sums + 4 * k, {});
    const int band = room / env.m * env.m;
    for (int begin = 0; begin < env.groups; begin += SLOTS) {
      env.list_groups(a, begin);
      write_gradients(a, env, min(SLOTS, env.groups - begin), gradients);
      for (int first = 0; first < env.pairs; first += band) {
        const int end = min(first + band, env.pairs);
        write_pairs(a, env, begin, first, end, gradients, de, dss);
        add_to_neighbours(env, first, end, de, dss, sums);
      }
    }
    if (!env.all_in_groups)
      for (int first = 0; first < env.pairs; first += band) {
        const int end = min(first + band, env.pairs);
        write_others(a, env, first, end, gradients, de, dss);
        add_to_neighbours(env, first, end, de, dss, sums);
      }
    for (int k = lane; k < env.n; k += 32) {
      const Quad sum = read_quad(sums + 4 * k);
      const real dR[4] = {real(0), sum.at[0], sum.at[1], sum.at[2]};
      real g[3] = {};
      environment_backward(a.block.statistics, Edge(a.block.d, a.block.r, env.at + k), env.type_of_centre, dR, sum.at[3], g);
      for (int x = 0; x < 3; ++x) a.block.gamma[3LL * (env.at + k) + x] += g[x];
    }
  }
}
