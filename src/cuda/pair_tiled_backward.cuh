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
  const TiledScratch& scratch;
  int head, tile;

  __device__ __forceinline__ bool last() const { return is_last; }
  __device__ __forceinline__ OfSoftmax of(int y) const { return scratch.softmax(head, tile)[PartGrid::column() + PartGrid::across(y)]; }
  __device__ __forceinline__ void inner(real (&v)[PartGrid::COLUMNS]) const {
#pragma unroll
    for (int y = 0; y < PartGrid::COLUMNS; ++y) v[y] = of(y).inner;
  }
  __device__ __forceinline__ void add_to_query(const Margin& sums, int y, real sum) const {
    real* const kept = scratch.sums() + y * 32 + lane_number();
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
    if (!is_first) y.restore(scratch.y());
    y.rows_times_tile<true>(groups, e.edges(), tile, e.g2);
  }
  __device__ __forceinline__ void keep(const PartGrid& y) const { y.save(scratch.y()); }
  __device__ __forceinline__ const real* kept_q() const { return scratch.q(); }
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
                                                   const Margin& queries, real* c1, real* tiles, const TiledScratch& scratch) {
  const auto& with = a.with;
  const Inputs in{a.g2, a.h2, a.w};
  const int warps = blockDim.x / 32;
  real *const T1 = tiles + 2 * e.warp * QUARTERED, *const T2 = T1 + QUARTERED;
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
      if (has_z) load_kept(tiles + QUARTERED, scratch.dz(jt), in_query);
      __syncthreads();
      PartGrid q;
      q.rows_times_matrix(groups, e.channels(), e.g2, with.query_t + matrix);
      q.save(scratch.q());
      if (has_z) {
        PartGrid V;
        V.rows_times_matrix(groups, e.channels(), tiles + QUARTERED, with.value_t + matrix);
        V.save(scratch.V());
      }
#pragma unroll 1
      for (int turn = 1; turn <= at.tiles(); ++turn) {
        __syncthreads();
        move_to(e, at, tile_after(at, jt, turn));
        e.load(in.g2, in.h2, in.w, with.shift);
        PartGrid s, V;
        s.restore(scratch.q());
        s.write(T1);
        V.clear();
        if (has_z) V.restore(scratch.V());
        V.write(T2);
        __syncthreads();
        e.write_c1(c1, queries);
        __syncthreads();
        s.rows_times_rows(e.groups, e.channels(), e.g2, T1);
        const TileOfQueries of{queries, {scratch.ddh(jt)}, groups, count, turn == 1, turn == at.tiles(), scratch, head, jt};
        PartGrid p;
        p.clear();
        probabilities(e, of, s, p, c1, with.gate != 0, with.shift);
        __syncwarp();
        p.write(T1);
        gradients(with, e, of, head, s, T1, T2, c1);
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
  const Centre at{first, n};
  real *const c1 = shared + QUARTERED, *const tiles = c1 + QUARTERED;
  real *const T1 = tiles + 2 * warp * QUARTERED, *const T2 = T1 + QUARTERED;
  Key* const keys = reinterpret_cast<Key*>(tiles + 2 * warps * QUARTERED);
  const Margin queries{tiles + QUARTERED};
  Edges e{first, n, with.n2, PartGrid::ROWS, warp, shared, Margin{shared}, Margin{c1}, keys};
  const int of_block = static_cast<int>(blockIdx.x) * cuda::pair_layer_scratch_backward(true, with.n2, heads, a.most, sizeof(real));
  const int of_warp = cuda::pair_tiled_warp_scratch_backward((heads + warps - 1) / warps);
  const TiledScratch scratch{a.scratch, of_block + warp * of_warp, of_block + warps * of_warp, cuda::tiles_of(a.most), heads};
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
      scratch.ddh(0)[t] = given;
    }
  // T2 has h2 of the warp's head until z is there.
  attention(
      with, {a.g2, a.h2, a.w}, at, e, queries, c1, T1, T2, [&](int query) { return T2 + place(query); }, scratch,
      [&](int head0, int active) {
        const bool last = head0 + warps >= heads;
        const int jt = (e.first - first) / TILE;
        finish_backward(a, e, active, head0 == 0, last, tiles + QUARTERED, scratch.dz(jt));
        if (!last || with.value == nullptr) return;
        __syncthreads();
#pragma unroll 1
        for (int head = warp, round = 0; head < heads; head += warps, ++round)
          add_inner(scratch.of_head(round), scratch.dz(jt), e.n, scratch.softmax(head, jt));
      });
  attention_backward(a, at, e, queries, c1, tiles, scratch);
}

}  // namespace fast
}  // namespace dpa2
