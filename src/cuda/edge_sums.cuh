// Sums over edges of what an edge has times a row of the atom at its other end, in registers:
//   t[k][c] = sum_e a_e[k] row(e)[c],   v[x][c] = sum_e b_e[x] row'(e)[c]:
// products whose depth are the edges, as many as there are. A lane has four columns or eight, and four or eight numbers k, and with these
// one of three numbers x; what the edges have lies in shared memory, rows of atoms come from global memory by whole vectors. Four numbers
// of an edge cost a warp two wavefronts, however many columns its lanes have.
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
  // Where four lanes bring an edge, those of eight lanes lie in different banks.
  const int t = threadIdx.x, own = GROUP == 4 ? t / 32 * 8 + t / 4 % 2 * 4 + t % 32 / 8 : t / GROUP;
  for (int e = own; e < count; e += cuda::edge_threads / GROUP) {
    const real weight = factors.number[e * FACTORS + WEIGHT];
    real v[4];
    load_row4(v, row_of(g2, edges.edge(first + e), n2), k, n2);
#pragma unroll
    for (int x = 0; x < 4; ++x) v[x] *= weight;
    store4(sixteen(factors.number, e * (FACTORS / VECTOR) + t % GROUP * (4 / VECTOR)), v);
  }
  __syncthreads();
}

/// N columns, a multiple of four, of rows in global memory that are `stride` numbers apart; behind the last column the last ones again, so
/// that whatever is read is there. Whole: rows begin at 16 bytes and have a multiple of N columns.
template <bool Whole, int N>
struct Columns {
  const real* rows;
  int width, stride, c;

  __device__ __forceinline__ Columns(const real* rows, int width, int stride, int c)
      : rows(Whole ? rows + min(c, width - N) : rows), width(width), stride(stride), c(c) {}
  __device__ __forceinline__ void load(real (&v)[N], int row) const {
    if (Whole) {
      const real* from = row_of_fours(rows, row, stride / 4);
#pragma unroll
      for (int x = 0; x < N; x += 4) load4(v + x, from + x);
    } else {
      const real* from = row_of(rows, row, stride);
      const int first = opaque(c);  // places of all columns would need registers
#pragma unroll
      for (int x = 0; x < N; ++x) v[x] = from[min(first + x, width - 1)];
    }
  }
};

/// What a lane adds up, in N columns: t of PER numbers, PER group_of_lane().. of those that the warp has; v of number group_of_lane() of
/// the vector, where the fourth group adds up weights.
template <int N, int PER>
struct EdgeSums {
  real t[PER][N] = {};
  real v[N] = {};
};

__device__ __forceinline__ int group_of_lane() { return threadIdx.x % 32 / 8; }

template <bool Numbers, bool Vectors, int N, int PER>
__device__ __forceinline__ void add_edge(EdgeSums<N, PER>& sums, const real* number, const real* vector, const real (&b)[N],
                                         const real (&d)[N]) {
  if (Numbers) {
    real a[PER];
#pragma unroll
    for (int r = 0; r < PER; r += 4) load4(a + r, number + r);
#pragma unroll
    for (int r = 0; r < PER; ++r)
#pragma unroll
      for (int x = 0; x < N; ++x) sums.t[r][x] += a[r] * b[x];
  }
  if (Vectors) {
    const real f = *vector;
#pragma unroll
    for (int x = 0; x < N; ++x) sums.v[x] += f * d[x];
  }
}

/// Edges whose rows there are registers for.
constexpr int flight(bool apart) { return apart || sizeof(real) == 8 ? 2 : 4; }

/// sums += edges first..end - 1 of those that have been staged, `first` a multiple of FLIGHT, whose rows a lane asks for together, their
/// numbers from k on, with the rows `of` for these and, where they are others, `apart` for vectors.
template <int FLIGHT, bool Numbers, bool Vectors, bool Apart, bool Whole, int N, int PER>
__device__ __forceinline__ void add_edges(EdgeSums<N, PER>& sums, const EdgeFactors& factors, int first, int end, int k,
                                          const Columns<Whole, N>& of, const Columns<Whole, N>& apart) {
  constexpr bool own = Numbers || !Apart;
  const real* number = factors.number + first * FACTORS + k + PER * group_of_lane();
  const real* vector = factors.number + first * FACTORS + NUMBERS + group_of_lane();
  const int* row = factors.row + first;
  int left = end - first;
  if (Whole)
#pragma unroll 1
    for (; left >= FLIGHT; left -= FLIGHT, number += FLIGHT * FACTORS, vector += FLIGHT * FACTORS, row += FLIGHT) {
      int at[FLIGHT];
      real b[FLIGHT][N] = {}, d[FLIGHT][N] = {};
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
    real b[N] = {}, d[N] = {};
    if (own) of.load(b, *row);
    if (Apart) apart.load(d, *row);
    add_edge<Numbers, Vectors>(sums, number, vector, b, Apart ? d : b);
  }
}

/// out[x] += sum over the lane's numbers k of m[k TILE + x] t[k][x]; m from the warp's first number and the lane's first column on.
template <int N, int PER>
__device__ __forceinline__ void add_product(real (&out)[N], const real (&t)[PER][N], const real* m) {
  m += PER * TILE * group_of_lane();
#pragma unroll
  for (int r = 0; r < PER; ++r)
#pragma unroll
    for (int q = 0; q < N; q += 4) {
      real p[4];
      load4(p, m + r * TILE + q);
#pragma unroll
      for (int x = 0; x < 4; ++x) out[q + x] += p[x] * t[r][q + x];
    }
}

/// Of N values per lane, the sums over the groups of lanes: group g is left with those of its N / 4, from number g N / 4 on, in v[0], ....
template <int N>
__device__ __forceinline__ void scatter_groups(real (&v)[N]) {
#pragma unroll
  for (int step = 16, half = N / 2; step >= 8; step /= 2, half /= 2) {
    const bool upper = (threadIdx.x & step) != 0;
#pragma unroll
    for (int n = 0; n < half; ++n) {
      const real kept = upper ? v[n + half] : v[n], given = upper ? v[n] : v[n + half];
      v[n] = kept + __shfl_xor_sync(FULL_MASK, given, step);
    }
  }
}

/// Sums over edges number by number, the edges shared among the block: [0] of the numbers times those of a row, [1].. times the vector.
struct PairSums {
  static constexpr int ROOM = 4 * cuda::edge_threads;
  real sum[4] = {};

  static constexpr int SHARES = cuda::edge_threads / NUMBERS;
  __device__ __forceinline__ static int number() { return threadIdx.x % NUMBERS; }
  /// Edges of the thread: this one and every SHARES-th behind it. Those of a warp lie in different banks.
  __device__ __forceinline__ static int first_edge() { return threadIdx.x / 32 + WARPS * (threadIdx.x % 32 / NUMBERS); }

  __device__ __forceinline__ void add_vectors(const EdgeFactors& factors, int count) {
    const int first = first_edge();
    const real *value = factors.number + first * FACTORS + number(), *vector = factors.vector + 4 * first;
#pragma unroll 2
    for (int left = count - first; left > 0; left -= SHARES, value += SHARES * FACTORS, vector += 4 * SHARES) {
      real h[4];
      load4(h, vector);
      for (int x = 0; x < 3; ++x) sum[1 + x] += h[x] * *value;
    }
  }
  /// rows from number k0 on, `left` numbers wide.
  __device__ __forceinline__ void add_rows(const EdgeFactors& factors, int count, const real* rows, int stride, int left) {
    const int k = number();
    if (k < left)
      for (int e = first_edge(); e < count; e += SHARES)
        sum[0] += factors.number[e * FACTORS + k] * row_of(rows, factors.row[e], stride)[k];
  }
  /// The whole sums, number() of them number `threadIdx.x / NUMBERS` for threads below 4 NUMBERS. parts (ROOM), which others may have read
  /// before.
  __device__ __forceinline__ real whole(real* parts) const {
    __syncthreads();
    // Where a warp reads two of the four sums, they lie in different banks.
    const int own = threadIdx.x / NUMBERS, swapped = NUMBERS == 16 ? 16 : 0;
    for (int d = 0; d < 4; ++d) parts[d * cuda::edge_threads + (threadIdx.x ^ d % 2 * swapped)] = sum[d];
    __syncthreads();
    real all = 0;
    if (own < 4)
      for (int s = 0; s < SHARES; ++s) all += parts[own * cuda::edge_threads + ((s * NUMBERS + number()) ^ own % 2 * swapped)];
    return all;
  }
};

}  // namespace dpa2
