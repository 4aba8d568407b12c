// The pair channel of a centre with any number of edges, channels and heads (theory 8.2, 8.5-8.7, 8.11, S1-S3).
//
// Tiles of 32 queries and 32 keys, and 32 channels at a time: shared memory does not grow with anything. A warp takes one head. What
// depends on a query alone is mapped once per query (q = A g2_j, V = B dz_j), so that keys are never mapped:
//   forward    S[k][j] = g2_k . q_j,  y_j = sum_k R[k][j] g2_k,  z_j += y_j B
//   backward   D[k][j] = g2_k . V_j,  y_j = sum_k dS[k][j] g2_k,  dg2_j += y_j A,  dg2_k += sum_j R[k][j] V_j + dS[k][j] q_j
// with R = P c1, c1 = HH c2, c2 = w_j w_k, HH = h2_j . h2_k. Keys are rows of the tiles and queries columns. Where all is one tile of
// edges and channels, q and y pass through shared memory; else they are in scratch.
#pragma once

#include "cuda/pair_layer.hpp"
#include "cuda/pair_rows.cuh"
#include "cuda/pair_tiles.cuh"

namespace dpa2 {
namespace general {

/// What the attention of a centre reads.
struct Inputs {
  const real *g2, *h2, *w;
};

/// Rows of a warp that are on their way at once.
constexpr int AHEAD = 4;

/// The tile of rows that all warps of a block read, and the edges that are the keys; it knows which ones it has, and they come from global
/// memory when others are wanted. Many loads at a time, and those before the barrier: a block has little else to do meanwhile.
struct BlockRows {
  real* tile;
  Edge* keys;
  const real* array;
  int row, chunk, first_key;

  __device__ __forceinline__ BlockRows(real* rows, Edge* edges)
      : tile(rows), keys(edges), array(nullptr), row(0), chunk(0), first_key(-1) {}

  /// Channels of tile `which` of the rows from `first` on, of which there are `count`. The whole block takes part.
  __device__ __forceinline__ void load(const real* from, int first, int count, int channels, int which) {
    if (array == from && row == first && chunk == which) return;
    array = from;
    row = first;
    chunk = which;
    const int lane = threadIdx.x % 32, c = which * TILE + lane, warps = blockDim.x / 32;
    const real* const own = row_of(from, first, channels) + c;
#pragma unroll 1
    for (int begin = threadIdx.x / 32; begin < TILE; begin += AHEAD * warps) {
      real v[AHEAD];
#pragma unroll
      for (int x = 0; x < AHEAD; ++x) {
        const int r = begin + x * warps;
        v[x] = r < count && c < channels ? own[r * channels] : real(0);
      }
      if (begin < warps) __syncthreads();
#pragma unroll
      for (int x = 0; x < AHEAD; ++x) {
        const int r = begin + x * warps;
        if (r < TILE) tile[r * TILE_ROW + lane] = v[x];
      }
    }
    __syncthreads();
  }

  /// The edges from `first` on, of which there are `count`. With barriers before and after.
  __device__ __forceinline__ void load_keys(const Inputs& in, int first, int count) {
    if (first_key == first) return;
    first_key = first;
    __syncthreads();
    load_edges(keys, in.h2, in.w, first, count);
    __syncthreads();
  }
};

/// before(row, channel) + one tile of each warp, `apart` numbers from each other, to out(row, channel, sum): rows below `count`, channels
/// below `channels` of tile `chunk`. The same thread gets the same row and channel every time. With barriers before and after.
template <class Before, class Out>
__device__ __forceinline__ void add_all_tiles(const real* tiles, int apart, int active, int count, int channels, int chunk, Before before,
                                              Out out) {
  const int lane = threadIdx.x % 32, c = chunk * TILE + lane, warps = blockDim.x / 32;
#pragma unroll 1
  for (int begin = threadIdx.x / 32; begin < TILE; begin += AHEAD * warps) {
    real base[AHEAD], sum[AHEAD];
#pragma unroll
    for (int x = 0; x < AHEAD; ++x) {
      const int r = begin + x * warps;
      base[x] = r < count && c < channels ? before(r, c) : real(0);
      sum[x] = real(0);
    }
    if (begin < warps) __syncthreads();
    const real* own = tiles + begin * TILE_ROW + lane;
#pragma unroll 1
    for (int other = 0; other < active; ++other, own += apart)
#pragma unroll
      for (int x = 0; x < AHEAD; ++x)
        if (begin + x * warps < count) sum[x] += own[x * warps * TILE_ROW];
#pragma unroll
    for (int x = 0; x < AHEAD; ++x) {
      const int r = begin + x * warps;
      if (r < count && c < channels) out(r, c, base[x] + sum[x]);
    }
  }
  __syncthreads();
}

/// Shared memory of a block, for a tile per warp or two.
struct Room {
  real* rows;       // a tile that all warps read
  real* first_own;  // tiles of the first warp, which are `apart` numbers from those of the next one
  int apart;
  real* own;  // tiles of this warp
  Edge *queries, *keys;
  real* all_sums;   // of all warps
  real* sums;       // of this one: four numbers per edge of a tile
  real* per_query;  // of this warp: one per query of a tile
  real* top;        // another one, in the forward
  Edge* up;         // gradients of what the attention adds to h2; the backward alone has them

  __device__ __forceinline__ Room(real* shared, int tiles) : rows(shared), first_own(shared + PADDED_TILE), apart(tiles * PADDED_TILE) {
    const int warps = blockDim.x / 32, warp = threadIdx.x / 32;
    own = first_own + warp * apart;
    queries = reinterpret_cast<Edge*>(first_own + warps * apart);
    keys = queries + TILE;
    all_sums = reinterpret_cast<real*>(keys + TILE);
    sums = all_sums + warp * 4 * TILE;
    per_query = all_sums + warps * 4 * TILE + warp * TILE;
    real* const behind = all_sums + warps * 5 * TILE;
    top = tiles > 1 ? own + PADDED_TILE : behind + warp * TILE;  // with two tiles, the forward has no use for the second
    up = reinterpret_cast<Edge*>(behind);
  }
};

/// What it leaves of a centre; null where that is not wanted. Of h2_out, all.
struct Outputs {
  real* z;          // (n, n2) before LayerNorm
  real* h2_out;     // (capacity, 3)
  real* softmax;    // (heads, tiles, 3, 32): see OfQueries
  real* of_heads;   // of this warp, (rounds, n2 / 32) tiles: what each of its heads adds to z, of one tile of queries
  const real* ddh;  // (n, 3) gradients of what the attention adds to h2
};

/// What the gradient needs of the softmax of a tile of queries: the largest logit, 1 / sum of the exponentials relative to it, and the sum
/// over the keys of R times its gradient (theory S19).
struct OfQueries {
  real* at;

  __device__ __forceinline__ OfQueries(real* softmax, const Centre& centre, int head, int tile)
      : at(softmax + (head * centre.tiles() + tile) * 3 * TILE) {}
  __device__ __forceinline__ real& top(int j) const { return at[j]; }
  __device__ __forceinline__ real& inverse(int j) const { return at[TILE + j]; }
  __device__ __forceinline__ real& inner(int j) const { return at[2 * TILE + j]; }
};

/// The softmax of the queries of a tile over the keys, tile by tile. A lane has four queries; what it keeps of them is in shared memory,
/// because a loop over queries finds no registers by number.
struct Softmax {
  real* sums;     // four numbers per query: R h2_k relative to the largest logit, of use where h2 is updated, and the denominator
  real* top;      // per query: the largest logit so far
  real* falling;  // per query: what earlier sums are to be multiplied by

  __device__ __forceinline__ void begin(real npad, real shift) const {
#pragma unroll
    for (int y = 0; y < 4; ++y) {
      const int j = lane_column() + 8 * y;
      if (lane_row() == 0) top[j] = math::least_logit(npad, shift);
      sums[4 * j + lane_row()] = lane_row() == 3 ? npad : real(0);
    }
    __syncwarp();
  }

  /// Scores become exp(logit - top) c1 in a tile of pairs, of which a lane takes a column of its own at a time.
  __device__ __forceinline__ void add(real* S, const Edge* keys, const Edge* queries, int count, int query_count, bool gate, bool with_h2,
                                      real shift) const {
    constexpr int KEYS = sizeof(real) == 8 ? 4 : 8;  // of a lane at a time: in double there are no registers for more
#pragma unroll 1
    for (int y = 0; 8 * y < query_count; ++y) {
      const int j = lane_column() + 8 * y;
      const Edge query = queries[j];
      const real before = top[j];
      real s[KEYS], c1[KEYS], most = before, sum[4] = {};
      const auto read = [&](int x0) {
        read_column(S, x0, y, s);
#pragma unroll
        for (int x = 0; x < KEYS; ++x) c1[x] = keys[pair_row(x0 + x)].times(query) * (query.w * keys[pair_row(x0 + x)].w);
      };
#pragma unroll 1
      for (int x0 = 0; x0 < 8; x0 += KEYS) {
        read(x0);
#pragma unroll
        for (int x = 0; x < KEYS; ++x) {
          const real c2 = query.w * keys[pair_row(x0 + x)].w;
          s[x] = pair_row(x0 + x) < count ? math::logit(s[x], gate ? c1[x] : c2, c2, shift) : real(-1e30);
          most = s[x] > most ? s[x] : most;
        }
        if (KEYS < 8) write_column(S, x0, y, s);
      }
      most = most_over_rows(most);
#pragma unroll 1
      for (int x0 = 0; x0 < 8; x0 += KEYS) {
        if (KEYS < 8) read(x0);
#pragma unroll
        for (int x = 0; x < KEYS; ++x) {
          const real p = DeviceMath::exp(s[x] - most);
          s[x] = p * c1[x];
          sum[3] += p;
        }
        if (with_h2)
#pragma unroll
          for (int x = 0; x < KEYS; ++x)
#pragma unroll
            for (int i = 0; i < 3; ++i) sum[i] += s[x] * keys[pair_row(x0 + x)].h[i];
        write_column(S, x0, y, s);
      }
      const real fall = DeviceMath::exp(before - most), own = own_sum_over_rows(sum);
      sums[4 * j + lane_row()] = sums[4 * j + lane_row()] * fall + own;
      __syncwarp();  // the largest so far has been read
      if (lane_row() == 0) {
        top[j] = most;
        falling[j] = fall;
      }
    }
  }
};

/// The attention of one centre. `scratch`: of this warp, 2 tiles_of(n2) tiles where everything is more than one tile. finish(tile) when
/// its queries are done. Ends with a barrier; begins without one, but nobody may read the room any more.
template <class Finish>
__device__ __forceinline__ void attention(const cuda::PairConstants<real>& with, const Inputs& in, const Centre& at, const Room& room,
                                          real* scratch, const Outputs& out, Finish finish) {
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, chunks = cuda::tiles_of(with.n2);
  const bool many = at.n > TILE || chunks > 1;
  const real npad = with.nsel > at.n ? real(with.nsel - at.n) : real(0);
  real* const own = room.own;  // q, then R, then y, then z of this warp's head
  real *const q = scratch, *const y = scratch + chunks * cuda::tile_numbers;
  BlockRows rows(room.rows, room.keys);
#pragma unroll 1
  for (int jt = 0; jt < at.tiles(); ++jt) {
    const int j0 = at.first + jt * TILE, in_query = at.count(jt);
    // Nobody reads the queries before: what came before ends with a barrier, and the keys, which come first, begin with one.
    load_edges(room.queries, in.h2, in.w, j0, in_query);
#pragma unroll 1
    for (int head0 = 0; head0 < with.heads; head0 += warps) {
      // A warp too many does the last head again, and nobody takes what it finds.
      const int active = with.heads - head0 < warps ? with.heads - head0 : warps;
      const int head = head0 + (warp < active ? warp : active - 1), matrix = head * chunks * chunks;
      Results r, S;
#pragma unroll 1
      for (int c = 0; c < chunks; ++c) {
        r.clear();
#pragma unroll 1
        for (int b = 0; b < chunks; ++b) {
          rows.load(in.g2, j0, in_query, with.n2, b);
          r.add_rows_times_matrix(depth_of(with.n2, b), rows.tile, with.query_t + (matrix + b * chunks + c) * cuda::tile_numbers, TILE,
                                  in_query);
        }
        if (many)
          r.write_channels(q + c * cuda::tile_numbers, TILE);
        else
          r.write_channels(own, TILE_ROW);
      }
      const Softmax softmax{room.sums, room.top, room.per_query};
      softmax.begin(npad, with.shift);
#pragma unroll 1
      for (int kt = 0; kt < at.tiles(); ++kt) {
        const int k0 = at.first + kt * TILE, in_key = at.count(kt);
        rows.load_keys(in, k0, in_key);
        S.clear();
#pragma unroll 1
        for (int c = 0; c < chunks; ++c) {
          rows.load(in.g2, k0, in_key, with.n2, c);
          if (many) {
            __syncwarp();
            copy_tile(q + c * cuda::tile_numbers, own);
          }
          __syncwarp();
          S.add_rows_times_rows(depth_of(with.n2, c), rows.tile, own, in_key);
        }
        __syncwarp();
        S.write_pairs(own);
        softmax.add(own, room.keys, room.queries, in_key, in_query, with.gate != 0, out.h2_out != nullptr || out.ddh != nullptr,
                    with.shift);
        if (out.z == nullptr) continue;
        __syncwarp();
#pragma unroll 1
        for (int c = 0; c < chunks; ++c) {
          rows.load(in.g2, k0, in_key, with.n2, c);
          r.clear();
          if (kt > 0) {
            r.read_sums(y + c * cuda::tile_numbers, TILE);
#pragma unroll
            for (int x = 0; x < 8; ++x) r.scale(x, room.per_query[vector_row(x)]);
          }
          r.add_sum_over_rows(in_key, own, rows.tile);
          if (many) {
            r.write_sums(y + c * cuda::tile_numbers, TILE);
          } else {
            __syncwarp();
            r.write_sums(own, TILE_ROW);
          }
        }
      }
      __syncwarp();
      if (out.softmax != nullptr && warp < active && lane_row() == 0) {
        const OfQueries to(out.softmax, at, head, jt);
        const real weight = out.ddh != nullptr ? with.h2_weight[head] : real(0);
#pragma unroll
        for (int s = 0; s < 4; ++s) {
          const int j = lane_column() + 8 * s;
          const real* const sum = room.sums + 4 * j;
          real along = 0;
          if (out.ddh != nullptr && j < in_query)
#pragma unroll
            for (int i = 0; i < 3; ++i) along += out.ddh[3 * (jt * TILE + j) + i] * sum[i];
          to.top(j) = room.top[j];
          to.inverse(j) = real(1) / sum[3];
          to.inner(j) = weight * along / sum[3];
        }
      }
#pragma unroll 1
      for (int c = 0; out.z != nullptr && c < chunks; ++c) {
        S.clear();
#pragma unroll 1
        for (int b = 0; b < chunks; ++b) {
          if (many) {
            __syncwarp();
            copy_tile(y + b * cuda::tile_numbers, own);
            __syncwarp();
          }
          S.add_rows_times_matrix(depth_of(with.n2, b), own, with.value + (matrix + b * chunks + c) * cuda::tile_numbers, TILE, in_query);
        }
#pragma unroll
        for (int x = 0; x < 8; ++x) S.scale(x, real(1) / room.sums[4 * pair_row(x) + 3]);
        if (out.of_heads != nullptr) S.write_channels(out.of_heads + (head0 / warps * chunks + c) * cuda::tile_numbers, TILE);
        __syncwarp();
        S.write_channels(own, TILE_ROW);
        const auto at_z = [&](int row, int channel) -> real& { return out.z[(jt * TILE + row) * with.n2 + channel]; };
        add_all_tiles(
            room.first_own, room.apart, active, in_query, with.n2, c,
            [&](int row, int channel) { return head0 == 0 ? with.bias[channel] : at_z(row, channel); },
            [&](int row, int channel, real sum) { at_z(row, channel) = sum; });
      }
      if (out.h2_out != nullptr) {
        const real weight = with.h2_weight[head];
#pragma unroll
        for (int s = 0; s < 4; ++s) {
          real* const sum = room.sums + 4 * (lane_column() + 8 * s);
          if (lane_row() < 3) sum[lane_row()] *= weight / sum[3];
        }
        __syncthreads();
        add_edges(room.all_sums, 4 * TILE, active, in_query, [&](int row, int x, real sum) {
          if (x == 3) return;
          real* const to = row_of(out.h2_out, j0 + row, 3) + x;
          *to = (head0 == 0 ? with.h2_a * row_of(in.h2, j0 + row, 3)[x] : *to) + with.h2_r * sum;
        });
      }
      __syncthreads();
    }
    finish(jt);
  }
}

__device__ __forceinline__ void forward(const cuda::PairLayerArgs<real>& a, int first, int n, real* shared) {
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32;
  const Centre at{first, n};
  const Room room(shared, 1);
  const int of_warp = cuda::pair_warp_scratch(a.with.n2, a.most);
  real* const scratch = row_of(a.scratch, blockIdx.x, cuda::pair_layer_scratch(false, a.with.n2, a.with.heads, a.most, sizeof(real)));
  real* const z = a.with.value != nullptr ? scratch + warps * of_warp : nullptr;
  attention(a.with, {a.g2, a.h2, a.w}, at, room, scratch + warp * of_warp, {z, a.h2_out, nullptr, nullptr, nullptr}, [](int) {});
#pragma unroll 1
  for (int t = warp; t < at.tiles(); t += warps)
    update_rows({first + t * TILE, at.count(t), a.with.n2}, room.own, a, z != nullptr ? z + t * TILE * a.with.n2 : nullptr);
  __syncthreads();
}

}  // namespace general
}  // namespace dpa2
