// Sums over edges of what an edge has times a row of the atom at its other end, in registers:
//   t[k][c] = sum_e a_e[k] row(e)[c],   v[x][c] = sum_e b_e[x] row'(e)[c]:
// products whose depth are the edges, as many as there are. A warp has 32 columns, a lane 4 of them and GROUP numbers k, and with these
// one of three numbers x; what the edges have lies in shared memory, rows of atoms come from global memory by whole vectors.
#pragma once

#include "cuda/edge_tile.cuh"

#ifndef GROUP
#define GROUP 8  // where edges have 16 numbers or fewer, 4 are enough
#endif

namespace dpa2 {

constexpr int NUMBERS = 4 * GROUP;    // of an edge together
constexpr int FACTORS = NUMBERS + 4;  // and of its vector, with the weight behind it: a row of shared memory
constexpr int WEIGHT = NUMBERS + 3;
constexpr int AT_ONCE = 48;  // edges in shared memory: sel of the published models

/// What edges have; all in shared memory, at 16 bytes.
struct EdgeFactors {
  real* number;  // (AT_ONCE, FACTORS) weight times g2, weight times h2, the weight
  real* vector;  // (AT_ONCE, 4) h2 alone, or null
  int* row;      // (AT_ONCE) of the atom at the other end
  int* edge;     // (AT_ONCE)
};

/// The edges of a centre.
struct Outgoing {
  const int* j;
  int begin;
  __device__ __forceinline__ int edge(int e) const { return begin + e; }
  __device__ __forceinline__ int row(int edge) const { return j[edge]; }
  // Factors of the centre come in at the end.
  __device__ __forceinline__ real of_numbers(int) const { return real(1); }
  __device__ __forceinline__ real of_vectors(int) const { return real(1); }
};

/// factors = edges first..first + count of `edges`, their numbers k0..k0 + NUMBERS of n2; by the whole block, with barriers before and
/// after. h2 and g2 may be null.
template <class Edges>
__device__ __forceinline__ void stage_factors(const EdgeFactors& factors, const Edges& edges, const real* w, const real* h2, const real* g2,
                                              int n2, int k0, int first, int count) {
  __syncthreads();  // what was there has been read
  if (threadIdx.x < count) {
    const int e = threadIdx.x, edge = edges.edge(first + e), row = edges.row(edge);
    real f[4] = {}, h[4] = {};
    const real weight = w[edge];
    if (h2 != nullptr) {
      const real* from = h2 + 3LL * edge;
      const real along = edges.of_vectors(row) * weight;
      for (int x = 0; x < 3; ++x) h[x] = from[x], f[x] = along * h[x];
    }
    f[3] = edges.of_numbers(row) * weight;
    store4(factors.number + e * FACTORS + NUMBERS, f);
    if (factors.vector != nullptr) store4(factors.vector + 4 * e, h);
    factors.row[e] = row;
    factors.edge[e] = edge;
  }
  __syncthreads();
  if (g2 == nullptr) return;
  const int k = k0 + threadIdx.x % GROUP * 4;
  for (int e = threadIdx.x / GROUP; e < count; e += cuda::edge_threads / GROUP) {
    real* to = factors.number + e * FACTORS;
    const real weight = to[WEIGHT];
    real v[4];
    load_row4(v, row_of(g2, factors.edge[e], n2), k, n2);
#pragma unroll
    for (int x = 0; x < 4; ++x) v[x] *= weight;
    store4(to + k - k0, v);
  }
  __syncthreads();
}

/// Four columns of rows in global memory that are `stride` numbers apart; behind the last column the last one again, so that whatever is
/// read is there. Whole: rows begin at 16 bytes and have a multiple of four columns.
template <bool Whole>
struct Columns {
  const real* first;
  int stride;
  int at[4];

  __device__ __forceinline__ Columns(const real* rows, int width, int stride, int c)
      : first(Whole ? rows + min(c, width - 4) : rows), stride(stride) {
    for (int x = 0; x < 4; ++x) at[x] = min(c + x, width - 1);
  }
  __device__ __forceinline__ void load(real (&v)[4], int row) const {
    if (Whole) {
      load4(v, row_of_fours(first, row, stride / 4));
    } else {
      const real* from = row_of(first, row, stride);
#pragma unroll
      for (int x = 0; x < 4; ++x) v[x] = from[at[x]];
    }
  }
};

/// What a lane adds up.
struct EdgeSums {
  real t[GROUP][4] = {};  // numbers GROUP group_of_lane().. of the chunk
  real v[4] = {};         // number group_of_lane() of the vector; the fourth group adds up weights
};

__device__ __forceinline__ int group_of_lane() { return threadIdx.x % 32 / 8; }

template <bool Numbers, bool Vectors>
__device__ __forceinline__ void add_edge(EdgeSums& sums, const real* number, const real* vector, const real (&b)[4], const real (&d)[4]) {
  if (Numbers) {
    real a[GROUP];
#pragma unroll
    for (int r = 0; r < GROUP; r += 4) load4(a + r, number + r);
#pragma unroll
    for (int r = 0; r < GROUP; ++r)
#pragma unroll
      for (int x = 0; x < 4; ++x) sums.t[r][x] += a[r] * b[x];
  }
  if (Vectors) {
    const real f = *vector;
#pragma unroll
    for (int x = 0; x < 4; ++x) sums.v[x] += f * d[x];
  }
}

/// sums += `count` edges that have been staged, with the rows `of` for their numbers and, where these are others, `apart` for vectors.
template <bool Numbers, bool Vectors, bool Apart, bool Whole>
__device__ __forceinline__ void add_edges(EdgeSums& sums, const EdgeFactors& factors, int count, const Columns<Whole>& of,
                                          const Columns<Whole>& apart) {
  constexpr int FLIGHT = Apart ? 2 : 4;  // edges whose rows are asked for together
  constexpr bool own = Numbers || !Apart;
  const real* number = factors.number + GROUP * group_of_lane();
  const real* vector = factors.number + NUMBERS + group_of_lane();
  const int* row = factors.row;
  int left = count;
  if (Whole)
#pragma unroll 1
    for (; left >= FLIGHT; left -= FLIGHT, number += FLIGHT * FACTORS, vector += FLIGHT * FACTORS, row += FLIGHT) {
      int at[FLIGHT];
      real b[FLIGHT][4] = {}, d[FLIGHT][4] = {};
      if (FLIGHT == 4)
        load4(at, row);
      else
        load2(at, row);
#pragma unroll
      for (int s = 0; s < FLIGHT; ++s) {
        if (own) of.load(b[s], at[s]);
        if (Apart) apart.load(d[s], at[s]);
      }
#pragma unroll
      for (int s = 0; s < FLIGHT; ++s)
        add_edge<Numbers, Vectors>(sums, number + s * FACTORS, vector + s * FACTORS, b[s], Apart ? d[s] : b[s]);
    }
#pragma unroll 1
  for (; left > 0; --left, number += FACTORS, vector += FACTORS, ++row) {
    real b[4] = {}, d[4] = {};
    if (own) of.load(b, *row);
    if (Apart) apart.load(d, *row);
    add_edge<Numbers, Vectors>(sums, number, vector, b, Apart ? d : b);
  }
}

/// out[x] += sum over the lane's numbers k of m[k TILE + x] t[k][x]; m from the chunk's first number and the lane's first column on.
__device__ __forceinline__ void add_product(real (&out)[4], const EdgeSums& sums, const real* m) {
  m += GROUP * TILE * group_of_lane();
#pragma unroll
  for (int r = 0; r < GROUP; ++r) {
    real p[4];
    load4(p, m + r * TILE);
#pragma unroll
    for (int x = 0; x < 4; ++x) out[x] += p[x] * sums.t[r][x];
  }
}

/// Sums over edges number by number, the edges shared among the block: [0] of the numbers times those of a row, [1].. times the vector.
struct PairSums {
  real sum[4] = {};

  __device__ __forceinline__ static int number() { return threadIdx.x % NUMBERS; }

  __device__ __forceinline__ void add_vectors(const EdgeFactors& factors, int count) {
    const real* number = factors.number + PairSums::number();
#pragma unroll 2
    for (int e = threadIdx.x / NUMBERS; e < count; e += cuda::edge_threads / NUMBERS) {
      const real value = number[e * FACTORS];
      real h[4];
      load4(h, factors.vector + 4 * e);
      for (int x = 0; x < 3; ++x) sum[1 + x] += h[x] * value;
    }
  }
  /// rows from number k0 on, `left` numbers wide.
  __device__ __forceinline__ void add_rows(const EdgeFactors& factors, int count, const real* rows, int stride, int left) {
    const int k = number();
    if (k < left)
      for (int e = threadIdx.x / NUMBERS; e < count; e += cuda::edge_threads / NUMBERS)
        sum[0] += factors.number[e * FACTORS + k] * row_of(rows, factors.row[e], stride)[k];
  }
  /// The whole sums, number() of them number `threadIdx.x / NUMBERS` for threads below 4 NUMBERS. parts (4 edge_threads).
  __device__ __forceinline__ real whole(real* parts) const {
    __syncthreads();
    for (int d = 0; d < 4; ++d) parts[d * cuda::edge_threads + threadIdx.x] = sum[d];
    __syncthreads();
    real all = 0;
    if (threadIdx.x < 4 * NUMBERS)
      for (int s = 0; s < cuda::edge_threads / NUMBERS; ++s)
        all += parts[threadIdx.x / NUMBERS * cuda::edge_threads + s * NUMBERS + number()];
    return all;
  }
};

}  // namespace dpa2
