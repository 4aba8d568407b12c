// The pair channel of a centre whose edges are several tiles, with the registers of one (pair_fast.cuh).
//
// Every tile of queries meets every tile of keys, that of the same edges last: what finishes rows then finds them where the keys are. A
// warp takes one of the heads. What it knows of the softmax of a query is in the margin of its tile, and moves on from tile to tile of keys:
// the largest logit so far, and sums relative to it. What does not fit beside a tile of scores, q and y, waits in scratch.
#pragma once

#include "cuda/pair_fast.cuh"

namespace dpa2 {
namespace fast {

/// What the attention of a centre reads.
struct Inputs {
  const real *g2, *h2, *w;
};

/// The softmax of a query so far, in the margin of the warp's tile; `fall`: what earlier sums are to be multiplied by.
struct __align__(16) SoftmaxSoFar {
  real top, sum, fall, inverse;
};
__device__ __forceinline__ SoftmaxSoFar& so_far(const Margin& margin, int query) {
  return *reinterpret_cast<SoftmaxSoFar*>(margin.at(query));
}

/// What the gradient needs of the softmax of a tile of queries, in scratch: the largest logit, 1 / the sum of the exponentials relative to
/// it, and the sum over the keys of R times its gradient (theory S19).
struct __align__(16) OfSoftmax {
  real top, inverse, inner, unused;
};
__device__ __forceinline__ OfSoftmax* of_softmax(real* all, int tiles, int head, int tile) {
  return reinterpret_cast<OfSoftmax*>(all) + (head * tiles + tile) * TILE;
}

/// What the attention leaves of a centre for its gradient, or null: its softmax; what the heads of a warp add to z of a tile of queries, one
/// tile for each round; and gradients of what it adds to h2.
struct ForGradient {
  real *softmax, *of_heads;
  const Edge* ddh;
};

/// From now on these are the edges of a tile of the centre.
__device__ __forceinline__ void move_to(Edges& e, const Centre& at, int tile) {
  e.first = at.first + tile * TILE;
  e.n = at.count(tile);
  e.groups = PartGrid::groups_of(e.n);
}
__device__ __forceinline__ int tile_after(const Centre& at, int tile, int turn) {
  return tile + turn < at.tiles() ? tile + turn : tile + turn - at.tiles();
}

/// w h2 and w of the tile's edges. The whole block takes part; no barrier inside.
template <class Of>
__device__ __forceinline__ void load_queries(const Of& queries, const Edges& e, const Inputs& in) {
  const int edge = threadIdx.x;
  if (edge >= TILE) return;
  const bool there = edge < e.n;
  const real w = there ? in.w[e.first + edge] : real(0);
  Edge query;
  query.w = w;
#pragma unroll
  for (int x = 0; x < 3; ++x) query.h[x] = there ? w * row_of(in.h2, e.first + edge, 3)[x] : real(0);
  queries[edge] = query;
}

/// The scores of one more tile of keys become exponentials, relative to the largest logits so far, in which these are now.
template <class Of>
__device__ __forceinline__ void add_to_softmax(const Edges& e, const Of& of_queries, PartGrid& s, const Margin& margin, const real* c1,
                                               bool gate, real shift) {
  const Margin::Four before = margin.columns();
  const auto queries = of_queries.columns();
  real w[PartGrid::COLUMNS], most[PartGrid::COLUMNS], base[PartGrid::COLUMNS], sum[PartGrid::COLUMNS];
#pragma unroll
  for (int y = 0; y < PartGrid::COLUMNS; ++y) {
    w[y] = queries[y].w;
    most[y] = *before.at(y);
  }
  logits(e, s, s, c1, w, gate, shift, most);
#pragma unroll
  for (int y = 0; y < PartGrid::COLUMNS; ++y) {
    most[y] = PartGrid::most_over_rows(most[y]);
    base[y] = -LOG2E * most[y];
  }
  exponentials(e.groups, s, base, sum);
  const real top = of_own<PartGrid>(most), found = PartGrid::own_sum_over_rows(sum);
  __syncwarp();  // the largest so far have been read
  SoftmaxSoFar& own = so_far(margin, PartGrid::column() + PartGrid::own_row());
  own.fall = DeviceMath::exp2(LOG2E * (own.top - top));
  own.top = top;
  own.sum = own.sum * own.fall + found;
}

/// The attention of one centre. own, z: the warp's tile, and where z of its head is left; moved(query): h2 by its head; `kept`: two tiles of
/// scratch of the warp. finish(head0, active) for every tile of queries and round of heads, between barriers.
template <class Of, class Moved, class Finish>
__device__ __forceinline__ void attention(const cuda::PairConstants<real>& with, const Inputs& in, const Centre& at, Edges& e,
                                          const Of& queries, real* c1, real* own, real* z, Moved moved, real* kept, const ForGradient& out,
                                          Finish finish) {
  const int warps = blockDim.x / 32, lane = threadIdx.x % 32;
  const real npad = with.nsel > at.n ? real(with.nsel - at.n) : real(0);
  const Margin margin{own};
  real *const kept_q = kept, *const kept_y = kept + cuda::tile_numbers;
  const bool has_h2 = with.h2_weight != nullptr, has_z = with.value != nullptr;
#pragma unroll 1
  for (int jt = 0; jt < at.tiles(); ++jt) {
    move_to(e, at, jt);
    const int groups = e.groups;
    load_queries(queries, e, in);
    e.load(in.g2, in.h2, in.w, with.shift);
    __syncthreads();
#pragma unroll 1
    for (int head0 = 0; head0 < with.heads; head0 += warps) {
      // A warp too many does the last head again, and nobody takes what it finds.
      const int active = with.heads - head0 < warps ? with.heads - head0 : warps;
      const int head = head0 + (e.warp < active ? e.warp : active - 1), matrix = head * cuda::tile_numbers;
      real* const of_h2 = moved(row_of_lane());
      PartGrid q;
      q.rows_times_matrix(groups, e.channels(), e.g2, with.query_t + matrix);
      q.write(own);
      q.save(kept_q);
      so_far(margin, lane) = {math::least_logit(npad, with.shift), npad, real(0), real(0)};
#pragma unroll
      for (int i = 0; i < 3; ++i) of_h2[i] = real(0);
#pragma unroll 1
      for (int turn = 1; turn <= at.tiles(); ++turn) {
        __syncthreads();
        move_to(e, at, tile_after(at, jt, turn));
        e.load(in.g2, in.h2, in.w, with.shift);
        __syncthreads();
        e.write_c1(c1, queries);
        __syncthreads();
        if (turn > 1) {
          q.restore(kept_q);
          q.write(own);
          __syncwarp();
        }
        PartGrid r;
        r.rows_times_rows(e.groups, e.channels(), e.g2, own);
        add_to_softmax(e, queries, r, margin, c1, with.gate != 0, with.shift);
        times_c1(e.groups, r, c1);
        __syncwarp();
        r.write_turned(own);
        __syncwarp();
        if (has_h2) {
          real sum[3];
          row_times(own, e.edges(), e.h2, sum);
          const real fall = so_far(margin, row_of_lane()).fall;
#pragma unroll
          for (int i = 0; i < 3; ++i) of_h2[i] = of_h2[i] * fall + sum[i];
        }
        if (!has_z) continue;
        PartGrid y;
        y.clear();
        if (turn > 1) {
          const Margin::Rows rows = margin.rows();
          y.restore(kept_y);
#pragma unroll
          for (int x = 0; x < PartGrid::ROWS; ++x) y.scale(x, rows[x].h[2]);
        }
        y.rows_times_tile<true>(groups, e.edges(), own, e.g2);
        if (turn < at.tiles()) {
          y.save(kept_y);
        } else {
          __syncwarp();
          y.write(own);
        }
      }
      so_far(margin, lane).inverse = real(1) / so_far(margin, lane).sum;
      __syncwarp();
      if (out.softmax != nullptr && e.warp < active) {
        real along = 0;
        if (has_h2)
#pragma unroll
          for (int i = 0; i < 3; ++i) along += out.ddh[jt * TILE + lane].h[i] * moved(lane)[i];
        const SoftmaxSoFar& found = so_far(margin, lane);
        of_softmax(out.softmax, at.tiles(), head, jt)[lane] = {found.top, found.inverse,
                                                               has_h2 ? with.h2_weight[head] * along * found.inverse : real(0), real(0)};
      }
      if (has_h2 && out.softmax == nullptr)
#pragma unroll
        for (int i = 0; i < 3; ++i) of_h2[i] *= with.h2_weight[head] * so_far(margin, row_of_lane()).inverse;
      if (has_z) {
        PartGrid r;
        r.rows_times_matrix(groups, e.channels(), own, with.value + matrix);
        const Margin::Rows rows = margin.rows();
#pragma unroll
        for (int x = 0; x < PartGrid::ROWS; ++x) r.scale(x, rows[x].w);
        if (out.of_heads != nullptr) r.save(out.of_heads + head0 / warps * cuda::tile_numbers);
        __syncwarp();
        r.write(z);
      }
      __syncthreads();
      finish(head0, active);
      __syncthreads();
    }
  }
}

__device__ __forceinline__ void forward_tiled(const cuda::PairLayerArgs<real>& a, int first, int n, real* shared) {
  const int warps = blockDim.x / 32, warp = uniform(threadIdx.x / 32);
  real *const c1 = shared + QUARTERED, *const tiles = c1 + QUARTERED;
  real* const own = tiles + warp * QUARTERED;  // q, then R, then y, then z of this warp's head
  Key* const keys = reinterpret_cast<Key*>(tiles + warps * QUARTERED);
  real* const moved = reinterpret_cast<real*>(keys + TILE) + warps * TILE;
  const Apart queries{moved + warps * 4 * TILE};
  Edges e{first, n, a.with.n2, PartGrid::ROWS, warp, shared, Margin{shared}, Margin{c1}, keys};
  real* const scratch = row_of(a.scratch, blockIdx.x, cuda::pair_layer_scratch(true, a.with.n2, a.with.heads, a.most, sizeof(real)));
  attention(
      a.with, {a.g2, a.h2, a.w}, {first, n}, e, queries, c1, own, own, [&](int query) { return moved + (warp * TILE + query) * 4; },
      scratch + warp * cuda::pair_tiled_scratch, {}, [&](int head0, int active) { finish(a, e, head0, active, tiles, nullptr, moved); });
}

}  // namespace fast
}  // namespace dpa2
