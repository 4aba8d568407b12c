// The gradient of the pair channel of a centre with any number of edges, channels and heads (theory 12.3, 12.4, 12.8-12.10, S19).
//
// Nothing comes from the forward: z and the softmax of the queries are computed again, into scratch of the block.
#pragma once

#include "cuda/pair_general.cuh"

namespace dpa2 {
namespace general {

/// The pairs of a tile of keys and one of queries in the backward. A loop over a lane's four queries takes a column of S and D at a time,
/// where they will be read.
struct PairTile {
  const Edge *keys, *queries, *up;
  OfQueries of;
  int count, query_count;
  bool gate, with_h2;
  real shift, h2_weight;

  /// S becomes R and D, to which comes what the update of h2 gives, dS. of_keys (32, 4) = the gradients of h2 and w of the keys;
  /// of_queries (32, 4) =, or += where there is `more`: the same of the queries; a lane finds its own again. `alone`: these are all keys.
  __device__ __forceinline__ void run(real* S, real* D, bool alone, bool more, real* of_keys, real* of_queries) const {
    // Keys of a lane at a time, and whether their sums over queries are those of one column: in double there are no registers for more.
    constexpr int KEYS = sizeof(real) == 8 ? 4 : 8;
    constexpr bool by_column = sizeof(real) == 8;
    real of_key[KEYS][4] = {};
    const auto add_to_keys = [&](int x0, bool first) {
#pragma unroll
      for (int x = 0; x < KEYS; ++x) {
        const real sum = own_sum_over_columns(of_key[x]);
        real* const to = of_keys + 4 * pair_row(x0 + x) + lane_column() / 2;
        if (lane_column() % 2 == 0) *to = first ? sum : *to + sum;
#pragma unroll
        for (int i = 0; i < 4; ++i) of_key[x][i] = real(0);
      }
    };
#pragma unroll 1
    for (int y = 0; 8 * y < query_count; ++y) {
      const int j = lane_column() + 8 * y;
      const Edge edge = queries[j];
      const real top = of.top(j), inverse = of.inverse(j);
      real inner = of.inner(j);
      real of_query[4] = {};
#pragma unroll 1
      for (int x0 = 0; x0 < 8; x0 += KEYS) {
        real s[KEYS], d[KEYS], probability[KEYS];
        const Edge* const rows = keys + pair_row(x0);
        read_column(S, x0, y, s);
#pragma unroll
        for (int x = 0; x < KEYS; ++x) {
          const Edge key = rows[pair_down(x)];
          const real c2 = edge.w * key.w;
          const real e = DeviceMath::exp(math::logit(s[x], gate ? key.times(edge) * c2 : c2, c2, shift) - top);
          probability[x] = pair_row(x0 + x) < count ? e * inverse : real(0);
        }
        if (KEYS < 8) __syncwarp();  // the keys are read again, not kept: there are no registers for them
        read_column(D, x0, y, d);
        if (with_h2) {
          const Edge given = up[j];
#pragma unroll
          for (int x = 0; x < KEYS; ++x) d[x] += h2_weight * rows[pair_down(x)].times(given);
        }
        if (sizeof(real) == 4 && alone) {
          // Errors of S and D that all keys have then leave no trace, which in float are the larger ones.
          real sum = 0;
#pragma unroll
          for (int x = 0; x < KEYS; ++x) {
            const Edge key = rows[pair_down(x)];
            sum += probability[x] * (key.times(edge) * (edge.w * key.w)) * d[x];
          }
          inner = sum_over_rows(sum);
        }
#pragma unroll
        for (int x = 0; x < KEYS; ++x) {
          const Edge key = rows[pair_down(x)];
          const real product = key.times(edge), c2 = edge.w * key.w, c1 = product * c2;
          real ds, dc1, dc2;
          math::logit_backward(gate, d[x], probability[x], inner, s[x], c1, c2, shift, ds, dc1, dc2);
          const real dproduct = dc1 * c2, dweights = dc1 * product + dc2;
          s[x] = probability[x] * c1;
          d[x] = ds;
#pragma unroll
          for (int i = 0; i < 3; ++i) {
            of_query[i] += dproduct * key.h[i];
            of_key[x][i] += dproduct * edge.h[i];
          }
          of_query[3] += dweights * key.w;
          of_key[x][3] += dweights * edge.w;
        }
        write_column(S, x0, y, s);
        write_column(D, x0, y, d);
        if (with_h2) {
          const Edge given = up[j];
#pragma unroll
          for (int x = 0; x < KEYS; ++x)
#pragma unroll
            for (int i = 0; i < 3; ++i) of_key[x][i] += h2_weight * s[x] * given.h[i];
        }
        if (by_column) add_to_keys(x0, y == 0);
      }
      const real sum = own_sum_over_rows(of_query);
      real* const to = of_queries + 4 * j + lane_row();
      *to = more ? *to + sum : sum;
    }
    if (!by_column) add_to_keys(0, true);
  }
};

/// The gradients of the attention of one centre, added to dg2, dh2 and dw; dz and ddh: those of z and of what the attention adds to h2.
struct Gradients {
  const real* dz;   // (n, n2) or null
  const real* ddh;  // (n, 3) or null
  real *dg2, *dh2, *dw;
};

__device__ __forceinline__ void attention_backward(const cuda::PairConstants<real>& with, const Inputs& in, const Centre& at,
                                                   const Room& room, real* scratch, int of_warp, real* softmax, const Gradients& d) {
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, chunks = cuda::tiles_of(with.n2), tiles = at.tiles();
  const bool many = tiles > 1 || chunks > 1;
  real* const T1 = room.own;          // q, then R, then this warp's share of dg2, then y
  real* const T2 = T1 + PADDED_TILE;  // V, then dS, then this warp's share of dg2
  real* const sums = room.sums;
  // Beyond q, of use where a centre is many tiles; the host has made room for the largest.
  // Where they are is computed again wherever it is needed: there are no registers to keep it.
  const auto piece = [&](int number) { return scratch + number * opaque(chunks) * cuda::tile_numbers; };
  real* const q = scratch;
  const auto V = [&] { return piece(1); };
  const auto y = [&] { return piece(2); };
  const auto key_side = [&] { return piece(3); };
  const auto of_queries = [&] { return scratch + opaque(of_warp - 4 * TILE); };  // gradients of h2 and w
  const auto add_to_edges = [&](int first, int warps_with, int count) {
    add_edges(room.all_sums, 4 * TILE, warps_with, count, [&](int row, int x, real sum) {
      if (x == 3)
        d.dw[first + row] += sum;
      else
        row_of(d.dh2, first + row, 3)[x] += sum;
    });
  };
  // What all warps have found of rows and edges, of which add_edges follows the barrier of the rows.
  const auto add_to_rows = [&](const real* tiles_of_warps, int first, int warps_with, int count, int c) {
    real* const to = row_of(d.dg2, first, with.n2);
    add_all_tiles(
        tiles_of_warps, room.apart, warps_with, count, with.n2, c, [&](int row, int channel) { return to[row * with.n2 + channel]; },
        [&](int row, int channel, real sum) { to[row * with.n2 + channel] = sum; });
    if (c > 0) return;
    add_to_edges(first, warps_with, count);
    __syncthreads();
  };
  BlockRows rows(room.rows, room.keys);
#pragma unroll 1
  for (int jt = 0; jt < tiles; ++jt) {
    const int j0 = at.first + jt * TILE, in_query = at.count(jt);
    // Nobody reads the queries before: what came before ends with a barrier, and the keys, which come first, begin with one.
    load_edges(room.queries, in.h2, in.w, j0, in_query);
    load_edges(room.up, d.ddh, nullptr, jt * TILE, d.ddh != nullptr ? in_query : 0);
#pragma unroll 1
    for (int head0 = 0; head0 < with.heads; head0 += warps) {
      const int active = with.heads - head0 < warps ? with.heads - head0 : warps;
      const int head = head0 + (warp < active ? warp : active - 1), matrix = head * chunks * chunks;
      const real h2_weight = with.h2_weight != nullptr ? with.h2_weight[head] : real(0);
      Results r, S;
      const auto map = [&](const real* from, int first, const real* matrices, int c) {
        r.clear();
#pragma unroll 1
        for (int b = 0; b < chunks; ++b) {
          rows.load(from, first, in_query, with.n2, b);
          r.add_rows_times_matrix(depth_of(with.n2, b), rows.tile, matrices + (matrix + b * chunks + c) * cuda::tile_numbers, TILE,
                                  in_query);
        }
      };
#pragma unroll 1
      for (int c = 0; with.value_t != nullptr && c < chunks; ++c) {
        map(d.dz, jt * TILE, with.value_t, c);
        r.write_channels(V() + c * cuda::tile_numbers, TILE);
        if (!many) r.write_channels(T2, TILE_ROW);
      }
#pragma unroll 1
      for (int c = 0; c < chunks; ++c) {
        map(in.g2, j0, with.query_t, c);
        r.write_channels(q + c * cuda::tile_numbers, TILE);
        if (!many) r.write_channels(T1, TILE_ROW);
      }
#pragma unroll 1
      for (int kt = 0; kt < tiles; ++kt) {
        const int k0 = at.first + kt * TILE, in_key = at.count(kt);
        rows.load_keys(in, k0, in_key);
        // One product after the other: there are no registers for both.
        const auto score = [&](real* tile, auto of_queries) {
          r.clear();
#pragma unroll 1
          for (int c = 0; c < chunks; ++c) {
            rows.load(in.g2, k0, in_key, with.n2, c);
            if (many) {
              __syncwarp();
              copy_tile(of_queries() + c * cuda::tile_numbers, tile);
            }
            __syncwarp();
            r.add_rows_times_rows(depth_of(with.n2, c), rows.tile, tile, in_key);
          }
          __syncwarp();
          r.write_pairs(tile);
        };
        score(T1, [&] { return q; });
        r.clear();
        if (with.value_t != nullptr)
          score(T2, V);
        else
          r.write_pairs(T2);
        const PairTile pairs{room.keys,        room.queries, room.up,  OfQueries(softmax, at, head, jt), in_key, in_query, with.gate != 0,
                             d.ddh != nullptr, with.shift,   h2_weight};
        pairs.run(T1, T2, tiles == 1, kt > 0, sums, of_queries());
        __syncwarp();
        // Gradients of the keys: of their values, then of their scores.
        const int depth = depth_of(in_query, 0);
        r.clear();
#pragma unroll 1
        for (int c = 0; with.value_t != nullptr && c < chunks; ++c) {
          r.clear();
          r.add_rows_times_matrix(depth, T1, V() + c * cuda::tile_numbers, TILE, in_key);
          if (chunks > 1) r.write_channels(key_side() + c * cuda::tile_numbers, TILE);
        }
        __syncwarp();
#pragma unroll 1
        for (int c = 0; c < chunks; ++c) {
          if (chunks > 1 && with.value_t != nullptr) r.read_channels(key_side() + c * cuda::tile_numbers, TILE);
          if (chunks > 1 && with.value_t == nullptr) r.clear();
          r.add_rows_times_matrix(depth, T2, q + c * cuda::tile_numbers, TILE, in_key);
          r.write_channels(T1, TILE_ROW);
          add_to_rows(room.first_own, k0, active, in_key, c);
        }
#pragma unroll 1
        for (int c = 0; c < chunks; ++c) {
          rows.load(in.g2, k0, in_key, with.n2, c);
          r.clear();
          if (kt > 0) r.read_sums(y() + c * cuda::tile_numbers, TILE);
          r.add_sum_over_rows(in_key, T2, rows.tile);
          if (many)
            r.write_sums(y() + c * cuda::tile_numbers, TILE);
          else
            r.write_sums(T1, TILE_ROW);
        }
      }
      // Gradients of the queries.
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const int to = 4 * (lane_column() + 8 * s) + lane_row();
        if (8 * s < in_query) sums[to] = of_queries()[to];
      }
#pragma unroll 1
      for (int c = 0; c < chunks; ++c) {
        S.clear();
#pragma unroll 1
        for (int b = 0; b < chunks; ++b) {
          __syncwarp();
          if (many) {
            copy_tile(y() + b * cuda::tile_numbers, T1);
            __syncwarp();
          }
          S.add_rows_times_matrix(depth_of(with.n2, b), T1, with.query + (matrix + b * chunks + c) * cuda::tile_numbers, TILE, in_query);
        }
        S.write_channels(T2, TILE_ROW);
        add_to_rows(room.first_own + PADDED_TILE, j0, active, in_query, c);
      }
    }
  }
}

/// To the inner sums of this warp's heads comes what z gives, once its gradient dz is known.
__device__ __forceinline__ void inner_sums(const EdgeRows& e, const real* dz, const real* of_heads, int heads, const OfQueries& first,
                                           int tiles) {
  const int warps = blockDim.x / 32, chunks = cuda::tiles_of(e.n2);
#pragma unroll 1
  for (int head = threadIdx.x / 32; head < heads; head += warps, of_heads += chunks * cuda::tile_numbers) {
    real* const inner = &first.inner(0) + head * tiles * 3 * TILE;
#pragma unroll 4
    for (int x = 0; x < 8; ++x) {
      if (pair_down(x) >= e.count) break;
      const int row = e.row(x);
      real sum = 0;
#pragma unroll 1
      for (int c = 0; c < chunks; ++c)
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) {
          const Vector of_head = read_vector(of_heads + c * cuda::tile_numbers + pair_row(x) * TILE + vector_column(g));
          const Vector given = e.read(dz + row, c * TILE + vector_column(g));
#pragma unroll
          for (int i = 0; i < VECTOR; ++i) sum += of_head.v[i] * given.v[i];
        }
      sum = part_sum(sum, 8);
      if (lane_column() == 0 && e.has(x)) inner[pair_row(x)] += sum;
    }
  }
}

__device__ __forceinline__ void backward(const cuda::PairLayerBackwardArgs<real>& a, int first, int n, real* shared) {
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, n2 = a.with.n2, heads = a.with.heads;
  const Centre at{first, n};
  const Inputs in{a.g2, a.h2, a.w};
  const Room room(shared, 2);
  const int of_warp = cuda::pair_warp_scratch_backward(n2, a.most, cuda::pair_layer_rounds(heads, sizeof(real)));
  real* const scratch = row_of(a.scratch, blockIdx.x, cuda::pair_layer_scratch_backward(false, n2, heads, a.most, sizeof(real)));
  real* const own = scratch + warp * of_warp;
  real* const room_of_z = scratch + warps * of_warp;
  real* const z = a.with.value != nullptr ? room_of_z : nullptr;  // becomes its gradient
  real* const softmax = room_of_z + cuda::pair_whole_vectors(a.most * n2);
  real* const ddh = a.with.h2_weight != nullptr ? softmax + cuda::tiles_of(a.most) * 3 * TILE * heads : nullptr;
  if (ddh != nullptr)
    for (int t = threadIdx.x; t < 3 * n; t += blockDim.x) {
      real* const dh2 = row_of(a.dh2, first, 3) + t;
      ddh[t] = a.with.h2_r * *dh2;
      *dh2 *= a.with.h2_a;
    }
  // What the heads add to z is of use until z of the tile is complete, and its gradient known.
  real* const of_heads = z != nullptr ? own + (at.n > TILE || n2 > TILE ? 2 : 0) * cuda::tiles_of(n2) * cuda::tile_numbers : nullptr;
  attention(a.with, in, at, room, own, {z, nullptr, softmax, of_heads, ddh}, [&](int tile) {
    const EdgeRows rows{first + tile * TILE, at.count(tile), n2};
    real* const own_z = z != nullptr ? z + tile * TILE * n2 : nullptr;
    if (warp == 0) terms_backward(rows, a, own_z);
    if (z == nullptr) return;
    __syncthreads();
    inner_sums(rows, own_z, of_heads, heads, OfQueries(softmax, at, 0, tile), at.tiles());
  });
  __syncthreads();
#pragma unroll 1
  for (int t = warp; t < at.tiles(); t += warps) update_rows_backward({first + t * TILE, at.count(t), n2}, room.own, a, own);
  __syncthreads();
  attention_backward(a.with, in, at, room, own, of_warp, softmax, {z, ddh, a.dg2, a.dh2, a.dw});
}

}  // namespace general
}  // namespace dpa2
