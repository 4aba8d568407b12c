// Sums over edges of what an edge has times a row of the atom at its other end, in registers:
//   t[k][c] = sum_e a_e[k] row(e)[c],   v[x][c] = sum_e b_e[x] row'(e)[c]:
// products whose depth are the edges, as many as there are. A lane has four columns, or twice four that are 32 apart, and four or eight
// numbers k, and with these one of three numbers x; what the edges have lies in shared memory, rows of atoms come from global memory by
// whole vectors. Four numbers of an edge cost a warp two wavefronts, however many columns its lanes have.
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
  }
  __syncthreads();
  if (g2 == nullptr) return;
  const int k = k0 + threadIdx.x % GROUP * 4;
  for (int e = threadIdx.x / GROUP; e < count; e += cuda::edge_threads / GROUP) {
    real* to = factors.number + e * FACTORS;
    const real weight = to[WEIGHT];
    real v[4];
    load_row4(v, row_of(g2, edges.edge(first + e), n2), k, n2);
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

/// What a lane adds up, of QUADS times four columns.
template <int QUADS, int PER>
struct EdgeSums {
  real t[QUADS][PER][4] = {};  // numbers PER group_of_lane().. of those that the warp has
  real v[QUADS][4] = {};       // number group_of_lane() of the vector; the fourth group adds up weights
};

__device__ __forceinline__ int group_of_lane() { return threadIdx.x % 32 / 8; }

template <bool Numbers, bool Vectors, int QUADS, int PER>
__device__ __forceinline__ void add_edge(EdgeSums<QUADS, PER>& sums, const real* number, const real* vector, const real (&b)[QUADS][4],
                                         const real (&d)[QUADS][4]) {
  if (Numbers) {
    real a[PER];
#pragma unroll
    for (int r = 0; r < PER; r += 4) load4(a + r, number + r);
#pragma unroll
    for (int q = 0; q < QUADS; ++q)
#pragma unroll
      for (int r = 0; r < PER; ++r)
#pragma unroll
        for (int x = 0; x < 4; ++x) sums.t[q][r][x] += a[r] * b[q][x];
  }
  if (Vectors) {
    const real f = *vector;
#pragma unroll
    for (int q = 0; q < QUADS; ++q)
#pragma unroll
      for (int x = 0; x < 4; ++x) sums.v[q][x] += f * d[q][x];
  }
}

/// Edges whose rows a lane asks for together.
constexpr int flight(int quads, bool apart) { return quads > 1 || apart ? 2 : 4; }

/// sums += edges first..end - 1 of those that have been staged, `first` a multiple of flight(), their numbers from k on, with the rows `of`
/// for these and, where they are others, `apart` for vectors.
template <bool Numbers, bool Vectors, bool Apart, bool Whole, int QUADS, int PER>
__device__ __forceinline__ void add_edges(EdgeSums<QUADS, PER>& sums, const EdgeFactors& factors, int first, int end, int k,
                                          const Columns<Whole> (&of)[QUADS], const Columns<Whole> (&apart)[QUADS]) {
  constexpr int FLIGHT = flight(QUADS, Apart);
  constexpr bool own = Numbers || !Apart;
  const real* number = factors.number + first * FACTORS + k + PER * group_of_lane();
  const real* vector = factors.number + first * FACTORS + NUMBERS + group_of_lane();
  const int* row = factors.row + first;
  int left = end - first;
  if (Whole)
#pragma unroll 1
    for (; left >= FLIGHT; left -= FLIGHT, number += FLIGHT * FACTORS, vector += FLIGHT * FACTORS, row += FLIGHT) {
      int at[FLIGHT];
      real b[FLIGHT][QUADS][4] = {}, d[FLIGHT][QUADS][4] = {};
      if (FLIGHT == 4)
        load4(at, row);
      else
        load2(at, row);
#pragma unroll
      for (int s = 0; s < FLIGHT; ++s)
#pragma unroll
        for (int q = 0; q < QUADS; ++q) {
          if (own) of[q].load(b[s][q], at[s]);
          if (Apart) apart[q].load(d[s][q], at[s]);
        }
#pragma unroll
      for (int s = 0; s < FLIGHT; ++s)
        add_edge<Numbers, Vectors>(sums, number + s * FACTORS, vector + s * FACTORS, b[s], Apart ? d[s] : b[s]);
    }
#pragma unroll 1
  for (; left > 0; --left, number += FACTORS, vector += FACTORS, ++row) {
    real b[QUADS][4] = {}, d[QUADS][4] = {};
#pragma unroll
    for (int q = 0; q < QUADS; ++q) {
      if (own) of[q].load(b[q], *row);
      if (Apart) apart[q].load(d[q], *row);
    }
    add_edge<Numbers, Vectors>(sums, number, vector, b, Apart ? d : b);
  }
}

/// out[x] += sum over the lane's numbers k of m[k TILE + x] t[k][x]; m from the warp's first number and the lane's first column on.
template <int PER>
__device__ __forceinline__ void add_product(real (&out)[4], const real (&t)[PER][4], const real* m) {
  m += PER * TILE * group_of_lane();
#pragma unroll
  for (int r = 0; r < PER; ++r) {
    real p[4];
    load4(p, m + r * TILE);
#pragma unroll
    for (int x = 0; x < 4; ++x) out[x] += p[x] * t[r][x];
  }
}

/// Sums over edges number by number, the edges shared among the block: [0] of the numbers times those of a row, [1].. times the vector.
/// GROUP lanes have an edge together, each four of its numbers.
struct PairSums {
  static constexpr int ROOM = WARPS * 4 * NUMBERS;
  real sum[4][4] = {};

  __device__ __forceinline__ static int number() { return threadIdx.x % GROUP * 4; }

  __device__ __forceinline__ void add_vectors(const EdgeFactors& factors, int count) {
#pragma unroll 2
    for (int e = threadIdx.x / GROUP; e < count; e += cuda::edge_threads / GROUP) {
      real value[4], h[4];
      load4(value, factors.number + e * FACTORS + number());
      load4(h, factors.vector + 4 * e);
#pragma unroll
      for (int x = 0; x < 3; ++x)
#pragma unroll
        for (int s = 0; s < 4; ++s) sum[1 + x][s] += h[x] * value[s];
    }
  }
  /// rows from number k0 on, `left` numbers wide.
  __device__ __forceinline__ void add_rows(const EdgeFactors& factors, int count, const real* rows, int stride, int left) {
    const int k = number();
    for (int e = threadIdx.x / GROUP; e < count; e += cuda::edge_threads / GROUP) {
      const real* row = row_of(rows, factors.row[e], stride);
      real value[4];
      load4(value, factors.number + e * FACTORS + k);
#pragma unroll
      for (int s = 0; s < 4; ++s)
        if (k + s < left) sum[0][s] += value[s] * row[k + s];
    }
  }
  /// The warp's sums number group_of_lane(), of four numbers from number() on.
  __device__ __forceinline__ void of_warp(real (&own)[4]) const {
    // Half of the lanes goes on with half of the sums.
    const bool upper = (threadIdx.x & 16) != 0, odd = (threadIdx.x & 8) != 0;
    real half[2][4];
#pragma unroll
    for (int d = 0; d < 2; ++d)
#pragma unroll
      for (int s = 0; s < 4; ++s)
        half[d][s] = (upper ? sum[2 + d][s] : sum[d][s]) + __shfl_xor_sync(FULL_MASK, upper ? sum[d][s] : sum[2 + d][s], 16);
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      own[s] = (odd ? half[1][s] : half[0][s]) + __shfl_xor_sync(FULL_MASK, odd ? half[0][s] : half[1][s], 8);
      if (GROUP < 8) own[s] += __shfl_xor_sync(FULL_MASK, own[s], 4);
    }
  }
  /// Of what of_warp has given, the sum over the warps: number threadIdx.x % NUMBERS of the sums number threadIdx.x / NUMBERS, for threads
  /// below 4 NUMBERS. parts (ROOM), which others may have read before.
  __device__ __forceinline__ static real whole(const real (&own)[4], real* parts) {
    __syncthreads();
    if (threadIdx.x % 8 < GROUP) store4(sixteen(parts, (threadIdx.x / 8 * NUMBERS + number()) / VECTOR), own);
    __syncthreads();
    real all = 0;
    if (threadIdx.x < 4 * NUMBERS)
      for (int s = 0; s < WARPS; ++s) all += parts[4 * NUMBERS * s + threadIdx.x];
    return all;
  }
};

}  // namespace dpa2
