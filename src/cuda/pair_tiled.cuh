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

/// Scratch of a block where the gradient is wanted, as places in that of all blocks: pointers would take twice the registers. Of the warp
/// sums of the queries, q, y, and V or what its heads add to z; of all warps dz, which is z until that is complete, the softmax, and
/// gradients of what the attention adds to h2.
struct TiledScratch {
  static constexpr bool FOR_GRADIENT = true;
  real* all;
  int own, common, tiles;  // tiles of the largest centre
  int heads;

  __device__ __forceinline__ real* sums() const { return all + opaque(own); }
  __device__ __forceinline__ real* q() const { return sums() + 4 * TILE; }
  __device__ __forceinline__ real* y() const { return q() + cuda::tile_numbers; }
  __device__ __forceinline__ real* V() const { return y() + cuda::tile_numbers; }
  __device__ __forceinline__ real* of_head(int round) const { return V() + round * cuda::tile_numbers; }
  __device__ __forceinline__ real* dz(int tile) const { return all + (opaque(common) + tile * cuda::tile_numbers); }
  __device__ __forceinline__ OfSoftmax* softmax(int head, int tile) const {
    return reinterpret_cast<OfSoftmax*>(dz(tiles)) + (head * tiles + tile) * TILE;
  }
  __device__ __forceinline__ Edge* ddh(int tile) const { return reinterpret_cast<Edge*>(softmax(heads, 0)) + tile * TILE; }
};
/// The forward has q and y alone.
struct ForwardScratch {
  static constexpr bool FOR_GRADIENT = false;
  real* all;
  int own;

  __device__ __forceinline__ real* q() const { return all + opaque(own); }
  __device__ __forceinline__ real* y() const { return q() + cuda::tile_numbers; }
};

__device__ __forceinline__ int lane_number() { return opaque(threadIdx.x) % 32; }

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
  const int edge = opaque(threadIdx.x);
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

/// The attention of one centre. own, z: the warp's tile, and where z of its head is left; moved(query): h2 by its head.
/// finish(head0, active) for every tile of queries and round of heads, between barriers.
template <class Of, class Moved, class Scratch, class Finish>
__device__ __forceinline__ void attention(const cuda::PairConstants<real>& with, const Inputs& in, const Centre& at, Edges& e,
                                          const Of& queries, real* c1, real* own, real* z, Moved moved, const Scratch& scratch,
                                          Finish finish) {
  const int warps = blockDim.x / 32;
  const real npad = with.nsel > at.n ? real(with.nsel - at.n) : real(0);
  const Margin margin{own};
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
      q.save(scratch.q());
      so_far(margin, lane_number()) = {math::least_logit(npad, with.shift), npad, real(0), real(0)};
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
          q.restore(scratch.q());
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
          y.restore(scratch.y());
#pragma unroll
          for (int x = 0; x < PartGrid::ROWS; ++x) y.scale(x, rows[x].h[2]);
        }
        y.rows_times_tile<true>(groups, e.edges(), own, e.g2);
        if (turn < at.tiles()) {
          y.save(scratch.y());
        } else {
          __syncwarp();
          y.write(own);
        }
      }
      SoftmaxSoFar& found = so_far(margin, lane_number());
      found.inverse = real(1) / found.sum;
      __syncwarp();
      if constexpr (Scratch::FOR_GRADIENT) {
        const int lane = lane_number();
        real along = 0;
        if (has_h2) {
          const Edge given = scratch.ddh(jt)[lane];
#pragma unroll
          for (int i = 0; i < 3; ++i) along += given.h[i] * moved(lane)[i];
          along *= with.h2_weight[head] * found.inverse;
        }
        if (e.warp < active) scratch.softmax(head, jt)[lane] = {found.top, found.inverse, along, real(0)};
      } else if (has_h2) {
        const real by = with.h2_weight[head] * so_far(margin, row_of_lane()).inverse;
#pragma unroll
        for (int i = 0; i < 3; ++i) of_h2[i] *= by;
      }
      if (has_z) {
        PartGrid r;
        r.rows_times_matrix(groups, e.channels(), own, with.value + matrix);
        const Margin::Rows rows = margin.rows();
#pragma unroll
        for (int x = 0; x < PartGrid::ROWS; ++x) r.scale(x, rows[x].w);
        if constexpr (Scratch::FOR_GRADIENT) r.save(scratch.of_head(head0 / warps));
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
  const ForwardScratch scratch{a.scratch, static_cast<int>(blockIdx.x * warps + warp) * cuda::pair_tiled_scratch};
  attention(
      a.with, {a.g2, a.h2, a.w}, {first, n}, e, queries, c1, own, own, [&](int query) { return moved + (warp * TILE + query) * 4; },
      scratch, [&](int head0, int active) { finish(a, e, head0, active, tiles, nullptr, moved); });
}

}  // namespace fast
}  // namespace dpa2
