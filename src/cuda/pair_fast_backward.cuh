// The gradient of the pair channel of a centre whose edges are one tile, in registers.
//
// The attention is computed again, and z summed over the heads; from the gradient of the result LayerNorm and linear2 give dz. Per head
//   V = dz B^T,  D[k][j] = g2_k . V_j,  y_j = sum_k dS[k][j] g2_k,  dg2_k += sum_j R[k][j] V_j + dS[k][j] q_j + y_k A
// where q, V and y belong to queries. Scores and probabilities stay in registers from the first half to the second, but where heads come
// in rounds. Gradients of h2 and w are those of c1 and c2: sums over the keys and over the queries.
#pragma once

#include "cuda/pair_fast.cuh"

namespace dpa2 {
namespace fast {

/// The queries where one tile has all keys: these same edges.
struct OwnQueries {
  static constexpr bool ALL_KEYS = true;
  Margin scaled, up;  // w h2; gradients of the update of h2
  int groups, count;  // groups of rows, and edges as a multiple of 4
  const real* q;

  __device__ __forceinline__ const real* kept_q() const { return q; }

  __device__ __forceinline__ bool last() const { return true; }
  __device__ __forceinline__ void inner(real (&)[Grid::COLUMNS]) const {}
  __device__ __forceinline__ void add_to_query(const Margin& sums, int y, real sum) const { sums.columns().at(y)[Grid::own_row()] = sum; }
  __device__ __forceinline__ void add_to_key(const Margin& sums, int x, real sum) const { sums.rows().at(x)[Grid::own_column()] += sum; }
  __device__ __forceinline__ void sum_over_keys(Grid& y, const Edges& e, const real* tile) const {
    y.rows_times_tile(e.groups, e.edges(), tile, e.g2);
  }
  __device__ __forceinline__ void keep(const Grid&) const {}
};

/// The probabilities in a tile become R, the gradients d of R become those of the scores s, and s is used up. For every pair, with dc1 and
/// dc2: dc1 (w h2 of the other edge), dc2 w of the other edge; the sums of these four numbers over all other edges, as keys and as queries,
/// into the tile's margin, as the queries add them. Every lane reads and writes what is its own in the tile.
template <class G, class Of>
__device__ __forceinline__ void scores_backward(const Edges& e, const Of& of, G& s, G& d, real* tile, const real* c1, bool gate,
                                                real shift) {
  const Margin sums_of{tile};
  const Margin::Rows keys = e.scaled.rows();
  const auto queries = of.scaled.columns();
  real inner[G::COLUMNS] = {};
  c1 += G::corner();
  tile += G::corner();
  // f(x, the row's probabilities, its c1) for all rows; where there are no edges all of these are zero. Barriers are there lest the compiler
  // keeps many rows in registers.
  const auto over_rows = [&](auto f) {
#pragma unroll
    for (int x = 0; x < G::ROWS; ++x) {
      if (!G::used(x, e.groups)) break;
      real p[G::COLUMNS], by[G::COLUMNS];
      G::read(tile, x, p);
      G::read(c1, x, by);
      f(x, p, by);
      if (x % 2 == 1) __syncwarp();
    }
  };
  over_rows([&](int x, real(&p)[G::COLUMNS], real(&by)[G::COLUMNS]) {
#pragma unroll
    for (int y = 0; y < G::COLUMNS; ++y) {
      d.at[x][y] *= p[y];
      if (Of::ALL_KEYS) inner[y] += d.at[x][y] * by[y];
    }
  });
  if (Of::ALL_KEYS) {
#pragma unroll
    for (int y = 0; y < G::COLUMNS; ++y) inner[y] = G::sum_over_rows(inner[y]);
  } else {
    of.inner(inner);
  }
  __syncwarp();
  // d, times p by now, becomes dc2, and s becomes dc1; with the gate dc2 is shift times what is in d.
  if (gate)
    over_rows([&](int x, real(&p)[G::COLUMNS], real(&by)[G::COLUMNS]) {
#pragma unroll
      for (int y = 0; y < G::COLUMNS; ++y) {
        const real given = d.at[x][y];
        d.at[x][y] = given * by[y] - p[y] * inner[y];
        s.at[x][y] = given + d.at[x][y] * s.at[x][y];
        p[y] *= by[y];
      }
      G::write(tile, x, p);
    });
  else
    over_rows([&](int x, real(&p)[G::COLUMNS], real(&by)[G::COLUMNS]) {
#pragma unroll
      for (int y = 0; y < G::COLUMNS; ++y) {
        const real given = d.at[x][y];
        d.at[x][y] = (given * by[y] - p[y] * inner[y]) * (s.at[x][y] + shift);
        s.at[x][y] = given;
      }
    });
  const real factor = gate ? shift : real(1);
  real of_column[G::COLUMNS][4] = {};
#pragma unroll
  for (int x = 0; x < G::ROWS; ++x) {
    if (!G::used(x, e.groups)) break;
    const Edge key = keys[x];
#pragma unroll
    for (int y = 0; y < G::COLUMNS; ++y) {
#pragma unroll
      for (int i = 0; i < 3; ++i) of_column[y][i] += s.at[x][y] * key.h[i];
      of_column[y][3] += d.at[x][y] * key.w;
    }
    if (x % 4 == 3) __syncwarp();
  }
#pragma unroll
  for (int y = 0; y < G::COLUMNS; ++y) {
    of_column[y][3] *= factor;
    of.add_to_query(sums_of, y, G::own_sum_over_rows(of_column[y]));
  }
  __syncwarp();
  Edge query[G::COLUMNS];
#pragma unroll
  for (int y = 0; y < G::COLUMNS; ++y) query[y] = queries[y];
#pragma unroll
  for (int x = 0; x < G::ROWS; ++x) {
    if (!G::used(x, e.groups)) break;
    real sums[4] = {};
#pragma unroll
    for (int y = 0; y < G::COLUMNS; ++y) {
#pragma unroll
      for (int i = 0; i < 3; ++i) sums[i] += s.at[x][y] * query[y].h[i];
      sums[3] += d.at[x][y] * query[y].w;
    }
    sums[3] *= factor;
    const real sum = G::own_sum_over_columns(sums);
    if (G::owns_column()) of.add_to_key(sums_of, x, sum);
  }
  __syncwarp();
  if (gate)
#pragma unroll
    for (int x = 0; x < G::ROWS; ++x) {
      real by[G::COLUMNS];
      G::read(c1, x, by);
#pragma unroll
      for (int y = 0; y < G::COLUMNS; ++y) d.at[x][y] *= by[y];
    }
  else
    over_rows([&](int x, real(&p)[G::COLUMNS], real(&by)[G::COLUMNS]) {
#pragma unroll
      for (int y = 0; y < G::COLUMNS; ++y) {
        d.at[x][y] = (s.at[x][y] * by[y] - p[y] * inner[y]) * (queries[y].w * keys[x].w);
        p[y] *= by[y];
      }
      G::write(tile, x, p);
    });
}

/// The gradients of one warp's rows: into dg2 what does not pass through the attention, dU, and dz into `kept`, or where that is null into
/// the tile.
__device__ __forceinline__ void rows_backward(const cuda::PairLayerBackwardArgs<real>& a, const Edges& e, const OwnRows& rows,
                                              const real (&z)[2][4], real* tile, real* kept) {
  const auto& with = a.with;
  real dout[2][4], linear[2][4] = {}, dz[2][4] = {};
#pragma unroll
  for (int x = 0; x < 2; ++x)
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      const int c = rows.channel(g);
      const Vector given = rows.has[x] ? e.read(row_of(a.dg2, rows.row[x], e.n2), c) : Vector{};
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) dout[x][g * VECTOR + i] = given.v[i];
      if (a.dU == nullptr) continue;
      Vector dU = e.read(with.g1g1_r, c);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) dU.v[i] *= given.v[i];
      if (rows.has[x]) e.write(row_of(a.dU, rows.row[x], e.n2), c, dU);
    }
  if (with.value != nullptr)
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      const real inv = math::inverse_sigma<DeviceMath>(product(z[x], z[x]), real(e.n2), with.eps);
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
        const Vector gain = e.read(with.gain, rows.channel(g));
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) dz[x][g * VECTOR + i] = gain.v[i] * dout[x][g * VECTOR + i];
      }
      const real along = product(dz[x], z[x]) * inv * inv / real(e.n2);
#pragma unroll
      for (int y = 0; y < 4; ++y) dz[x][y] = math::layer_norm_backward(dz[x][y], z[x][y], along, inv);
    }
  rows.times(linear, e.channels(), e.g2, with.linear_w);
#pragma unroll
  for (int g = 0; g < GROUPS; ++g) {
    const int c = rows.channel(g);
    const Vector b = e.read(with.linear_b, c), by = e.read(with.linear_r, c);
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      Vector given;
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) {
        const int y = g * VECTOR + i;
        real value, slope;
        activate(linear[x][y] + b.v[i], value, slope);
        given.v[i] = dout[x][y] * by.v[i] * slope;
        linear[x][y] = with.a * dout[x][y];
      }
      if (rows.own[x]) write_vector(tile + rows.at[x] + g * 8 * VECTOR, given);
    }
  }
  __syncwarp();
  rows.times(linear, e.channels(), tile, with.linear_wt);
  __syncwarp();
#pragma unroll
  for (int x = 0; x < 2; ++x)
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      Vector base, of_z;
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) {
        base.v[i] = linear[x][g * VECTOR + i];
        of_z.v[i] = rows.has[x] ? dz[x][g * VECTOR + i] : real(0);
      }
      if (rows.has[x]) e.write(row_of(a.dg2, rows.row[x], e.n2), rows.channel(g), base);
      if (with.value == nullptr || !rows.own[x]) continue;
      if (kept != nullptr)
        write_vector(kept + rows.number[x] * TILE + rows.channel(g), of_z);
      else
        write_vector(tile + rows.at[x] + g * 8 * VECTOR, of_z);
    }
}

/// What the `active` heads of a round have found of a tile of edges, after a barrier: z, in one of two tiles of each; begin: of the first
/// round. `kept`: z between the rounds, then dz, of the tile. After the last round also what is not the attention's. No barrier at the end.
__device__ __forceinline__ void finish_backward(const cuda::PairLayerBackwardArgs<real>& a, const Edges& e, int active, bool begin,
                                                bool last, real* tiles, real* kept) {
  const auto& with = a.with;
  const int warps = blockDim.x / 32;
  const bool has_z = with.value != nullptr;
#pragma unroll 1
  for (int group = 0; 4 * group < e.n; group += 2 * warps) {
    const OwnRows rows(e, group, warps);
    real z[2][4] = {};
    if (has_z) {
#pragma unroll
      for (int x = 0; x < 2; ++x)
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) {
          const int c = rows.channel(g);
          const Vector from = begin || !rows.own[x] ? e.read(with.bias, c) : read_vector(kept + rows.number[x] * TILE + c);
#pragma unroll
          for (int i = 0; i < VECTOR; ++i) z[x][g * VECTOR + i] = from.v[i];
        }
      rows.add_heads(z, tiles, 2 * QUARTERED, active, nullptr);
      if (!last)
#pragma unroll
        for (int x = 0; x < 2; ++x)
#pragma unroll
          for (int g = 0; g < GROUPS; ++g) {
            Vector v;
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) v.v[i] = z[x][g * VECTOR + i];
            if (rows.own[x]) write_vector(kept + rows.number[x] * TILE + rows.channel(g), v);
          }
    }
    if (last) rows_backward(a, e, rows, z, tiles, kept);
  }
}

/// dz of n edges, which was kept, into a tile. The whole block takes part; no barrier inside.
__device__ __forceinline__ void load_kept(real* tile, const real* kept, int n) {
  for (int t = opaque(threadIdx.x); t < 8 * TILE; t += blockDim.x)
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      const int row = t / 8, c = (g * 8 + t % 8) * VECTOR;
      write_vector(tile + place(row) + c, row < n ? read_vector(kept + row * TILE + c) : Vector{});
    }
}

/// The gradients of a head: its scores are in s, the probabilities of the keys in T1, V in T2. Leaves what comes to the rows of g2 in T2,
/// and to h2 and w in T1 and its margin.
template <class G, class Of>
__device__ __forceinline__ void gradients(const cuda::PairConstants<real>& with, const Edges& e, const Of& of, int head, G& s, real* T1,
                                          real* T2, const real* c1) {
  const bool has_h2 = with.h2_weight != nullptr;
  G d;
  d.rows_times_rows(e.groups, e.channels(), e.g2, T2);
  if (has_h2) {
    const real weight = with.h2_weight[head];
    const Margin::Rows keys = e.h2.rows();
    const auto queries = of.up.columns();
    Edge given[G::COLUMNS];
#pragma unroll
    for (int y = 0; y < G::COLUMNS; ++y) given[y] = queries[y];
#pragma unroll
    for (int x = 0; x < G::ROWS; ++x) {
      const Edge key = keys[x];
#pragma unroll
      for (int y = 0; y < G::COLUMNS; ++y) d.at[x][y] += weight * key.times(given[y]);
    }
  }
  real of_moved[3] = {};
  scores_backward(e, of, s, d, T1, c1, with.gate != 0, with.shift);
  __syncwarp();
  G sum, q, y;
  sum.rows_times_tile(e.groups, of.count, T1, T2);
  if (has_h2) row_times(T1, of.count, of.up, of_moved);
  __syncwarp();
  d.write(T1);
  q.restore(of.kept_q());
  q.write(T2);
  __syncwarp();
  sum.template rows_times_tile<true>(e.groups, of.count, T1, T2);
  __syncwarp();
  d.write_turned(T1);
  __syncwarp();
  of.sum_over_keys(y, e, T1);
  if (of.last()) {
    __syncwarp();
    y.write(T1);
    __syncwarp();
    sum.template rows_times_matrix<true>(e.groups, e.channels(), T1, with.query + head * cuda::tile_numbers);
  } else {
    of.keep(y);
  }
  sum.write(T2);
  __syncwarp();
  // Behind the sums of the edges as keys and as queries in the margins the tile is free.
  if (has_h2)
#pragma unroll
    for (int i = 0; i < 3; ++i) T1[place(row_of_lane()) + i] = with.h2_weight[head] * of_moved[i];
}

/// Adds what the heads have left, after a barrier; what was in dh2 is first multiplied by of_dh2. No barrier at the end.
__device__ __forceinline__ void add_gradients(const cuda::PairLayerBackwardArgs<real>& a, const Edges& e, int active, real* tiles,
                                              real of_dh2) {
  const int warps = blockDim.x / 32;
  const bool has_h2 = a.with.h2_weight != nullptr;
  for (int group = 0; 4 * group < e.n; group += 2 * warps) {
    const OwnRows rows(e, group, warps);
    real sum[2][4] = {};
    rows.add_heads(sum, tiles + QUARTERED, 2 * QUARTERED, active, nullptr);
#pragma unroll
    for (int x = 0; x < 2; ++x)
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
        if (!rows.has[x]) continue;
        real* const to = row_of(a.dg2, rows.row[x], e.n2);
        Vector v = e.read(to, rows.channel(g));
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) v.v[i] += sum[x][g * VECTOR + i];
        e.write(to, rows.channel(g), v);
      }
  }
  for (int t = opaque(threadIdx.x); t < 4 * TILE; t += blockDim.x) {
    const int row = t / 4, i = t % 4;
    const real* const own = Margin{tiles}.at(row) + i;
    real sum = 0, moved = 0;
    for (int other = 0; other < active; ++other) {
      sum += own[2 * other * QUARTERED];
      if (has_h2 && i < 3) moved += tiles[2 * other * QUARTERED + place(row) + i];
    }
    const real of_w = part_sum(i < 3 ? sum * e.h2[row].h[i] : sum, 4);
    if (row >= e.n) continue;
    if (i == 3) {
      a.dw[e.first + row] += of_w;
    } else {
      real* const to = row_of(a.dh2, e.first + row, 3) + i;
      *to = of_dh2 * *to + (sum * e.scaled[row].w + moved);
    }
  }
}

__device__ __forceinline__ void backward(const cuda::PairLayerBackwardArgs<real>& a, int first, int n, real* shared) {
  if (n == 0) return;
  const auto& with = a.with;
  const int warps = blockDim.x / 32, warp = uniform(opaque(threadIdx.x) / 32), heads = with.heads;
  const int rounds = (heads + warps - 1) / warps;
  real *const c1 = shared + QUARTERED, *const tiles = c1 + QUARTERED;
  real* const T1 = tiles + 2 * warp * QUARTERED;  // q, then P, R, dS, y
  real* const T2 = T1 + QUARTERED;                // R, y and z of the forward; V, then q, then this warp's share of dg2
  Key* const keys = reinterpret_cast<Key*>(tiles + 2 * warps * QUARTERED);
  const Edges e{first, n, with.n2, Grid::groups_of(n), warp, shared, Margin{shared}, Margin{c1}, keys};
  const Margin up{tiles + QUARTERED};  // gradients of the update of h2
  real* const scratch = row_of(a.scratch, blockIdx.x, cuda::pair_layer_scratch_backward(true, with.n2, heads, a.most, sizeof(real)));
  real* const kept_q = scratch + warp * cuda::tile_numbers;
  real* const kept = rounds > 1 ? scratch + warps * cuda::tile_numbers : nullptr;  // z, then dz, where heads come in rounds
  const real npad = with.nsel > n ? real(with.nsel - n) : real(0);
  const bool has_h2 = with.h2_weight != nullptr, has_z = with.value != nullptr;
  real moved[3] = {};
  const int edge = opaque(threadIdx.x);
  if (has_h2 && edge < n)
#pragma unroll
    for (int i = 0; i < 3; ++i) moved[i] = row_of(a.dh2, first + edge, 3)[i];
  e.load(a.g2, a.h2, a.w, with.shift);
  if (has_h2 && edge < TILE)
#pragma unroll
    for (int i = 0; i < 3; ++i) up[edge].h[i] = with.h2_r * moved[i];
  __syncthreads();
  e.write_c1(c1, e.scaled);
  __syncthreads();
  Grid s;
  s.clear();  // lest its registers are taken where a centre begins
#pragma unroll 1
  for (int step = 0; step < 2 * rounds; ++step) {
    // First z of all heads, then their gradients.
    const bool second = step >= rounds, last = step == rounds - 1;
    const int head0 = (second ? step - rounds : step) * warps;
    // A warp too many does the last head again, and nobody takes what it finds.
    const int active = heads - head0 < warps ? heads - head0 : warps;
    const int head = head0 + (warp < active ? warp : active - 1), matrix = head * cuda::tile_numbers;
    if (!second || rounds > 1) {
      Grid q;
      q.rows_times_matrix(e.groups, e.channels(), e.g2, with.query_t + matrix);
      q.write(T1);
      q.save(kept_q);
      __syncwarp();
      s.rows_times_rows(e.groups, e.channels(), e.g2, T1);
      Grid p;
      p.clear();
      softmax(e, s, p, c1, with.gate != 0, with.shift, npad, T2);
      __syncwarp();
      const int column = Grid::column();
      real by[Grid::COLUMNS];
#pragma unroll
      for (int y = 0; y < Grid::COLUMNS; ++y) by[y] = T2[column + Grid::across(y)];
#pragma unroll
      for (int x = 0; x < Grid::ROWS; ++x)
#pragma unroll
        for (int y = 0; y < Grid::COLUMNS; ++y) p.at[x][y] *= by[y];
      p.write(T1);
    }
    if (!second) {
      if (has_z) {
        Grid r, y, z;
        const int corner = Grid::corner();
#pragma unroll
        for (int x = 0; x < Grid::ROWS; ++x) {
          real by[Grid::COLUMNS];
          Grid::read(T1 + corner, x, r.at[x]);
          Grid::read(c1 + corner, x, by);
#pragma unroll
          for (int y = 0; y < Grid::COLUMNS; ++y) r.at[x][y] *= by[y];
        }
        __syncwarp();
        r.write_turned(T2);
        __syncwarp();
        y.rows_times_tile(e.groups, e.edges(), T2, e.g2);
        __syncwarp();
        y.write(T2);
        __syncwarp();
        z.rows_times_matrix(e.groups, e.channels(), T2, with.value + matrix);
        __syncwarp();
        z.write(T2);
      }
      __syncthreads();
      finish_backward(a, e, active, step == 0, last, tiles + QUARTERED, kept);
      __syncthreads();
      continue;
    }
    if (has_z && kept != nullptr) {
      __syncthreads();
      load_kept(tiles + QUARTERED, kept, n);
      __syncthreads();
    }
    Grid V;
    if (has_z)
      V.rows_times_matrix(e.groups, e.channels(), tiles + QUARTERED, with.value_t + matrix);
    else
      V.clear();
    __syncthreads();
    V.write(T2);
    __syncwarp();
    const OwnQueries queries{e.scaled, up, e.groups, e.edges(), kept_q};
    gradients(with, e, queries, head, s, T1, T2, c1);
    __syncthreads();
    add_gradients(a, e, active, tiles, head0 == 0 && has_h2 ? with.h2_a : real(1));
    __syncthreads();
    s.clear();  // the next step finds others, which the compiler does not know
  }
}

}  // namespace fast
}  // namespace dpa2
