// What flows from the edges back to their neighbours (theory 12.6, 12.7, 12.11, S18): an atom gathers over the edges that end at it, from
// the rows of their centres. The same sums as in messages.cu, with other rows, so that nothing is kept for each edge; of the attention
// there are two numbers for each edge and head. One block per atom.
#include "cuda/gather.hpp"

#include "cuda/edge_sums.cuh"
#include "math/normalisation.hpp"

using namespace dpa2;

namespace {

// Blocks of a multiprocessor. The kernel waits for rows of atoms: a block more is worth more than its registers.
constexpr int RESIDENT = sizeof(real) == 4 ? 5 : BLOCKS;

/// The edges to an atom, with the factors of the centres that they come from.
struct Ending {
  const int *edges, *centre, *start;
  math::Normalisation<DeviceMath, real> kappa;
  __device__ __forceinline__ int edge(int e) const { return edges[e]; }
  __device__ __forceinline__ int row(int edge) const { return centre[edge]; }
  __device__ __forceinline__ real of_numbers(int i) const { return kappa.conv(start[i + 1] - start[i]); }
  __device__ __forceinline__ real of_vectors(int i) const { return kappa.moment(start[i + 1] - start[i]); }
};

/// What the parts of the kernel share: the edges to an atom, in shared memory.
struct Atom {
  const cuda::GatherArgs<real>& a;
  EdgeFactors factors;
  Ending edges;
  int n;

  __device__ __forceinline__ void stage(int k0, int first, int count) const {
    stage_factors(factors, edges, a.w, a.h2, a.P != nullptr || a.dnode != nullptr ? a.g2 : nullptr, a.n2, k0, first, count);
  }
  template <bool Whole>
  __device__ __forceinline__ void add_centres(EdgeSums<4, GROUP>& sums, int count, int c, bool vectors) const {
    // The fourth group has no number of a vector: what it reads is left out in the end.
    const Columns<Whole, 4> rows(a.rows, a.n1, a.n1, c);
    const Columns<Whole, 4> apart(a.vectors + min(group_of_lane(), 2) * a.n1, a.n1, 3 * a.n1, c);
    if (!vectors)
      add_edges<flight(false), true, false, false>(sums, factors, 0, count, 0, rows, apart);
    else if (a.P != nullptr)
      add_edges<flight(true), true, true, true>(sums, factors, 0, count, 0, rows, apart);
    else
      add_edges<flight(true), false, true, true>(sums, factors, 0, count, 0, rows, apart);
  }
  /// sums += the edges that have been staged, at the columns c.. of the rows of their centres.
  __device__ __forceinline__ void add(EdgeSums<4, GROUP>& sums, int count, int c, int k0) const {
    const bool vectors = a.vectors != nullptr && k0 == 0;
    if (a.n1 % 4 == 0)
      add_centres<true>(sums, count, c, vectors);
    else
      add_centres<false>(sums, count, c, vectors);
  }
  /// out += the lane's share of what the sums make.
  __device__ __forceinline__ void finish(real (&out)[4], const EdgeSums<4, GROUP>& sums, int chunk, int k0) const {
    if (a.P != nullptr) {
      real product[4] = {};
      add_product(product, sums.t, a.P + cuda::strip_of(chunk, a.n2) + k0 * TILE + column_of_lane());
      if (a.r != nullptr) {
        real r[4];
        load_row4(r, a.r, chunk + column_of_lane(), a.n1);
        for (int x = 0; x < 4; ++x) product[x] *= r[x];
      }
      for (int x = 0; x < 4; ++x) out[x] += product[x];
    }
    if (a.vectors != nullptr && k0 == 0 && group_of_lane() < 3)
      for (int x = 0; x < 4; ++x) out[x] += sums.v[x];
  }
};

constexpr int ITEMS = cuda::edge_threads;  // heads of edges in shared memory together
constexpr int ROOM = 4 * ITEMS;            // two factors of each, and its row

/// out += what `count` heads of edges bring, whose factors and rows are in shared memory; two at a time for each group of lanes.
template <bool Whole>
__device__ __forceinline__ void add_items(real (&out)[4], const cuda::GatherArgs<real>& a, const real* factor, const int* row, int count,
                                          int c) {
  const Columns<Whole, 4> queries(a.queries, a.n1, a.n1, c), given(a.given, a.n1, a.n1, c);
#pragma unroll 2
  for (int t = 2 * group_of_lane(); t < count; t += 8) {
    int at[2];
    real f[4], q[2][4], g[2][4];
    load4(f, factor + 2 * t);
    load2(at, row + t);
#pragma unroll
    for (int s = 0; s < 2; ++s) queries.load(q[s], at[s]), given.load(g[s], at[s]);
#pragma unroll
    for (int s = 0; s < 2; ++s)
#pragma unroll
      for (int x = 0; x < 4; ++x) out[x] += f[2 * s] * q[s][x] + f[2 * s + 1] * g[s][x];
  }
}

/// out += what the attention brings; the groups of lanes share the heads of the edges. By the whole block, with barriers before.
__device__ __forceinline__ void add_attention(real (&out)[4], const Atom& atom, real* room, int chunk) {
  const cuda::GatherArgs<real>& a = atom.a;
  int* row = reinterpret_cast<int*>(room + 2 * ITEMS);  // of (centres nh, n1)
  const int items = atom.n * a.nh, c = chunk + column_of_lane();
  for (int first = 0; first < items; first += ITEMS) {
    const int count = min(ITEMS, items - first), own = min(static_cast<int>(threadIdx.x), count - 1);
    __syncthreads();
    if (threadIdx.x <= count) {  // behind the last one, it again, times zero: they are read by twos
      const int item = first + own, e = atom.edges.edge(item / a.nh), h = item % a.nh;
      real factor[2];
      load2(factor, row_of(a.room, e, 2 * a.nh) + 2 * h);
      if (threadIdx.x == count) factor[0] = factor[1] = 0;
      store2(room + 2 * threadIdx.x, factor);
      row[threadIdx.x] = atom.edges.row(e) * a.nh + h;
    }
    __syncthreads();
    if (chunk >= a.n1) continue;
    if (a.n1 % 4 == 0)
      add_items<true>(out, a, room, row, count, c);
    else
      add_items<false>(out, a, room, row, count, c);
  }
}

/// AtOnce: all edges and numbers have been staged.
template <bool AtOnce>
__device__ __forceinline__ void to_g1(const Atom& atom, real* room) {
  const cuda::GatherArgs<real>& a = atom.a;
  const int j = blockIdx.x, k_end = a.P != nullptr ? a.n2 : a.vectors != nullptr ? 1 : 0;
  for (int c0 = 0; c0 < a.n1; c0 += 32 * WARPS) {
    const int chunk = c0 + threadIdx.x / 32 * 32, c = chunk + column_of_lane();
    const bool mine = chunk < a.n1;
    real out[4] = {};
    if (AtOnce) {
      if (mine && k_end > 0) {
        EdgeSums<4, GROUP> sums;
        atom.add(sums, atom.n, c, 0);
        atom.finish(out, sums, chunk, 0);
      }
    } else {
      for (int k0 = 0; k0 < k_end; k0 += NUMBERS) {
        EdgeSums<4, GROUP> sums;
        for (int first = 0; first < atom.n; first += AT_ONCE) {
          const int count = min(AT_ONCE, atom.n - first);
          atom.stage(k0, first, count);
          if (mine) atom.add(sums, count, c, k0);
        }
        if (mine) atom.finish(out, sums, chunk, k0);
      }
    }
    if (a.room != nullptr) add_attention(out, atom, room, chunk);
    for (int x = 0; x < 4; ++x) out[x] = sum_of_groups(out[x]);
    if (!mine || group_of_lane() != 0) continue;
    real* to = row_of(a.dg1, j, a.n1);
    if (j < a.added) {
      real before[4];
      load_row4(before, to, c, a.n1);
      for (int x = 0; x < 4; ++x) out[x] += before[x];
    }
    store_row4(to, c, a.n1, out);
  }
}

template <bool AtOnce>
__device__ __forceinline__ void to_node(const Atom& atom, real* parts) {
  const cuda::GatherArgs<real>& a = atom.a;
  for (int k0 = 0; AtOnce ? k0 == 0 : k0 < a.n2; k0 += NUMBERS) {
    PairSums pairs;
    for (int first = 0; AtOnce ? first == 0 : first < atom.n; first += AT_ONCE) {
      const int count = AtOnce ? atom.n : min(AT_ONCE, atom.n - first);
      if (!AtOnce) atom.stage(k0, first, count);
      pairs.add_rows(atom.factors, count, a.node_rows + k0, a.node_stride, a.n2 - k0);
    }
    const real whole = pairs.whole(parts);
    const int k = k0 + threadIdx.x;
    if (threadIdx.x < NUMBERS && k < a.n2) row_of(a.dnode, blockIdx.x, a.n2)[k] = whole;
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, RESIDENT) gather(const cuda::GatherArgs<real> a) {
  __align__(16) __shared__ real number[AT_ONCE * FACTORS];
  __align__(16) __shared__ int row[AT_ONCE];
  __align__(16) __shared__ real parts[ROOM];
  static_assert(ROOM >= PairSums::ROOM, "it is enough");
  const int j = blockIdx.x, begin = a.begin[j], n = a.begin[j + 1] - begin;
  const math::Normalisation<DeviceMath, real> kappa{a.nsel, a.smooth != 0, a.root != 0};
  const Atom atom{a, {number, nullptr, row}, {a.edges + begin, a.centre, a.start, kappa}, n};
  const bool products = a.P != nullptr || a.vectors != nullptr, node = a.dnode != nullptr, neighbour = products || a.room != nullptr;
  if (n <= AT_ONCE && a.n2 <= NUMBERS) {
    if (products || node) atom.stage(0, 0, n);
    if (neighbour) to_g1<true>(atom, parts);
    if (node) to_node<true>(atom, parts);
  } else {
    if (neighbour) to_g1<false>(atom, parts);
    if (node) to_node<false>(atom, parts);
  }
}
