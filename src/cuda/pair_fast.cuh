// The pair channel of a centre whose edges are one tile, in registers; pair_tiled.cuh has the same for more tiles.
//
// A warp takes one of the heads. With rows of g2 as keys and columns as queries, per head
//   q_j = A g2_j,  S[k][j] = g2_k . q_j,  R = P c1,  y_j = sum_k R[k][j] g2_k,  z_j += y_j B
// and c1 = (w_k h2_k) . (w_j h2_j) once for all heads. Each warp then finishes some rows: LayerNorm, linear2, residual.
// The whole block calls; a path ends with a barrier.
#pragma once

#include "cuda/activation.cuh"
#include "cuda/pair_layer.hpp"
#include "cuda/quartered.cuh"
#include "math/attention.hpp"
#include "math/layer_norm.hpp"

namespace dpa2 {
namespace fast {

/// A key's switch, and its logit where nothing else is: -shift, or where there is no such edge so little that its probability is zero.
struct __align__(2 * sizeof(real)) Key {
  real w, floor;
};

/// Where the edge of row 28 + y is in a tile, see Margin.
DPA2_MATH constexpr int of_last(int y) { return place(TILE - 4) + TILE + y / 2 * place(2) + y % 2 * 4; }
static_assert(sizeof(real) != 4 || (of_last(1) + 4 <= place(1) && of_last(3) + 4 <= place(3)), "there are gaps");
__device__ __forceinline__ Edge edge_at(const real* from) { return *reinterpret_cast<const Edge*>(from); }

/// Edges in the margins of a tile's rows. Behind rows 29 and 31 there is no margin: theirs are in the gaps before rows 1 and 3.
struct Margin {
  real* tile;

  /// Of the rows of the lane's results: number x is that of row x.
  struct Rows {
    real *tile, *first;
    __device__ __forceinline__ real* at(int x) const { return x < Grid::ROWS - 1 ? first + x * TILE_ROW : tile + of_last(grid_row()); }
    __device__ __forceinline__ Edge operator[](int x) const { return edge_at(at(x)); }
  };
  /// Of four rows, or the columns of the lane's results.
  struct Four {
    real* first;
    int moved;  // whether these are the last four
    __device__ __forceinline__ real* at(int y) const {
      constexpr int shift = place(TILE - 3) + TILE - of_last(1);
      return first + place(y) - (y % 2 == 1 ? moved * shift : 0);
    }
    __device__ __forceinline__ Edge operator[](int y) const { return edge_at(at(y)); }
  };

  __device__ __forceinline__ Rows rows() const { return {tile, tile + grid_place() + TILE}; }
  __device__ __forceinline__ Four columns() const { return four(grid_column()); }
  __device__ __forceinline__ Four four(int group) const { return {tile + group * TILE_ROW + TILE, group == TILE / 4 - 1 ? 1 : 0}; }
  __device__ __forceinline__ real* at(int row) const { return tile + (row < TILE - 4 ? place(row) + TILE : of_last(row % 4)); }
  __device__ __forceinline__ Edge& operator[](int row) const { return *reinterpret_cast<Edge*>(at(row)); }
};

/// Edges that are beside no tile, in an order in which lanes of different columns meet no bank twice.
struct Apart {
  real* first_edge;

  struct Four {
    real* first;
    __device__ __forceinline__ Edge operator[](int y) const { return edge_at(first + y * TILE); }
  };
  __device__ __forceinline__ Four columns() const { return four(grid_column()); }
  __device__ __forceinline__ Four four(int group) const { return {first_edge + 4 * group}; }
  __device__ __forceinline__ Edge& operator[](int row) const { return *reinterpret_cast<Edge*>(first_edge + row % 4 * TILE + row / 4 * 4); }
};

/// What all warps of a block know of a tile of edges.
struct Edges {
  int first, n, n2, groups, warp;
  real* g2;
  Margin h2;      // as it is; its fourth number is not used
  Margin scaled;  // w h2, w
  Key* keys;

  /// A vector of channels from c on; zero beyond n2.
  __device__ __forceinline__ Vector read(const real* from, int c) const { return c < n2 ? read_vector(from + c) : Vector{}; }
  __device__ __forceinline__ void write(real* to, int c, const Vector& v) const {
    if (c < n2) write_vector(to + c, v);
  }
  __device__ __forceinline__ int channels() const { return (n2 + 3) / 4 * 4; }
  __device__ __forceinline__ int edges() const { return (n + 3) / 4 * 4; }

  /// Rows of the centre into the tile, zero beyond it; edges beside it. The whole block takes part; no barrier inside. What is to come from
  /// global memory is asked for before anything is waited for.
  __device__ __forceinline__ void load(const real* from_g2, const real* from_h2, const real* w, real shift) const {
    const int edge = opaque(threadIdx.x) - static_cast<int>(blockDim.x) + TILE;  // the last warp has one edge for each lane
    const bool there = edge >= 0 && edge < n;
    const real switched = there ? w[first + edge] : real(0);
    real h[3];
#pragma unroll
    for (int x = 0; x < 3; ++x) h[x] = there ? row_of(from_h2, first + edge, 3)[x] : real(0);
    constexpr int vectors = TILE / VECTOR;
    const auto get = [&](int t) {
      const int row = t / vectors, c = t % vectors * VECTOR;
      const bool has = row < n && c < n2;
      Vector v = read_vector(row_of(from_g2, first + (has ? row : 0), n2) + (has ? c : 0));
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) v.v[i] = has ? v.v[i] : real(0);
      return v;
    };
    const auto put = [&](int t, const Vector& v) { write_vector(g2 + place(t / vectors) + t % vectors * VECTOR, v); };
#pragma unroll 1
    for (int t = threadIdx.x; t < vectors * TILE; t += 2 * blockDim.x) {
      const int after = t + blockDim.x, next = after < vectors * TILE ? after : t;
      const Vector one = get(t), other = get(next);
      put(t, one);
      put(next, other);
    }
    if (edge < 0) return;
#pragma unroll
    for (int x = 0; x < 3; ++x) {
      h2[edge].h[x] = h[x];
      scaled[edge].h[x] = switched * h[x];
    }
    scaled[edge].w = switched;
    keys[edge] = {switched, there ? -shift : real(-1e30)};
  }

  /// c1 of all pairs of these keys with queries, which are w h2 as well, into a tile; after a barrier. The whole block takes part.
  template <class Of>
  __device__ __forceinline__ void write_c1(real* tile, const Of& of_queries) const {
    const auto queries = of_queries.columns();
    Edge query[Grid::COLUMNS];
#pragma unroll
    for (int y = 0; y < Grid::COLUMNS; ++y) query[y] = queries[y];
    tile += Grid::corner();
#pragma unroll 2
    for (int x = warp; x < TILE / 4; x += blockDim.x / 32) {
      const Edge key = scaled[grid_row() + Grid::down(x)];
      real c1[Grid::COLUMNS];
#pragma unroll
      for (int y = 0; y < Grid::COLUMNS; ++y) c1[y] = key.times(query[y]);
      Grid::write(tile, x, c1);
    }
  }
};

constexpr real LOG2E = real(1.4426950408889634074);

/// Scores s become logits p, which may be the same. w: switches of the lane's queries; `most` becomes the largest of the lane's logits where
/// that is larger.
template <class G>
__device__ __forceinline__ void logits(const Edges& e, const G& s, G& p, const real* c1, const real (&w)[G::COLUMNS], bool gate, real shift,
                                       real (&most)[G::COLUMNS]) {
  const Key* const keys = e.keys + G::row();
  c1 += G::corner();
  const auto each = [&](auto factor) {
#pragma unroll
    for (int x = 0; x < G::ROWS; ++x) {
      if (!G::used(x, e.groups)) break;
      const Key key = keys[G::down(x)];
      real of_pair[G::COLUMNS];
      factor(x, key, of_pair);
#pragma unroll
      for (int y = 0; y < G::COLUMNS; ++y) {
        p.at[x][y] = s.at[x][y] * of_pair[y] + (shift * w[y] * key.w + key.floor);
        most[y] = max(most[y], p.at[x][y]);
      }
    }
  };
  if (gate)
    each([&](int x, const Key&, real(&of_pair)[G::COLUMNS]) { G::read(c1, x, of_pair); });
  else
    each([&](int, const Key& key, real(&of_pair)[G::COLUMNS]) {
#pragma unroll
      for (int y = 0; y < G::COLUMNS; ++y) of_pair[y] = w[y] * key.w;
    });
}

/// Logits become their exponentials where `base` is added to LOG2E times the logit; and the sums of the lane's.
template <class G>
__device__ __forceinline__ void exponentials(int groups, G& p, const real (&base)[G::COLUMNS], real (&sum)[G::COLUMNS]) {
#pragma unroll
  for (int y = 0; y < G::COLUMNS; ++y) sum[y] = real(0);
#pragma unroll
  for (int x = 0; x < G::ROWS; ++x)
#pragma unroll
    for (int y = 0; y < G::COLUMNS; ++y) {
      p.at[x][y] = G::used(x, groups) ? DeviceMath::exp2(p.at[x][y] * LOG2E + base[y]) : real(0);
      sum[y] += p.at[x][y];
    }
}

/// The number of the lane's own query, of those that it has of its columns.
template <class G>
__device__ __forceinline__ real of_own(const real (&v)[G::COLUMNS]) {
  real own = v[0];
#pragma unroll
  for (int y = 1; y < G::COLUMNS; ++y) own = G::own_row() == y ? v[y] : own;
  return own;
}

/// Scores s become exponentials p, relative to the largest logit of each query; 1 / their sum into `inverse`, per query. s and p may be
/// the same.
__device__ __forceinline__ void softmax(const Edges& e, const Grid& s, Grid& p, const real* c1, bool gate, real shift, real npad,
                                        real* inverse) {
  const int column = Grid::column();
  real w[Grid::COLUMNS], most[Grid::COLUMNS], sum[Grid::COLUMNS];
#pragma unroll
  for (int y = 0; y < Grid::COLUMNS; ++y) {
    w[y] = e.keys[column + Grid::across(y)].w;
    most[y] = math::least_logit(npad, shift);
  }
  logits(e, s, p, c1, w, gate, shift, most);
#pragma unroll
  for (int y = 0; y < Grid::COLUMNS; ++y) most[y] = -LOG2E * Grid::most_over_rows(most[y]);
  exponentials(e.groups, p, most, sum);
  real own = Grid::own_sum_over_rows(sum);
  if (npad > real(0)) own += npad * DeviceMath::exp2(of_own<Grid>(most) - LOG2E * shift);
  inverse[column + Grid::across(Grid::own_row())] = real(1) / own;
}

/// The exponentials become R, for the factors are those of each query that are left to the end.
template <class G>
__device__ __forceinline__ void times_c1(int groups, G& p, const real* c1) {
  c1 += G::corner();
#pragma unroll
  for (int x = 0; x < G::ROWS; ++x) {
    if (!G::used(x, groups)) break;
    real by[G::COLUMNS];
    G::read(c1, x, by);
#pragma unroll
    for (int y = 0; y < G::COLUMNS; ++y) p.at[x][y] *= by[y];
  }
}

/// The row of a tile that a lane takes, such that vectors of eight lanes are in different banks; and the sum of this row times vectors of
/// the first `count` edges, a multiple of 4.
__device__ __forceinline__ int row_of_lane() {
  const int thread = opaque(threadIdx.x);
  return thread % 32 / 8 + thread % 8 * 4;
}
template <class Of>
__device__ __forceinline__ void row_times(const real* tile, int count, const Of& edges, real (&sum)[3]) {
  tile += place(row_of_lane());
#pragma unroll
  for (int i = 0; i < 3; ++i) sum[i] = real(0);
#pragma unroll 1
  for (int k = 0; k < count; k += 4) {
    const auto four = edges.four(k / 4);
    real by[4];
    load4(by, tile + k);
#pragma unroll
    for (int y = 0; y < 4; ++y)
#pragma unroll
      for (int i = 0; i < 3; ++i) sum[i] += by[y] * four[y].h[i];
  }
}

/// The sum over a row of the products of its numbers; a row is in eight lanes.
__device__ __forceinline__ real product(const real (&a)[4], const real (&b)[4]) {
  real sum = 0;
#pragma unroll
  for (int y = 0; y < 4; ++y) sum += a[y] * b[y];
  return sum_over_columns(sum);
}

/// Two rows that a warp finishes, for each of the four lanes' rows; the second is of the warp's second group of four rows.
struct OwnRows {
  int number[2];  // among the edges of the centre
  int at[2];      // the lane's place in a tile
  int row[2];     // of the edge; where it has none, the last one, so that all lanes take part
  bool own[2];    // whether the group is there
  bool has[2];    // whether the edge is
  int column;     // the lane's first

  __device__ __forceinline__ OwnRows(const Edges& e, int first_group, int warps) {
    const int thread = opaque(threadIdx.x);
    column = grid_column(thread) * VECTOR;
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      const int wanted = first_group + e.warp + x * warps;
      own[x] = wanted < TILE / 4;
      const int group = own[x] ? wanted : e.warp;  // else rows of this warp, which no other one touches
      number[x] = grid_row(thread) + 4 * group;
      at[x] = grid_place(thread) + column + group * TILE_ROW;
      has[x] = own[x] && number[x] < e.n;
      row[x] = e.first + (number[x] < e.n ? number[x] : e.n - 1);
    }
  }
  /// The first column of vector `group`.
  __device__ __forceinline__ int channel(int group) const { return column + group * 8 * VECTOR; }
  /// Rows of a tile times a matrix of the host's layout.
  __device__ __forceinline__ void times(real (&sum)[2][4], int depth, const real* tile, const real* matrix) const {
    add_times<2, 4 * TILE, TILE, 2 * TILE>(sum, depth, tile + at[0] - column, at[1] - at[0], matrix + column);
  }
  /// += the same rows of one tile per head, `apart` numbers from each other, times the head's number of the row if there are such.
  __device__ __forceinline__ void add_heads(real (&sum)[2][4], const real* tiles, int apart, int heads, const real* factors) const {
#pragma unroll 1
    for (int head = 0; head < heads; ++head)
#pragma unroll
      for (int x = 0; x < 2; ++x) {
        const real factor = factors != nullptr ? factors[head * TILE + number[x]] : real(1);
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) {
          const Vector v = read_vector(tiles + head * apart + at[x] + g * 8 * VECTOR);
#pragma unroll
          for (int i = 0; i < VECTOR; ++i) sum[x][g * VECTOR + i] += factor * v.v[i];
        }
      }
  }
};

/// What the heads from head0 on have found of a tile of edges, after a barrier: h2, and z, which after the last heads becomes the new g2.
/// tiles: z by each of the `active` heads, to be multiplied by `inverse` for every row if that is not null; moved: h2 by each of them.
/// No barrier at the end.
__device__ __forceinline__ void finish(const cuda::PairLayerArgs<real>& a, const Edges& e, int head0, int active, const real* tiles,
                                       const real* inverse, const real* moved) {
  const auto& with = a.with;
  const int warps = blockDim.x / 32;
  const bool last = head0 + warps >= with.heads;
  if (with.h2_weight != nullptr)
    add_edges(moved, 4 * TILE, active, e.n, [&](int row, int x, real sum) {
      if (x == 3) return;
      real* const to = row_of(a.h2_out, e.first + row, 3) + x;
      *to = (head0 == 0 ? with.h2_a * e.h2[row].h[x] : *to) + with.h2_r * sum;
    });
  if (with.value == nullptr && !last) return;
#pragma unroll 1
  for (int group = 0; 4 * group < e.n; group += 2 * warps) {
    const OwnRows rows(e, group, warps);
    real z[2][4] = {}, inv[2] = {}, linear[2][4] = {};
    if (with.value != nullptr) {
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
        const Vector bias = e.read(with.bias, rows.channel(g));
#pragma unroll
        for (int x = 0; x < 2; ++x) {
          // Between the rounds z is where the result will be.
          const Vector begin = head0 == 0 || !rows.has[x] ? bias : e.read(row_of(a.out, rows.row[x], e.n2), rows.channel(g));
#pragma unroll
          for (int i = 0; i < VECTOR; ++i) z[x][g * VECTOR + i] = begin.v[i];
        }
      }
      rows.add_heads(z, tiles, QUARTERED, active, inverse);
    }
    if (!last) {
#pragma unroll
      for (int g = 0; g < GROUPS; ++g)
#pragma unroll
        for (int x = 0; x < 2; ++x) {
          Vector sum;
#pragma unroll
          for (int i = 0; i < VECTOR; ++i) sum.v[i] = z[x][g * VECTOR + i];
          if (rows.has[x]) e.write(row_of(a.out, rows.row[x], e.n2), rows.channel(g), sum);
        }
      continue;
    }
    rows.times(linear, e.channels(), e.g2, with.linear_w);
    if (with.value != nullptr)
#pragma unroll
      for (int x = 0; x < 2; ++x) inv[x] = math::inverse_sigma<DeviceMath>(product(z[x], z[x]), real(e.n2), with.eps);
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      const int c = rows.channel(g);
      const Vector b = e.read(with.linear_b, c), by = e.read(with.linear_r, c);
      Vector of_U{}, gain{}, shift{};
      if (a.U != nullptr) of_U = e.read(with.g1g1_r, c);
      if (with.value != nullptr) gain = e.read(with.gain, c), shift = e.read(with.norm_shift, c);
#pragma unroll
      for (int x = 0; x < 2; ++x) {
        Vector out = read_vector(e.g2 + rows.at[x] + g * 8 * VECTOR), U{};
        if (a.U != nullptr) U = e.read(row_of(a.U, rows.row[x], e.n2), c);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) {
          const int y = g * VECTOR + i;
          real value, slope;
          activate(linear[x][y] + b.v[i], value, slope);
          out.v[i] = with.a * out.v[i] + by.v[i] * value;
          if (a.U != nullptr) out.v[i] += of_U.v[i] * U.v[i];
          if (with.value != nullptr) out.v[i] += z[x][y] * inv[x] * gain.v[i] + shift.v[i];
        }
        if (rows.has[x]) e.write(row_of(a.out, rows.row[x], e.n2), c, out);
      }
    }
  }
}

__device__ __forceinline__ void forward(const cuda::PairLayerArgs<real>& a, int first, int n, real* shared) {
  if (n == 0) return;
  const auto& with = a.with;
  const int warps = blockDim.x / 32, warp = uniform(threadIdx.x / 32);
  real* const tiles = shared + 2 * QUARTERED;
  real* const own = tiles + warp * QUARTERED;  // q, then R, then y, then z of this warp's head
  real* const c1 = shared + QUARTERED;
  Key* const keys = reinterpret_cast<Key*>(tiles + warps * QUARTERED);
  const Edges e{first, n, with.n2, Grid::groups_of(n), warp, shared, Margin{shared}, Margin{c1}, keys};
  real* const inverse = reinterpret_cast<real*>(e.keys + TILE);
  real* const moved = inverse + warps * TILE;  // h2 by each head
  const real npad = with.nsel > n ? real(with.nsel - n) : real(0);
  e.load(a.g2, a.h2, a.w, with.shift);
  __syncthreads();
  e.write_c1(c1, e.scaled);
  __syncthreads();
#pragma unroll 1
  for (int head0 = 0; head0 < with.heads; head0 += warps) {
    // A warp too many does the last head again, and nobody takes what it finds.
    const int active = with.heads - head0 < warps ? with.heads - head0 : warps;
    const int head = head0 + (warp < active ? warp : active - 1);
    Grid r;
    r.rows_times_matrix(e.groups, e.channels(), e.g2, with.query_t + head * cuda::tile_numbers);
    r.write(own);
    __syncwarp();
    r.rows_times_rows(e.groups, e.channels(), e.g2, own);
    softmax(e, r, r, c1, with.gate != 0, with.shift, npad, inverse + warp * TILE);
    times_c1(e.groups, r, c1);
    __syncwarp();
    r.write_turned(own);
    __syncwarp();
    if (with.h2_weight != nullptr) {
      real sum[3];
      row_times(own, e.edges(), e.h2, sum);
      const int row = warp * TILE + row_of_lane();
#pragma unroll
      for (int i = 0; i < 3; ++i) moved[row * 4 + i] = with.h2_weight[head] * inverse[row] * sum[i];
    }
    if (with.value != nullptr) {
      r.rows_times_tile(e.groups, e.edges(), own, e.g2);
      __syncwarp();
      r.write(own);
      __syncwarp();
      r.rows_times_matrix(e.groups, e.channels(), own, with.value + head * cuda::tile_numbers);
      __syncwarp();
      r.write(own);
    }
    __syncthreads();
    finish(a, e, head0, active, tiles, inverse, moved);
    __syncthreads();
  }
}

}  // namespace fast
}  // namespace dpa2
