// Repinit: the Gram matrix of embedded neighbour moments (theory 5, 12.14). One block per centre; the
// embedding of a tile of edges lives in shared memory and nowhere else.
#include "cuda/embedding_net.cuh"

using namespace dpa2;

namespace {

/// A tile of edges of one centre in shared memory; lanes without an edge hold zeros.
struct Tile {
  real *R, *sw;  // (4, LANES), (LANES)
  int* row;      // (LANES): of the tables of types

  __device__ void load(int first, int count, const real* rows, const real* switches, const int* j, const int* types, int centre_type,
                       int ntypes, int one_side) {
    __syncthreads();
    for (int e = threadIdx.x; e < LANES; e += blockDim.x) {
      const bool there = e < count;
      for (int x = 0; x < 4; ++x) R[x * LANES + e] = there ? rows[4LL * (first + e) + x] : real(0);
      sw[e] = there ? switches[first + e] : real(0);
      const int type = there ? types[j[first + e]] : 0;
      row[e] = there ? (one_side != 0 ? type : type * ntypes + centre_type) : 0;
    }
    __syncthreads();
  }
};

}  // namespace

// D (n, d_width) columns 0..ng*axis =, M (n, 4, ng) =; R (nedge, 4), sw (nedge), start (n + 1), j (nedge), types (n) >= 0;
// gate (combinations, ng) or null, times sw with gate_switch; pad (n): padded slots; pad_R (ntypes, 4) and pad_G (ntypes, ntypes, ng), row
// of the type of atom 0, or null. Dynamic shared memory: 4 ng + 5 LANES + net.even() + net.odd().
extern "C" __global__ void repinit(int ng, int axis, int ntypes, int one_side, int gate_switch, real inv_nsel, int d_width, real* D,
                                   real* M, const real* R, const real* sw, const int* start, const int* j, const int* types,
                                   const int* layout, const real* weights, const real* type_term, const real* type_skip, const real* gate,
                                   const int* pad, const real* pad_R, const real* pad_G) {
  DYNAMIC_SHARED(real, shared);
  __shared__ int rows[LANES];
  real* moments = shared;
  Tile tile{moments + 4 * ng, moments + 4 * ng + 4 * LANES, rows};
  real* work = tile.sw + LANES;
  const EmbeddingNet net{layout, weights, type_term, type_skip};
  const int i = blockIdx.x, type = types[i];
  for (int t = threadIdx.x; t < 4 * ng; t += blockDim.x) moments[t] = real(0);
  for (int first = start[i]; first < start[i + 1]; first += LANES) {
    const int count = min(LANES, start[i + 1] - first);
    tile.load(first, count, R, sw, j, types, type, ntypes, one_side);
    const Embedded G = embed<false>(net, tile.R, tile.row, work);
    for (int c = threadIdx.x; c < ng; c += blockDim.x) {
      real acc[4] = {};
      for (int e = 0; e < count; ++e) {
        real g = G.value[c * LANE_ROW + e];
        if (gate != nullptr) g *= real(1) + gate[tile.row[e] * ng + c] * (gate_switch != 0 ? tile.sw[e] : real(1));
        for (int x = 0; x < 4; ++x) acc[x] += tile.R[x * LANES + e] * g;
      }
      for (int x = 0; x < 4; ++x) moments[x * ng + c] += acc[x];
    }
  }
  __syncthreads();
  for (int t = threadIdx.x; t < 4 * ng; t += blockDim.x) {
    const int x = t / ng, c = t % ng;
    real value = moments[t] * inv_nsel;
    if (pad_G != nullptr) value += real(pad[i]) * inv_nsel * pad_R[4 * type + x] * pad_G[(types[0] * ntypes + type) * ng + c];
    moments[t] = value;
    M[4LL * i * ng + t] = value;
  }
  __syncthreads();
  for (int t = threadIdx.x; t < ng * axis; t += blockDim.x) {
    const int c = t / axis, a = t % axis;
    real acc = 0;
    for (int x = 0; x < 4; ++x) acc += moments[x * ng + c] * moments[x * ng + a];
    row_of(D, i, d_width)[t] = acc;
  }
}

// dR (nedge, 4) =, dsw (nedge) =, given dD (n, d_width) and the M of the forward. Blocks of 128 threads. Dynamic shared memory: 4 ng + 5 LANES
// + 2 (net.even() + net.odd()).
extern "C" __global__ void repinit_backward(int ng, int axis, int ntypes, int one_side, int gate_switch, real inv_nsel, int d_width,
                                            real* dR, real* dsw, const real* dD, const real* M, const real* R, const real* sw,
                                            const int* start, const int* j, const int* types, const int* layout, const real* weights,
                                            const real* type_term, const real* type_skip, const real* gate) {
  DYNAMIC_SHARED(real, shared);
  __shared__ int rows[LANES];
  real* dM = shared;
  Tile tile{dM + 4 * ng, dM + 4 * ng + 4 * LANES, rows};
  real* work = tile.sw + LANES;
  const EmbeddingNet net{layout, weights, type_term, type_skip};
  const int i = blockIdx.x, type = types[i];
  const real* dDi = row_of(dD, i, d_width);
  const real* Mi = M + 4LL * i * ng;
  for (int t = threadIdx.x; t < 4 * ng; t += blockDim.x) {
    dM[t] = gram_gradient(ng, axis, t % ng, dDi, axis, 1, Mi + t / ng * ng) * inv_nsel;
  }
  const int parts = blockDim.x / LANES, e = threadIdx.x / parts, part = threadIdx.x % parts;
  for (int first = start[i]; first < start[i + 1]; first += LANES) {
    const int count = min(LANES, start[i + 1] - first);
    tile.load(first, count, R, sw, j, types, type, ntypes, one_side);
    const Embedded G = embed<true>(net, tile.R, tile.row, work);
    real acc[4] = {}, ds = 0, from_gate = 0;
    for (int c = part; c < ng; c += parts) {
      const real value = G.value[c * LANE_ROW + e];
      const real g = gate != nullptr ? gate[tile.row[e] * ng + c] : real(0);
      const real factor = real(1) + g * (gate_switch != 0 ? tile.sw[e] : real(1));
      real dG = 0;
      for (int x = 0; x < 4; ++x) {
        dG += tile.R[x * LANES + e] * dM[x * ng + c];
        acc[x] += dM[x * ng + c] * value * factor;
      }
      ds += dG * factor * G.tangent[c * LANE_ROW + e];
      from_gate += dG * value * g;
    }
    for (int x = 0; x < 4; ++x) acc[x] = part_sum(acc[x], parts);
    ds = part_sum(ds, parts);
    from_gate = part_sum(from_gate, parts);
    if (part == 0 && e < count) {
      dR[4LL * (first + e)] = acc[0] + ds;
      for (int x = 1; x < 4; ++x) dR[4LL * (first + e) + x] = acc[x];
      dsw[first + e] = gate_switch != 0 ? from_gate : real(0);
    }
  }
}
