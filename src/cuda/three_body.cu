// The three-body block: embedded products of neighbour vectors (theory 6, 12.13). One block per centre, over
// all ordered pairs of its edges; the padded slots are one more neighbour, number n, that counts `multiplicity` times.
#include "cuda/embedding_net.cuh"

using namespace dpa2;

namespace {

/// The neighbours of a centre in shared memory: vectors, switch and multiplicity; and a tile of pairs.
struct Neighbors {
  int n, m;               // edges; with the pad neighbour
  real *v, *sw;           // (3, most + 1), (most + 1)
  int* type;              // (most + 1)
  real *e, *ss, *weight;  // (LANES) of a tile of pairs: v_j . v_k, sw_j sw_k, multiplicities
  int* row;               // (LANES)
  int stride;
  real multiplicity;

  __device__ void load(int first, const real* R, const real* switches, const int* edge, const int* j, const int* types, const real* pad_v) {
    for (int t = threadIdx.x; t < m; t += blockDim.x) {
      for (int x = 0; x < 3; ++x) v[x * stride + t] = t < n ? R[4LL * (first + t) + 1 + x] : pad_v[x];
      sw[t] = t < n ? switches[first + t] : real(0);
      type[t] = t < n ? types[j[edge[first + t]]] : types[0];
    }
    __syncthreads();
  }

  __device__ real times(int k) const { return k < n ? real(1) : multiplicity; }

  /// Lane `lane` = the pair (j, k); no pair where k >= m.
  __device__ void pair(int lane, int j, int k, int ntypes) {
    const bool there = j < m && k < m;
    real dot = 0;
    if (there)
      for (int x = 0; x < 3; ++x) dot += v[x * stride + j] * v[x * stride + k];
    e[lane] = dot;
    ss[lane] = there ? sw[j] * sw[k] : real(0);
    weight[lane] = there ? times(j) * times(k) : real(0);
    row[lane] = there ? type[j] * ntypes + type[k] : 0;
  }
};

__device__ Neighbors neighbors_in(real* shared, int* ints, int most) {
  Neighbors at;
  at.stride = most + 1;
  at.v = shared;
  at.sw = shared + 3 * at.stride;
  at.e = shared + 4 * at.stride;
  at.ss = at.e + LANES;
  at.weight = at.ss + LANES;
  at.row = ints;
  at.type = ints + LANES;
  return at;
}

}  // namespace

// D (n, d_width) columns offset..offset+n3 =; R (edges of the block, 4), sw likewise, start (n + 1), edge: their numbers in the master
// list that j belongs to; gate (ntypes, ntypes, n3) or null; pad (n), pad_v (ntypes, 3) or null. Dynamic shared memory: 4 (most + 1) +
// 3 LANES + n3 + net.even() + net.odd() numbers and LANES + most + 1 integers, most: edges of any centre.
extern "C" __global__ void three_body(int n3, int ntypes, int gate_switch, real inv_nsel_squared, int d_width, int offset, int most,
                                      real* D, const real* R, const real* sw, const int* start, const int* edge, const int* j,
                                      const int* types, const int* layout, const real* weights, const real* type_term,
                                      const real* type_skip, const real* gate, const int* pad, const real* pad_v) {
  DYNAMIC_SHARED(real, shared);
  const EmbeddingNet net{layout, weights, type_term, type_skip};
  const int i = blockIdx.x;
  real* total = shared + 4 * (most + 1) + 3 * LANES;
  real* work = total + n3;
  Neighbors at = neighbors_in(shared, reinterpret_cast<int*>(work + net.even() + net.odd()), most);
  at.n = start[i + 1] - start[i];
  at.multiplicity = pad_v != nullptr ? real(pad[i]) : real(0);
  at.m = at.n + (at.multiplicity != real(0) ? 1 : 0);
  at.load(start[i], R, sw, edge, j, types, pad_v != nullptr ? pad_v + 3 * types[i] : nullptr);
  for (int c = threadIdx.x; c < n3; c += blockDim.x) total[c] = real(0);
  const int pairs = at.m * at.m, lane = threadIdx.x % 32;
  for (int q0 = 0; q0 < pairs; q0 += LANES) {
    __syncthreads();
    for (int t = threadIdx.x; t < LANES; t += blockDim.x) at.pair(t, (q0 + t) / at.m, (q0 + t) % at.m, ntypes);
    const Embedded H = embed<false>(net, at.e, at.row, work);
    for (int c = threadIdx.x / 32; c < n3; c += blockDim.x / 32) {
      real term = 0;
      if (lane < LANES) {
        term = at.weight[lane] * at.e[lane] * H.value[c * LANE_ROW + lane];
        if (gate != nullptr) term *= real(1) + gate[at.row[lane] * n3 + c] * (gate_switch != 0 ? at.ss[lane] : real(1));
      }
      term = warp_sum(term);
      if (lane == 0) total[c] += term;
    }
  }
  __syncthreads();
  for (int c = threadIdx.x; c < n3; c += blockDim.x) row_of(D, i, d_width)[offset + c] = total[c] * inv_nsel_squared;
}

// dR (edges of the block, 4) =, dsw =, given dD (n, d_width). Blocks of 128 threads. Pairs are taken row by row, so that every
// neighbour's gradient is added to by one thread at a time. Dynamic shared memory: 8 (most + 1) + 5 LANES + n3 + 2 (net.even() + net.odd())
// numbers and LANES + most + 1 integers.
extern "C" __global__ void three_body_backward(int n3, int ntypes, int gate_switch, real inv_nsel_squared, int d_width, int offset,
                                               int most, real* dR, real* dsw, const real* dD, const real* R, const real* sw,
                                               const int* start, const int* edge, const int* j, const int* types, const int* layout,
                                               const real* weights, const real* type_term, const real* type_skip, const real* gate,
                                               const int* pad, const real* pad_v) {
  DYNAMIC_SHARED(real, shared);
  const EmbeddingNet net{layout, weights, type_term, type_skip};
  const int i = blockIdx.x, stride = most + 1;
  real* dQ = shared + 4 * stride + 3 * LANES;
  real* dv = dQ + n3;  // (3, most + 1)
  real* dswitch = dv + 3 * stride;
  real* de = dswitch + stride;  // (LANES)
  real* dss = de + LANES;       // (LANES)
  real* work = dss + LANES;
  Neighbors at = neighbors_in(shared, reinterpret_cast<int*>(work + 2 * (net.even() + net.odd())), most);
  at.n = start[i + 1] - start[i];
  at.multiplicity = pad_v != nullptr ? real(pad[i]) : real(0);
  at.m = at.n + (at.multiplicity != real(0) ? 1 : 0);
  at.load(start[i], R, sw, edge, j, types, pad_v != nullptr ? pad_v + 3 * types[i] : nullptr);
  for (int c = threadIdx.x; c < n3; c += blockDim.x) dQ[c] = row_of(dD, i, d_width)[offset + c] * inv_nsel_squared;
  for (int t = threadIdx.x; t < 4 * stride; t += blockDim.x) dv[t] = real(0);
  const int parts = blockDim.x / LANES, mine = threadIdx.x / parts, part = threadIdx.x % parts;
  for (int row = 0; row < at.m; ++row)
    for (int k0 = 0; k0 < at.m; k0 += LANES) {
      __syncthreads();
      for (int t = threadIdx.x; t < LANES; t += blockDim.x) at.pair(t, row, k0 + t, ntypes);
      const Embedded H = embed<true>(net, at.e, at.row, work);
      real direct = 0, along = 0, from_gate = 0;
      for (int c = part; c < n3; c += parts) {
        const real value = H.value[c * LANE_ROW + mine];
        const real g = gate != nullptr ? gate[at.row[mine] * n3 + c] : real(0);
        const real factor = real(1) + g * (gate_switch != 0 ? at.ss[mine] : real(1));
        direct += dQ[c] * value * factor;
        along += dQ[c] * H.tangent[c * LANE_ROW + mine] * factor;
        from_gate += dQ[c] * value * g;
      }
      direct = part_sum(direct, parts);
      along = part_sum(along, parts);
      from_gate = part_sum(from_gate, parts);
      if (part == 0) {
        de[mine] = at.weight[mine] * (direct + at.e[mine] * along);
        dss[mine] = gate_switch != 0 ? at.weight[mine] * at.e[mine] * from_gate : real(0);
      }
      __syncthreads();
      // The first warp: its lanes own the neighbours of the tile, and then the row.
      if (threadIdx.x < 32) {
        const int lane = threadIdx.x, k = k0 + lane;
        const bool there = lane < LANES && k < at.m;
        real own[4] = {};
        if (there) {
          for (int x = 0; x < 3; ++x) {
            own[x] = de[lane] * at.v[x * stride + k];
            dv[x * stride + k] += de[lane] * at.v[x * stride + row];
          }
          own[3] = dss[lane] * at.sw[k];
          dswitch[k] += dss[lane] * at.sw[row];
        }
        for (int x = 0; x < 4; ++x) own[x] = warp_sum(own[x]);
        __syncwarp();
        if (lane == 0) {
          for (int x = 0; x < 3; ++x) dv[x * stride + row] += own[x];
          dswitch[row] += own[3];
        }
        __syncwarp();
      }
    }
  __syncthreads();
  for (int t = threadIdx.x; t < at.n; t += blockDim.x) {
    const int e = start[i] + t;
    dR[4LL * e] = real(0);
    for (int x = 0; x < 3; ++x) dR[4LL * e + 1 + x] = dv[x * stride + t];
    dsw[e] = dswitch[t];
  }
}
