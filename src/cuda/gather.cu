// What flows from the edges back to their neighbours (theory 12.6, 12.7): an atom gathers over the edges that end at it, from the rows
// of their centres. The same sums as in messages.cu, with other rows, so that nothing is kept for each edge. One block per atom.
#include "cuda/gather.hpp"

#include "cuda/edge_sums.cuh"
#include "math/normalisation.hpp"

using namespace dpa2;

namespace {

/// The edges to an atom, with the factors of the centres that they come from.
struct Ending {
  const int *edges, *centre, *start;
  math::Normalisation<DeviceMath, real> kappa;
  __device__ __forceinline__ int edge(int e) const { return edges[e]; }
  __device__ __forceinline__ int row(int edge) const { return centre[edge]; }
  __device__ __forceinline__ real of_numbers(int i) const { return kappa.conv(start[i + 1] - start[i]); }
  __device__ __forceinline__ real of_vectors(int i) const { return kappa.moment(start[i + 1] - start[i]); }
};

template <bool Whole>
__device__ __forceinline__ void add_centres(EdgeSums& sums, const cuda::GatherArgs<real>& a, const EdgeFactors& factors, int count, int c,
                                            bool vectors) {
  // The fourth group has no number of a vector: what it reads is left out in the end.
  const real* own = vectors ? a.vectors + min(group_of_lane(), 2) * a.n1 : nullptr;
  const Columns<Whole> rows(a.rows, a.n1, a.n1, c), apart(own, a.n1, 3 * a.n1, c);
  if (!vectors)
    add_edges<true, false, false>(sums, factors, count, rows, apart);
  else if (a.P != nullptr)
    add_edges<true, true, true>(sums, factors, count, rows, apart);
  else
    add_edges<false, true, true>(sums, factors, count, rows, apart);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, BLOCKS) gather(const cuda::GatherArgs<real> a) {
  __align__(16) __shared__ real number[AT_ONCE * FACTORS];
  __align__(16) __shared__ int row[AT_ONCE];
  __shared__ int edge[AT_ONCE];
  __shared__ real parts[4 * cuda::edge_threads];
  const EdgeFactors factors{number, nullptr, row, edge};
  const int j = blockIdx.x, begin = a.begin[j], n = a.begin[j + 1] - begin, ldb = cuda::padded_to_edge_tiles(a.n1);
  const Ending edges{a.edges + begin, a.centre, a.start, {a.nsel, a.smooth != 0, a.root != 0}};
  const bool numbers = a.P != nullptr, node = a.dnode != nullptr, to_g1 = numbers || a.vectors != nullptr;
  for (int c0 = 0; c0 == 0 || (c0 < a.n1 && to_g1); c0 += 32 * WARPS) {
    const int chunk = c0 + threadIdx.x / 32 * 32, c = chunk + column_of_lane();
    const bool mine = chunk < a.n1 && to_g1;
    real out[4] = {}, along[4] = {};
    for (int k0 = 0; k0 == 0 || (k0 < a.n2 && (numbers || (node && c0 == 0))); k0 += NUMBERS) {
      const bool vectors = a.vectors != nullptr && k0 == 0;
      EdgeSums sums;
      PairSums pairs;
      for (int first = 0; first < n; first += AT_ONCE) {
        const int count = min(AT_ONCE, n - first);
        if (n > AT_ONCE || a.n2 > NUMBERS || c0 == 0)
          stage_factors(factors, edges, a.w, a.h2, numbers || node ? a.g2 : nullptr, a.n2, k0, first, count);
        if (node && c0 == 0) pairs.add(factors, count, a.node_rows + k0, a.node_stride, a.n2 - k0);
        if (!mine || !(numbers || vectors)) continue;
        if (a.n1 % 4 == 0)
          add_centres<true>(sums, a, factors, count, c, vectors);
        else
          add_centres<false>(sums, a, factors, count, c, vectors);
      }
      if (mine && numbers) add_product(out, sums, a.P + k0 * ldb + c, ldb);
      if (mine && vectors && group_of_lane() < 3)
        for (int x = 0; x < 4; ++x) along[x] = sums.v[x];
      if (node && c0 == 0) {
        const real whole = pairs.whole(parts);
        const int k = k0 + PairSums::number();
        if (threadIdx.x < NUMBERS && k < a.n2) row_of(a.dnode, j, a.n2)[k] = whole;
      }
    }
    if (!mine) continue;
    if (a.r != nullptr) {
      real r[4];
      load_row4(r, a.r, c, a.n1);
      for (int x = 0; x < 4; ++x) out[x] *= r[x];
    }
    for (int x = 0; x < 4; ++x) out[x] = sum_of_groups(out[x] + along[x]);
    if (group_of_lane() != 0) continue;
    real* to = row_of(a.dg1, j, a.n1);
    if (j < a.added) {
      real before[4];
      load_row4(before, to, c, a.n1);
      for (int x = 0; x < 4; ++x) out[x] += before[x];
    }
    store_row4(to, c, a.n1, out);
  }
}
