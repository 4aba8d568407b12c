// Attention among the edges of one centre: the update of g2 and of h2 (theory 8.5-8.7, 12.9, 12.10, S1-S3).
//
// Tiles of 32 queries and 32 keys, and 32 channels at a time: shared memory does not grow with anything. A block takes a centre, a warp
// one of its heads. What depends on a query alone is mapped once per query (q = A g2_j, V = B dz_j), so that keys are never mapped:
//   forward    S[k][j] = g2_k . q_j,  y_j = sum_k R[k][j] g2_k,  z_j += y_j B
//   backward   D[k][j] = g2_k . V_j,  y_j = sum_k dS[k][j] g2_k,  dg2_j += y_j A,  dg2_k += sum_j R[k][j] V_j + dS[k][j] q_j
// with R = P c1, c1 = HH c2, c2 = w_j w_k, HH = h2_j . h2_k. Keys are rows of the tiles and queries columns. Where all is one tile of
// edges and channels, a centre passes through shared memory and registers; else q, V and y are in scratch, and the backward
// computes S and D twice: first the inner sums of the softmax, then the gradients.
#include "cuda/pair_attention.hpp"
#include "cuda/pair_tiles.cuh"

using namespace dpa2;

namespace {

constexpr int THREADS = 32 * cuda::pair_most_warps(sizeof(real));
// Blocks per multiprocessor that registers have to allow: 128 and 168 of them per thread; all there are for double.
constexpr int BLOCKS = sizeof(real) == 4 ? 4 : 1, BLOCKS_BACKWARD = sizeof(real) == 4 ? 3 : 1;

/// The softmax of the queries of a lane over its keys, tile by tile: the largest logit so far; sums relative to it are in shared memory,
/// four numbers per query: R h2_k and the denominator.
struct Softmax {
  real top[4];
  real* sums;

  __device__ __forceinline__ void begin(real* at, real npad, real shift) {
    sums = at;
#pragma unroll
    for (int y = 0; y < 4; ++y) {
      top[y] = math::least_logit(npad, shift);
      sums[4 * (lane_column() + 8 * y) + lane_row()] = lane_row() == 3 ? npad : real(0);
    }
  }

  /// Scores become exp(logit - top) c1; into `falling`, per query: what earlier sums are to be multiplied by.
  __device__ __forceinline__ void add(Results& S, const Edge* keys, const Edge* queries, int count, bool gate, real shift, real* falling) {
#pragma unroll
    for (int y = 0; y < 4; ++y) {
      const int j = lane_column() + 8 * y;
      const Edge query = queries[j];
      real most = top[y];
#pragma unroll
      for (int x = 0; x < 8; ++x) {
        const int k = lane_row() + 4 * x;
        const Edge key = keys[k];
        const real c2 = query.w * key.w, b = math::logit(S.at[x][y], gate ? key.times(query) * c2 : c2, c2, shift);
        S.at[x][y] = k < count ? b : real(-1e30);
        most = S.at[x][y] > most ? S.at[x][y] : most;
      }
      most = most_over_rows(most);
      const real fall = DeviceMath::exp(top[y] - most);
      top[y] = most;
      real sum[4] = {};
      __syncwarp();  // the keys are read again, not kept: there are no registers for them
#pragma unroll
      for (int x = 0; x < 8; ++x) {
        const Edge key = keys[lane_row() + 4 * x];
        const real p = DeviceMath::exp(S.at[x][y] - most);
        S.at[x][y] = p * key.times(query) * (query.w * key.w);
#pragma unroll
        for (int i = 0; i < 3; ++i) sum[i] += S.at[x][y] * key.h[i];
        sum[3] += p;
      }
      const real own = own_sum_over_rows(sum);
      sums[4 * j + lane_row()] = sums[4 * j + lane_row()] * fall + own;
      if (lane_row() == 0) falling[j] = fall;
    }
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) pair_attention(const cuda::PairAttentionArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, chunks = cuda::tiles_of(a.n2);
  real* const own = shared + (1 + warp) * PADDED_TILE;  // q, then R, then y, then z of this warp's head
  Edge* const queries = reinterpret_cast<Edge*>(shared + (1 + warps) * PADDED_TILE);
  Edge* const keys = queries + TILE;
  real* const all_sums = reinterpret_cast<real*>(keys + TILE);
  real* const sums = all_sums + warp * 4 * TILE;
  real* const falling = all_sums + warps * 4 * TILE + warp * TILE;
  const long long place = static_cast<long long>(blockIdx.x * warps + warp) * 2 * chunks * cuda::tile_numbers;
  real* const q = a.scratch == nullptr ? nullptr : a.scratch + place;
  real* const y = a.scratch == nullptr ? nullptr : q + chunks * cuda::tile_numbers;
#pragma unroll 1
  for (int i = blockIdx.x; i < a.centres; i += gridDim.x) {
    const Centre at{a.start[i], a.start[i + 1] - a.start[i]};
    const bool many = at.n > TILE || chunks > 1;
    const real npad = a.nsel > at.n ? real(a.nsel - at.n) : real(0);
    SharedRows rows{shared, nullptr, 0, 0};
    int loaded = -1;  // tile of keys
#pragma unroll 1
    for (int jt = 0; jt < at.tiles(); ++jt) {
      const int j0 = at.first + jt * TILE, in_query = at.count(jt);
      // Nobody reads the queries before: what came before ends with a barrier, and the keys, which come first, begin with one.
      load_edges(queries, a.h2, a.w, j0, in_query);
#pragma unroll 1
      for (int head0 = 0; head0 < a.heads; head0 += warps) {
        // A warp too many does the last head again, and nobody takes what it finds.
        const int active = a.heads - head0 < warps ? a.heads - head0 : warps;
        const int head = head0 + (warp < active ? warp : active - 1), matrix = head * chunks * chunks;
        Results r, S;
#pragma unroll 1
        for (int c = 0; c < chunks; ++c) {
          r.clear();
#pragma unroll 1
          for (int b = 0; b < chunks; ++b) {
            rows.load(a.g2, j0, in_query, a.n2, b);
            r.add_rows_times_matrix(depth_of(a.n2, b), rows.tile, a.query_t + (matrix + b * chunks + c) * cuda::tile_numbers, TILE);
          }
          if (many)
            r.save(q + c * cuda::tile_numbers);
          else
            r.write_channels(own);
        }
        Softmax softmax;
        softmax.begin(sums, npad, a.shift);
#pragma unroll 1
        for (int kt = 0; kt < at.tiles(); ++kt) {
          const int k0 = at.first + kt * TILE, in_key = at.count(kt);
          if (loaded != kt) {
            loaded = kt;
            __syncthreads();
            load_edges(keys, a.h2, a.w, k0, in_key);
            __syncthreads();
          }
          S.clear();
#pragma unroll 1
          for (int c = 0; c < chunks; ++c) {
            rows.load(a.g2, k0, in_key, a.n2, c);
            if (many) {
              __syncwarp();
              r.restore(q + c * cuda::tile_numbers);
              r.write_channels(own);
            }
            __syncwarp();
            S.add_rows_times_rows(depth_of(a.n2, c), rows.tile, own);
          }
          softmax.add(S, keys, queries, in_key, a.gate != 0, a.shift, falling);
          if (a.value == nullptr) continue;
          __syncwarp();
          S.write_pairs(own);
          __syncwarp();
#pragma unroll 1
          for (int c = 0; c < chunks; ++c) {
            rows.load(a.g2, k0, in_key, a.n2, c);
            r.clear();
            if (kt > 0) {
              r.restore(y + c * cuda::tile_numbers);
#pragma unroll
              for (int x = 0; x < 8; ++x) r.scale(x, falling[vector_row(x)]);
            }
            r.add_sum_over_rows(in_key, own, rows.tile);
            if (many) {
              r.save(y + c * cuda::tile_numbers);
            } else {
              __syncwarp();
              r.write_sums(own);
            }
          }
        }
        __syncwarp();
        if (a.top != nullptr && warp < active && lane_row() == 0)
#pragma unroll
          for (int s = 0; s < 4; ++s) {
            const int j = lane_column() + 8 * s;
            if (j >= in_query) continue;
            row_of(a.top, j0 + j, a.heads)[head] = softmax.top[s];
            row_of(a.inv_sum, j0 + j, a.heads)[head] = real(1) / sums[4 * j + 3];
          }
#pragma unroll 1
        for (int c = 0; a.value != nullptr && c < chunks; ++c) {
          S.clear();
#pragma unroll 1
          for (int b = 0; b < chunks; ++b) {
            if (many) {
              __syncwarp();
              r.restore(y + b * cuda::tile_numbers);
              r.write_sums(own);
              __syncwarp();
            }
            S.add_rows_times_matrix(depth_of(a.n2, b), own, a.value + (matrix + b * chunks + c) * cuda::tile_numbers, TILE);
          }
#pragma unroll
          for (int x = 0; x < 8; ++x) S.scale(x, real(1) / sums[4 * (lane_row() + 4 * x) + 3]);
          __syncwarp();
          S.write_channels(own);
          __syncthreads();
          add_tiles(shared + PADDED_TILE, PADDED_TILE, active, in_query, a.n2, c, [&](int row, int channel, real sum) {
            real* const z = row_of(a.z, j0 + row, a.n2) + channel;
            *z = (head0 == 0 ? a.bias[channel] : *z) + sum;
          });
          __syncthreads();
        }
        if (a.h2_weight != nullptr) {
          const real weight = a.h2_weight[head];
#pragma unroll
          for (int s = 0; s < 4; ++s) {
            real* const sum = sums + 4 * (lane_column() + 8 * s);
            if (lane_row() < 3) sum[lane_row()] *= weight / sum[3];
          }
          __syncthreads();
          add_edges(all_sums, 4 * TILE, active, in_query, [&](int row, int x, real sum) {
            if (x == 3) return;
            real* const dh = row_of(a.dh, j0 + row, 3) + x;
            *dh = (head0 == 0 ? real(0) : *dh) + sum;
          });
          __syncthreads();
        }
      }
    }
  }
}

namespace {

/// A query of a lane as the backward sees it.
struct Query {
  real top, inv_sum;
};

/// The probability of a pair, and its factors.
struct Pair {
  real product, c1, c2, probability;

  __device__ __forceinline__ Pair(const Edge& key, const Edge& edge, const Query& query, real score, bool there, bool gate, real shift) {
    product = key.times(edge);
    c2 = edge.w * key.w;
    c1 = product * c2;
    const real e = DeviceMath::exp(math::logit(score, gate ? c1 : c2, c2, shift) - query.top);
    probability = there ? e * query.inv_sum : real(0);
  }
};

struct PairTile {
  const Edge *keys, *queries, *up;
  real* inner;  // of the softmax, per query: sum_k R D
  int count;    // keys
  bool gate;
  real shift, h2_weight;
  const real *top, *inv_sum;  // of the first query and this head; of the next one `heads` further
  int heads, query_count;

  __device__ __forceinline__ Query of(int j) const {
    return {j < query_count ? top[j * heads] : real(0), j < query_count ? inv_sum[j * heads] : real(0)};
  }

  /// D += what the update of h2 gives, and to the inner sums, if they are counted. No branches: the code would be there twice,
  /// and find no registers.
  __device__ __forceinline__ void add_inner(const Results& S, Results& D, bool counted) const {
#pragma unroll
    for (int y = 0; y < 4; ++y) {
      const int j = lane_column() + 8 * y;
      const Edge edge = queries[j], given = up[j];
      const Query query = of(j);
      real sum = 0;
      __syncwarp();  // for each query the keys are read again, not kept: there are no registers for them
#pragma unroll
      for (int x = 0; x < 8; ++x) {
        const int k = lane_row() + 4 * x;
        const Edge key = keys[k];
        D.at[x][y] += h2_weight * key.times(given);
        const Pair pair(key, edge, query, S.at[x][y], k < count, gate, shift);
        sum += pair.probability * pair.c1 * D.at[x][y];
      }
      sum = sum_over_rows(sum);
      if (lane_row() == 0) inner[j] += counted ? sum : real(0);
    }
  }

  /// S becomes R and D becomes dS. Into key_sums (32, 4): the gradients of h2 and w of the keys; own += lane_row()'s of the queries.
  __device__ __forceinline__ void gradients(Results& S, Results& D, real* key_sums, real (&own)[4]) const {
#pragma unroll
    for (int y = 0; y < 4; ++y) {
      const int j = lane_column() + 8 * y;
      const Edge edge = queries[j], given = up[j];
      const Query query = of(j);
      const real inner_sum = inner[j];
      real of_query[4] = {};
      if constexpr (sizeof(real) == 8) __syncwarp();  // else sm_100 spills; with it float would
#pragma unroll
      for (int x = 0; x < 8; ++x) {
        const int k = lane_row() + 4 * x;
        const Edge key = keys[k];
        const Pair pair(key, edge, query, S.at[x][y], k < count, gate, shift);
        real ds, dc1, dc2;
        math::logit_backward(gate, D.at[x][y], pair.probability, inner_sum, S.at[x][y], pair.c1, pair.c2, shift, ds, dc1, dc2);
        const real dproduct = dc1 * pair.c2, dweights = dc1 * pair.product + dc2;
        S.at[x][y] = pair.probability * pair.c1;
        D.at[x][y] = ds;
        real of_key[4];
#pragma unroll
        for (int i = 0; i < 3; ++i) {
          of_query[i] += dproduct * key.h[i];
          of_key[i] = dproduct * edge.h[i] + h2_weight * S.at[x][y] * given.h[i];
        }
        of_query[3] += dweights * key.w;
        of_key[3] = dweights * edge.w;
        const real sum = own_sum_over_columns(of_key);
        real* const to = key_sums + 4 * k + lane_column() / 2;
        if (lane_column() % 2 == 0) *to = y == 0 ? sum : *to + sum;
      }
      own[y] += own_sum_over_rows(of_query);
    }
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_BACKWARD)
    pair_attention_backward(const cuda::PairAttentionBackwardArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, chunks = cuda::tiles_of(a.n2);
  real* const first_own = shared + PADDED_TILE;
  real* const T1 = first_own + warp * 2 * PADDED_TILE;  // q, then R, then dS, then this warp's share of dg2
  real* const T2 = T1 + PADDED_TILE;                    // V, then q, then y
  Edge* const queries = reinterpret_cast<Edge*>(first_own + 2 * warps * PADDED_TILE);
  Edge* const keys = queries + TILE;
  Edge* const up = keys + TILE;
  real* const all_sums = reinterpret_cast<real*>(up + TILE);
  real* const sums = all_sums + warp * 4 * TILE;  // gradients of h2 and w of this warp's head
  real* const inner = all_sums + warps * 4 * TILE + warp * TILE;
  // Beyond q, of use where a centre is many tiles; the host has made room for the largest.
  real* const q = a.scratch + static_cast<long long>(blockIdx.x * warps + warp) * cuda::pair_scratch_backward(a.n2, a.most);
  real* const V = q + chunks * cuda::tile_numbers;
  real* const y = V + chunks * cuda::tile_numbers;
  real* const key_side = y + chunks * cuda::tile_numbers;
  const auto add_to_edges = [&](int first, int warps_with, int count) {
    add_edges(all_sums, 4 * TILE, warps_with, count, [&](int row, int x, real sum) {
      if (x == 3)
        a.dw[first + row] += sum;
      else
        row_of(a.dh2, first + row, 3)[x] += sum;
    });
  };
#pragma unroll 1
  for (int i = blockIdx.x; i < a.centres; i += gridDim.x) {
    const Centre at{a.start[i], a.start[i + 1] - a.start[i]};
    const int tiles = at.tiles();
    const bool many = tiles > 1 || chunks > 1;
    SharedRows rows{shared, nullptr, 0, 0};
    int loaded = -1;  // tile of keys
#pragma unroll 1
    for (int jt = 0; jt < tiles; ++jt) {
      const int j0 = at.first + jt * TILE, in_query = at.count(jt);
      // Nobody reads the queries before: what came before ends with a barrier, and the keys, which come first, begin with one.
      load_edges(queries, a.h2, a.w, j0, in_query);
      load_edges(up, a.ddh, nullptr, j0, a.ddh != nullptr ? in_query : 0);
#pragma unroll 1
      for (int head0 = 0; head0 < a.heads; head0 += warps) {
        const int active = a.heads - head0 < warps ? a.heads - head0 : warps;
        const int head = head0 + (warp < active ? warp : active - 1), matrix = head * chunks * chunks;
        const real h2_weight = a.h2_weight != nullptr ? a.h2_weight[head] : real(0);
        Results r, S, D;
        real own[4] = {};
#pragma unroll
        for (int s = 0; s < 4; ++s)
          if (lane_row() == 0) inner[lane_column() + 8 * s] = real(0);
        const auto map = [&](const real* from, const real* matrices, int c) {
          r.clear();
#pragma unroll 1
          for (int b = 0; b < chunks; ++b) {
            rows.load(from, j0, in_query, a.n2, b);
            r.add_rows_times_matrix(depth_of(a.n2, b), rows.tile, matrices + (matrix + b * chunks + c) * cuda::tile_numbers, TILE);
          }
        };
#pragma unroll 1
        for (int c = 0; a.value_t != nullptr && c < chunks; ++c) {
          map(a.dz, a.value_t, c);
          if (many)
            r.save(V + c * cuda::tile_numbers);
          else
            r.write_channels(T2);
        }
#pragma unroll 1
        for (int c = 0; c < chunks; ++c) {
          map(a.g2, a.query_t, c);
          r.save(q + c * cuda::tile_numbers);
          if (!many) r.write_channels(T1);
        }
        // Twice over the keys, but where one tile has them all: the first time for the inner sums alone.
#pragma unroll 1
        for (int turn = tiles > 1 ? 0 : 1; turn < 2; ++turn)
#pragma unroll 1
          for (int kt = 0; kt < tiles; ++kt) {
            const int k0 = at.first + kt * TILE, in_key = at.count(kt);
            if (loaded != kt) {
              loaded = kt;
              __syncthreads();
              load_edges(keys, a.h2, a.w, k0, in_key);
              __syncthreads();
            }
            S.clear();
            D.clear();
#pragma unroll 1
            for (int c = 0; c < chunks; ++c) {
              rows.load(a.g2, k0, in_key, a.n2, c);
              if (many) {
                __syncwarp();
                r.restore(q + c * cuda::tile_numbers);
                r.write_channels(T1);
                if (a.value_t != nullptr) {
                  r.restore(V + c * cuda::tile_numbers);
                  r.write_channels(T2);
                }
              }
              __syncwarp();
              S.add_rows_times_rows(depth_of(a.n2, c), rows.tile, T1);
              if (a.value_t != nullptr) D.add_rows_times_rows(depth_of(a.n2, c), rows.tile, T2);
            }
            const PairTile pairs{keys,
                                 queries,
                                 up,
                                 inner,
                                 in_key,
                                 a.gate != 0,
                                 a.shift,
                                 h2_weight,
                                 row_of(a.top, j0, a.heads) + head,
                                 row_of(a.inv_sum, j0, a.heads) + head,
                                 a.heads,
                                 in_query};
            pairs.add_inner(S, D, turn == 0 || tiles == 1);
            if (turn == 0) continue;
            __syncwarp();
            pairs.gradients(S, D, sums, own);
            // Gradients of the keys: of their values, then of their scores.
            const int depth = depth_of(in_query, 0);
            __syncwarp();
            S.write_pairs(T1);
            r.clear();
#pragma unroll 1
            for (int c = 0; a.value_t != nullptr && c < chunks; ++c) {
              __syncwarp();
              if (many) {
                r.restore(V + c * cuda::tile_numbers);
                r.write_channels(T2);
                __syncwarp();
              }
              r.clear();
              r.add_rows_times_matrix(depth, T1, T2, TILE_ROW);
              if (chunks > 1) r.save(key_side + c * cuda::tile_numbers);
            }
            __syncwarp();
            D.write_pairs(T1);
#pragma unroll 1
            for (int c = 0; c < chunks; ++c) {
              __syncwarp();
              S.restore(q + c * cuda::tile_numbers);
              S.write_channels(T2);
              __syncwarp();
              if (chunks > 1 && a.value_t != nullptr) r.restore(key_side + c * cuda::tile_numbers);
              if (chunks > 1 && a.value_t == nullptr) r.clear();
              r.add_rows_times_matrix(depth, T1, T2, TILE_ROW);
              __syncwarp();
              r.write_channels(T2);
              __syncthreads();
              add_tiles(first_own + PADDED_TILE, 2 * PADDED_TILE, active, in_key, a.n2, c,
                        [&](int row, int channel, real sum) { row_of(a.dg2, k0 + row, a.n2)[channel] += sum; });
              if (c == 0) add_to_edges(k0, active, in_key);
              __syncthreads();
            }
#pragma unroll 1
            for (int c = 0; c < chunks; ++c) {
              rows.load(a.g2, k0, in_key, a.n2, c);
              r.clear();
              if (kt > 0) r.restore(y + c * cuda::tile_numbers);
              r.add_sum_over_rows(in_key, T1, rows.tile);
              if (many)
                r.save(y + c * cuda::tile_numbers);
              else
                r.write_sums(T2);
            }
          }
        // Gradients of the queries.
#pragma unroll
        for (int s = 0; s < 4; ++s) sums[4 * (lane_column() + 8 * s) + lane_row()] = own[s];
#pragma unroll 1
        for (int c = 0; c < chunks; ++c) {
          S.clear();
#pragma unroll 1
          for (int b = 0; b < chunks; ++b) {
            __syncwarp();
            if (many) {
              r.restore(y + b * cuda::tile_numbers);
              r.write_sums(T2);
              __syncwarp();
            }
            S.add_rows_times_matrix(depth_of(a.n2, b), T2, a.query + (matrix + b * chunks + c) * cuda::tile_numbers, TILE);
          }
          __syncwarp();
          S.write_channels(T1);
          __syncthreads();
          add_tiles(first_own, 2 * PADDED_TILE, active, in_query, a.n2, c,
                    [&](int row, int channel, real sum) { row_of(a.dg2, j0 + row, a.n2)[channel] += sum; });
          if (c == 0) add_to_edges(j0, active, in_query);
          __syncthreads();
        }
      }
    }
  }
}
