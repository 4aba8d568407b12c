// The gradient of the pair channel of a centre whose edges are several tiles, with the registers of one (pair_fast_backward.cuh).
//
// The attention is computed again, into z and the softmax of the queries; then every tile of queries meets every tile of keys once more, that
// of the same edges last. What is the queries' waits for that one in scratch and in a margin, and is then added to what is the keys'.
#pragma once

#include "cuda/pair_fast_backward.cuh"
#include "cuda/pair_tiled.cuh"

namespace dpa2 {
namespace fast {

/// Edges in scratch.
struct Kept {
  Edge* first;

  struct Four {
    const Edge* first;
    __device__ __forceinline__ Edge operator[](int y) const { return first[y]; }
  };
  __device__ __forceinline__ Four columns() const { return four(grid_column()); }
  __device__ __forceinline__ Four four(int group) const { return {first + 4 * group}; }
};

/// A tile of queries of a head, and one of several tiles of keys.
struct TileOfQueries {
  static constexpr bool ALL_KEYS = false;
  Margin scaled;  // w h2
  Kept up;        // gradients of the update of h2
  int groups, count;
  bool is_first, is_last;  // of the keys
  const OfSoftmax* softmax;
  real *kept_y, *kept_sums;

  __device__ __forceinline__ bool last() const { return is_last; }
  __device__ __forceinline__ OfSoftmax of(int y) const { return softmax[PartGrid::column() + PartGrid::across(y)]; }
  __device__ __forceinline__ void inner(real (&v)[PartGrid::COLUMNS]) const {
#pragma unroll
    for (int y = 0; y < PartGrid::COLUMNS; ++y) v[y] = of(y).inner;
  }
  __device__ __forceinline__ void add_to_query(const Margin& sums, int y, real sum) const {
    real* const kept = kept_sums + y * 32 + threadIdx.x % 32;
    if (!is_first) sum += *kept;
    if (is_last)
      sums.columns().at(y)[PartGrid::own_row()] = sum;
    else
      *kept = sum;
  }
  __device__ __forceinline__ void add_to_key(const Margin& sums, int x, real sum) const {
    real* const to = sums.rows().at(x) + PartGrid::own_column();
    *to = is_last ? *to + sum : sum;
  }
  __device__ __forceinline__ void sum_over_keys(PartGrid& y, const Edges& e, const real* tile) const {
    y.clear();
    if (!is_first) y.restore(kept_y);
    y.rows_times_tile<true>(groups, e.edges(), tile, e.g2);
  }
  __device__ __forceinline__ void keep(const PartGrid& y) const { y.save(kept_y); }
};

/// Scores become the probabilities of the keys.
__device__ __forceinline__ void probabilities(const Edges& e, const TileOfQueries& of, const PartGrid& s, PartGrid& p, const real* c1,
                                              bool gate, real shift) {
  const Margin::Four queries = of.scaled.columns();
  real w[PartGrid::COLUMNS], most[PartGrid::COLUMNS] = {}, base[PartGrid::COLUMNS], inverse[PartGrid::COLUMNS];
#pragma unroll
  for (int y = 0; y < PartGrid::COLUMNS; ++y) {
    const OfSoftmax softmax = of.of(y);
    w[y] = queries[y].w;
    base[y] = -LOG2E * softmax.top;
    inverse[y] = softmax.inverse;
  }
  logits(e, s, p, c1, w, gate, shift, most);
  exponentials(e.groups, p, base, most);
#pragma unroll
  for (int x = 0; x < PartGrid::ROWS; ++x)
#pragma unroll
    for (int y = 0; y < PartGrid::COLUMNS; ++y) p.at[x][y] *= inverse[y];
}

/// To the inner sum of a head's softmax comes what z gives. of_head: what the head adds to z; dz: of n queries.
__device__ __forceinline__ void add_inner(const real* of_head, const real* dz, int n, OfSoftmax* softmax) {
  PartGrid z;
  z.restore(of_head);
#pragma unroll
  for (int x = 0; x < PartGrid::ROWS; ++x) {
    const int row = PartGrid::row() + PartGrid::down(x);
    real given[PartGrid::COLUMNS] = {};
    if (row < n)
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) read_vector<VECTOR>(dz + row * TILE + grid_vector(g), given + g * VECTOR);
    const real sum = product(z.at[x], given);
    if (grid_column() == 0) softmax[row].inner += sum;
  }
}

__device__ __forceinline__ void attention_backward(const cuda::PairLayerBackwardArgs<real>& a, const Centre& at, Edges& e,
                                                   const Margin& queries, const Kept& ddh, real* c1, real* tiles, real* kept,
                                                   const real* dz, real* softmax) {
  const auto& with = a.with;
  const Inputs in{a.g2, a.h2, a.w};
  const int warps = blockDim.x / 32;
  real *const T1 = tiles + 2 * e.warp * QUARTERED, *const T2 = T1 + QUARTERED;
  real *const kept_q = kept, *const kept_y = kept_q + cuda::tile_numbers, *const kept_V = kept_y + cuda::tile_numbers,
              *const kept_sums = kept + cuda::pair_tiled_warp_scratch_backward((with.heads + warps - 1) / warps) - 4 * TILE;
  const bool has_z = with.value != nullptr;
#pragma unroll 1
  for (int jt = 0; jt < at.tiles(); ++jt) {
    move_to(e, at, jt);
    const int groups = e.groups, in_query = e.n, count = e.edges();
    load_queries(queries, e, in);
    e.load(in.g2, in.h2, in.w, with.shift);
#pragma unroll 1
    for (int head0 = 0; head0 < with.heads; head0 += warps) {
      const int active = with.heads - head0 < warps ? with.heads - head0 : warps;
      const int head = head0 + (e.warp < active ? e.warp : active - 1), matrix = head * cuda::tile_numbers;
      if (has_z) load_kept(tiles + QUARTERED, dz + jt * cuda::tile_numbers, in_query);
      __syncthreads();
      PartGrid q;
      q.rows_times_matrix(groups, e.channels(), e.g2, with.query_t + matrix);
      q.save(kept_q);
      if (has_z) {
        PartGrid V;
        V.rows_times_matrix(groups, e.channels(), tiles + QUARTERED, with.value_t + matrix);
        V.save(kept_V);
      }
#pragma unroll 1
      for (int turn = 1; turn <= at.tiles(); ++turn) {
        __syncthreads();
        move_to(e, at, tile_after(at, jt, turn));
        e.load(in.g2, in.h2, in.w, with.shift);
        PartGrid s, V;
        s.restore(kept_q);
        s.write(T1);
        V.clear();
        if (has_z) V.restore(kept_V);
        V.write(T2);
        __syncthreads();
        e.write_c1(c1, queries);
        __syncthreads();
        s.rows_times_rows(e.groups, e.channels(), e.g2, T1);
        const TileOfQueries of{queries,
                               {ddh.first + jt * TILE},
                               groups,
                               count,
                               turn == 1,
                               turn == at.tiles(),
                               of_softmax(softmax, at.tiles(), head, jt),
                               kept_y,
                               kept_sums};
        PartGrid p;
        probabilities(e, of, s, p, c1, with.gate != 0, with.shift);
        __syncwarp();
        p.write(T1);
        gradients(with, e, of, head, s, T1, T2, c1, kept_q);
        __syncthreads();
        add_gradients(a, e, active, tiles, real(1));
      }
      __syncthreads();
    }
  }
}

__device__ __forceinline__ void backward_tiled(const cuda::PairLayerBackwardArgs<real>& a, int first, int n, real* shared) {
  const auto& with = a.with;
  const int warps = blockDim.x / 32, warp = uniform(threadIdx.x / 32), heads = with.heads;
  const int rounds = (heads + warps - 1) / warps;
  const Centre at{first, n};
  real *const c1 = shared + QUARTERED, *const tiles = c1 + QUARTERED;
  real *const T1 = tiles + 2 * warp * QUARTERED, *const T2 = T1 + QUARTERED;
  Key* const keys = reinterpret_cast<Key*>(tiles + 2 * warps * QUARTERED);
  const Margin queries{tiles + QUARTERED};
  Edges e{first, n, with.n2, PartGrid::ROWS, warp, shared, Margin{shared}, Margin{c1}, keys};
  real* const scratch = row_of(a.scratch, blockIdx.x, cuda::pair_layer_scratch_backward(true, with.n2, heads, a.most, sizeof(real)));
  const int of_warp = cuda::pair_tiled_warp_scratch_backward(rounds);
  real* const kept = scratch + warp * of_warp;
  real* const dz = scratch + warps * of_warp;  // z until it is complete
  real* const softmax = dz + cuda::tiles_of(a.most) * cuda::tile_numbers;
  Edge* const ddh = reinterpret_cast<Edge*>(softmax + cuda::tiles_of(a.most) * 4 * TILE * heads);
  if (with.h2_weight != nullptr)
    for (int t = threadIdx.x; t < at.tiles() * TILE; t += blockDim.x) {
      Edge given{};
#pragma unroll
      for (int i = 0; i < 3; ++i)
        if (t < n) {
          real* const dh2 = row_of(a.dh2, first + t, 3) + i;
          given.h[i] = with.h2_r * *dh2;
          *dh2 *= with.h2_a;
        }
      ddh[t] = given;
    }
  real* const of_heads = kept + 2 * cuda::tile_numbers;
  // T2 has h2 of the warp's head until z is there.
  attention(
      with, {a.g2, a.h2, a.w}, at, e, queries, c1, T1, T2, [&](int query) { return T2 + place(query); }, kept, {softmax, of_heads, ddh},
      [&](int head0, int active) {
        const bool last = head0 + warps >= heads;
        const int jt = (e.first - first) / TILE;
        real* const own_dz = dz + jt * cuda::tile_numbers;
        finish_backward(a, e, active, head0 == 0, last, tiles + QUARTERED, own_dz);
        if (!last || with.value == nullptr) return;
        __syncthreads();
#pragma unroll 1
        for (int head = warp, round = 0; head < heads; head += warps, ++round)
          add_inner(of_heads + round * cuda::tile_numbers, own_dz, e.n, of_softmax(softmax, at.tiles(), head, jt));
      });
  attention_backward(a, at, e, queries, {ddh}, c1, tiles, kept, dz, softmax);
}

}  // namespace fast
}  // namespace dpa2
