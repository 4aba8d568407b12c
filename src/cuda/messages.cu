// What passes from the neighbours to a centre in one layer: convolution and symmetrisation (theory 8.4, 8.8, 12.5, 12.6, S18).
// One block per centre; back to the neighbours is in gather.cu.
//
// With g1_out_conv the projection P acts on g2. It is taken out of the sum over the edges, conv_c = sum_k P[k][c] (sum_e w_e g2_e[k]
// g1_j[c]): the neighbours' rows of g1 are read once for this and for the moments. Else P acts on g1, atom by atom, and comes as rows
// (node).
#include "cuda/messages.hpp"

#include "cuda/edge_sums.cuh"
#include "math/normalisation.hpp"

using namespace dpa2;

namespace {

/// Where a matrix (., nc) that begins at column `at` of rows of `width` numbers may be read by fours.
__device__ __forceinline__ bool by_fours(int at, int width, int nc) { return (at | width | nc) % 4 == 0; }

/// out (axis, nc) = (1/3) sum_x C[x, a] C[x, c], C (3, nc); four columns for each of the threads from `begin` on.
__device__ __forceinline__ void gram(real* out, bool fours, const real* C, int nc, int axis, int begin) {
  const int thread = (threadIdx.x + cuda::edge_threads - begin) % cuda::edge_threads;
  for (int c = 4 * thread; c < nc; c += 4 * cuda::edge_threads) {
    real m[3][4];
    for (int x = 0; x < 3; ++x) {
      load_row4(m[x], C + x * nc, c, nc);
      for (int s = 0; s < 4; ++s) m[x][s] *= real(1.0 / 3.0);
    }
#pragma unroll 2
    for (int a = 0; a < axis; ++a) {
      const real u = C[a], v = C[nc + a], w = C[2 * nc + a];
      real row[4];
      for (int s = 0; s < 4; ++s) row[s] = u * m[0][s] + v * m[1][s] + w * m[2][s];
      if (fours) {
        store4(out + a * nc + c, row);
      } else {
        for (int s = 0; s < 4; ++s)
          if (c + s < nc) out[a * nc + c + s] = row[s];
      }
    }
  }
}

// What a lane has: float has the registers for eight columns, of four numbers of an edge.
constexpr int COLUMNS = sizeof(real) == 4 ? 8 : 4;
constexpr int PER = sizeof(real) == 4 ? 4 : GROUP;
constexpr int SPAN = 8 * COLUMNS;           // columns of a warp
constexpr int STEP = 4 * PER;               // numbers of a warp
constexpr int LOG_STEPS = GROUP / PER / 2;  // 1 where warps with the same columns share the numbers
using Sums = EdgeSums<COLUMNS, PER>;

/// How the warps share the columns of g1 and, where there are fewer spans of these than warps, first the numbers, then the edges.
/// Everything is a power of two.
struct Shares {
  int log;        // of how many warps have the same columns
  int log_steps;  // of how many of these have numbers of their own
  int span;       // of the warp, among those that the block has at a time
  int share;

  __device__ __forceinline__ Shares(int columns, int numbers)
      : log(columns <= SPAN       ? 2
            : columns <= 2 * SPAN ? 1
                                  : 0),
        log_steps(log > 0 && numbers > STEP ? LOG_STEPS : 0) {
    const int warp = threadIdx.x / 32;
    span = warp & (beside() - 1);
    share = warp >> (2 - log);
  }
  __device__ __forceinline__ int beside() const { return WARPS >> log; }
  __device__ __forceinline__ int step() const { return share & ((1 << log_steps) - 1); }
  __device__ __forceinline__ int log_edges() const { return log - log_steps; }
};
static_assert(WARPS == 4 && LOG_STEPS <= 1, "as many shares as Shares has");

/// What the parts of the kernel share: the edges of a centre, in shared memory.
struct Centre {
  const cuda::MessagesArgs<real>& a;
  EdgeFactors factors;
  Outgoing edges;
  int n;

  __device__ __forceinline__ void stage(int k0, int first, int count) const {
    const bool numbers = a.P != nullptr || a.grrg != nullptr || a.node != nullptr;
    stage_factors(factors, edges, a.w, a.h2, numbers ? a.g2 : nullptr, a.n2, k0, first, count);
  }
  template <bool Whole, int FLIGHT>
  __device__ __forceinline__ void add_neighbours(Sums& sums, int first, int end, int k, int c, bool vectors) const {
    const Columns<Whole, COLUMNS> g1(a.g1, a.n1, a.n1, c);
    if (a.P == nullptr)
      add_edges<FLIGHT, false, true, false>(sums, factors, first, end, k, g1, g1);
    else if (vectors)
      add_edges<FLIGHT, true, true, false>(sums, factors, first, end, k, g1, g1);
    else
      add_edges<FLIGHT, true, false, false>(sums, factors, first, end, k, g1, g1);
  }
  /// sums += the warp's share of `count` edges that have been staged, at the columns c.. of the neighbours' g1, their numbers from k on.
  template <int FLIGHT>
  __device__ __forceinline__ void add(Sums& sums, const Shares& by, int count, int k, int c, bool vectors) const {
    const int log = by.log_edges();
    const int each = (((count + (1 << log) - 1) >> log) + FLIGHT - 1) / FLIGHT * FLIGHT;
    const int first = (by.share >> by.log_steps) * each, end = min(count, first + each);
    if (a.n1 % COLUMNS == 0)
      add_neighbours<true, FLIGHT>(sums, first, end, k, c, vectors);
    else
      add_neighbours<false, FLIGHT>(sums, first, end, k, c, vectors);
  }
  /// conv = its sum over the groups of lanes and over the warps that have the same columns, of which a quarter is left to each group; the
  /// moments = from three groups of lanes. parts may be what has been staged.
  __device__ __forceinline__ void store(real (&conv)[COLUMNS], real (&moment)[COLUMNS], const Shares& by, int c, real* parts, real kn,
                                        real kh) const {
    constexpr int OWN = COLUMNS / 4, OTHERS = (WARPS - 1) * 32;
    if (a.P != nullptr) scatter_groups(conv);
    if (by.log > 0) {
      const int beside = 32 * by.beside(), lane = 32 * by.span + threadIdx.x % 32;
      real* own = parts + OTHERS * COLUMNS;
      const bool moments = by.log_edges() > 0;
      __syncthreads();
      if (by.share > 0) {
        const int at = (by.share - 1) * beside + lane;
#pragma unroll
        for (int x = 0; x < OWN; ++x) own[at + OTHERS * x] = conv[x];
        if (moments)
#pragma unroll
          for (int x = 0; x < COLUMNS; x += 4) store4(sixteen(parts, (OTHERS * x + 4 * at) / VECTOR), moment + x);
      }
      __syncthreads();
      if (by.share > 0) return;
#pragma unroll 1
      for (int s = 0, at = lane; s < (1 << by.log) - 1; ++s, at += beside) {
#pragma unroll
        for (int x = 0; x < OWN; ++x) conv[x] += own[at + OTHERS * x];
        if (moments)
#pragma unroll
          for (int x = 0; x < COLUMNS; x += 4) {
            real other[4];
            load4(other, parts + OTHERS * x + 4 * at);
#pragma unroll
            for (int y = 0; y < 4; ++y) moment[x + y] += other[y];
          }
      }
    }
    const int i = blockIdx.x, g = group_of_lane();
    if (a.P != nullptr) {
      real* to = row_of(a.conv, i, a.n1);
#pragma unroll
      for (int x = 0; x < OWN; ++x)
        if (c + g * OWN + x < a.n1) to[c + g * OWN + x] = kn * conv[x];
    }
    if (a.drrd != nullptr && g < 3) {
      real* to = row_of(a.drrd, 3 * i + g, a.n1);
#pragma unroll
      for (int x = 0; x < COLUMNS; ++x) moment[x] *= kh;
#pragma unroll
      for (int x = 0; x < COLUMNS; x += 4) store_row4(to, c + x, a.n1, moment + x);
    }
  }
  static constexpr int PARTS = (WARPS - 1) * 32 * (COLUMNS + COLUMNS / 4);
};

/// conv += the lane's share of what its sums over the edges make, for the numbers from k on.
__device__ __forceinline__ void add_projected(real (&conv)[COLUMNS], const Sums& sums, const cuda::MessagesArgs<real>& a, int k, int c) {
  if (a.P != nullptr && c < a.n1) add_product(conv, sums.t, a.P + cuda::strip_of(c / TILE * TILE, a.n2) + k * TILE + c % TILE);
}

/// conv, and the moments of the neighbours' g1, where the warps of the block have all columns and numbers together and all edges have been
/// staged; these may be gone afterwards.
__device__ __forceinline__ void of_neighbours_at_once(const Centre& centre, const Shares& by, real* parts, real kn, real kh) {
  const int k = STEP * by.step(), c = SPAN * by.span + column_of_lane() * (COLUMNS / 4);
  Sums sums;
  real conv[COLUMNS] = {};
  centre.add<flight(false)>(sums, by, centre.n, k, c, k == 0);
  add_projected(conv, sums, centre.a, k, c);
  centre.store(conv, sums.v, by, c, parts, kn, kh);
}

/// The same for any sizes.
__device__ __forceinline__ void of_neighbours(const Centre& centre, const Shares& by, real* parts, real kn, real kh) {
  const cuda::MessagesArgs<real>& a = centre.a;
  const int k_end = a.P != nullptr ? a.n2 : 1;
  for (int c0 = 0; c0 < a.n1; c0 += SPAN * by.beside()) {
    const int chunk = c0 + SPAN * by.span, c = chunk + column_of_lane() * (COLUMNS / 4);
    real conv[COLUMNS] = {}, along[COLUMNS] = {};
    for (int k0 = 0; k0 < k_end; k0 += STEP << by.log_steps) {
      const int k = k0 + STEP * by.step();
      const bool mine = chunk < a.n1 && k < k_end;
      Sums sums;
      for (int first = 0; first < centre.n; first += AT_ONCE) {
        const int count = min(AT_ONCE, centre.n - first);
        centre.stage(k0 / NUMBERS * NUMBERS, first, count);
        if (mine) centre.add<2>(sums, by, count, k % NUMBERS, c, k == 0);
      }
      if (!mine) continue;
      add_projected(conv, sums, a, k, c);
      if (k == 0)
#pragma unroll
        for (int x = 0; x < COLUMNS; ++x) along[x] = sums.v[x];
    }
    centre.store(conv, along, by, c, parts, kn, kh);
  }
}

/// The moments of g2, and conv where P acted on g1, for the numbers from k0 on.
__device__ __forceinline__ void add_pairs(PairSums& pairs, const Centre& centre, int k0, int count) {
  const cuda::MessagesArgs<real>& a = centre.a;
  if (a.grrg != nullptr) pairs.add_vectors(centre.factors, count);
  if (a.node != nullptr) pairs.add_rows(centre.factors, count, a.node + k0, a.n2, a.n2 - k0);
}
__device__ __forceinline__ void store_pairs(const PairSums& pairs, const Centre& centre, int k0, real* parts, real kn, real kh) {
  const cuda::MessagesArgs<real>& a = centre.a;
  const real whole = pairs.whole(parts);
  const int i = blockIdx.x, d = threadIdx.x / NUMBERS, k = k0 + PairSums::number();
  if (k >= a.n2) return;
  if (d == 0 && a.node != nullptr) row_of(a.cat, i, a.cat_width)[a.cat_conv + k] = kn * whole;
  if (d > 0 && d < 4 && a.grrg != nullptr) row_of(a.grrg, 3 * i + d - 1, a.n2)[k] = kh * whole;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, BLOCKS) messages(const cuda::MessagesArgs<real> a) {
  __align__(16) __shared__ real number[AT_ONCE * FACTORS];  // then what warps bring together
  __align__(16) __shared__ real vector[AT_ONCE * 4];
  __align__(16) __shared__ int row[AT_ONCE];
  static_assert(AT_ONCE * FACTORS >= Centre::PARTS && AT_ONCE * FACTORS >= PairSums::ROOM, "it is enough");
  const int i = blockIdx.x, begin = a.start[i], n = a.start[i + 1] - begin;
  const Centre centre{a, {number, vector, row}, {a.j, begin}, n};
  const math::Normalisation<DeviceMath, real> kappa{a.nsel, a.smooth != 0, a.root != 0};
  const real kn = kappa.conv(n), kh = kappa.moment(n);
  const bool neighbours = a.P != nullptr || a.drrd != nullptr, pairs = a.grrg != nullptr || a.node != nullptr;
  const int k_end = a.P != nullptr ? a.n2 : 1;
  const Shares by(a.n1, k_end);
  const bool at_once = n <= AT_ONCE && a.n2 <= NUMBERS && a.n1 <= SPAN * WARPS && k_end <= STEP << by.log_steps;
  if (at_once) {
    PairSums sums;
    centre.stage(0, 0, n);
    if (pairs) add_pairs(sums, centre, 0, n);
    if (neighbours) of_neighbours_at_once(centre, by, number, kn, kh);
    if (pairs) store_pairs(sums, centre, 0, number, kn, kh);
  } else {
    if (neighbours) of_neighbours(centre, by, number, kn, kh);
    for (int k0 = 0; pairs && k0 < a.n2; k0 += NUMBERS) {
      PairSums sums;
      for (int first = 0; first < n; first += AT_ONCE) {
        const int count = min(AT_ONCE, n - first);
        centre.stage(k0, first, count);
        add_pairs(sums, centre, k0, count);
      }
      store_pairs(sums, centre, k0, number, kn, kh);
    }
  }
  if (a.cat == nullptr) return;
  __syncthreads();
  real* cat = row_of(a.cat, i, a.cat_width);
  if (a.grrg != nullptr && a.cat_grrg >= 0)
    gram(cat + a.cat_grrg, by_fours(a.cat_grrg, a.cat_width, a.n2), row_of(a.grrg, 3 * i, a.n2), a.n2, a.axis, 32);
  if (a.drrd != nullptr) gram(cat + a.cat_drrd, by_fours(a.cat_drrd, a.cat_width, a.n1), row_of(a.drrd, 3 * i, a.n1), a.n1, a.axis, 0);
}

namespace {

/// factor (TILE, 4): the weight of an edge in the convolution and, times h2, in the moments.
__device__ __forceinline__ void weigh_edges(real* factor, const real* w, const real* h2, int first, int count, real kn, real kh) {
  const int e = threadIdx.x;
  if (e >= count) return;
  const real* h = h2 + 3LL * (first + e);
  const real weight = w[first + e], along = kh * weight;
  const real f[4] = {kn * weight, along * h[0], along * h[1], along * h[2]};
  store4(factor + 4 * e, f);
}

/// One centre's moments C (3, nc) and the gradients of their Gram product.
struct Moments {
  real* dC;           // (3, nc), or null: there are none
  const real* dgram;  // (axis, nc), or null: nothing flows into the product
  const real* seed;   // (3, nc) what flows into the moments besides, or null
  const real* C;
  int nc, axis;
  bool fours;  // of dgram

  __device__ __forceinline__ void load(real (&d)[4], int a, int c) const {
    const real* row = dgram + a * nc;
    if (fours) {
      load4(d, row + c);
    } else {
      for (int s = 0; s < 4; ++s) d[s] = c + s < nc ? row[c + s] : real(0);
    }
  }
  /// Whether channel `a` has sums over all channels.
  __device__ __forceinline__ bool has(int a) const { return dC != nullptr && dgram != nullptr && a < axis; }
  /// acc[x] += a lane's share of sum_c dgram[a][c] C[x][c].
  __device__ __forceinline__ void add_axis(real* acc, int a) const {
    if (!has(a)) return;
    for (int c = threadIdx.x % 32 * 4; c < nc; c += 128) {
      real d[4];
      load(d, a, c);
#pragma unroll
      for (int x = 0; x < 3; ++x) {
        real v[4];
        load_row4(v, C + x * nc, c, nc);
#pragma unroll
        for (int s = 0; s < 4; ++s) acc[x] += d[s] * v[s];
      }
    }
  }
  /// dC[x][c] = (1/3) (sum_a dgram[a][c] C[x][a], and for axis channels what dC holds of add_axis) + the seed; four columns for each
  /// of the threads from `begin` on.
  __device__ __forceinline__ void finish(int begin) const {
    const int thread = (threadIdx.x + cuda::edge_threads - begin) % cuda::edge_threads, sums = dgram != nullptr ? axis : 0;
    if (dC == nullptr) return;
    for (int c = 4 * thread; c < nc; c += 4 * cuda::edge_threads) {
      real acc[3][4] = {};
      if (c < sums)
        for (int x = 0; x < 3; ++x)
          for (int s = 0; s < 4; ++s) acc[x][s] = c + s < sums ? dC[x * nc + c + s] : real(0);
#pragma unroll 2
      for (int a = 0; a < sums; ++a) {
        real d[4];
        load(d, a, c);
        for (int x = 0; x < 3; ++x) {
          const real v = C[x * nc + a];
          for (int s = 0; s < 4; ++s) acc[x][s] += d[s] * v;
        }
      }
      for (int x = 0; x < 3; ++x) {
        real out[4] = {};
        if (seed != nullptr) load_row4(out, seed + x * nc, c, nc);
        for (int s = 0; s < 4; ++s) out[s] += acc[x][s] * real(1.0 / 3.0);
        store_row4(dC + x * nc, c, nc, out);
      }
    }
  }
};

/// Of the warp's channels of g1: its share of the gradients of g2 before kappa and w, to its slab (TILE, ROW) for the columns k0.. with
/// Pt; and of the vectors of the edges, to share (3, TILE), with drrd where k0 is 0.
struct FromNeighbours {
  const cuda::MessagesBackwardArgs<real>& a;
  real *slab, *share;
  const int* row;
  int k0;

  // Edges of a lane whose rows are in registers together: in double, half of them.
  static constexpr int TOGETHER = sizeof(real) == 4 ? 8 : 4, ROUNDS = 8 / TOGETHER;

  /// The lane's edges number FIRST.. + COUNT - 1: their share += with `vectors`, and the slab =, times `scale`.
  template <int FIRST, int COUNT>
  __device__ __forceinline__ void bring(const real (&scale)[4], int c0, int c, bool vectors) const {
    real v[COUNT][4];
    load_neighbours<COUNT>(v, a.g1, row + 4 * FIRST, a.n1, c);
    if (vectors)
#pragma unroll
      for (int x = 0; x < 3; ++x) {
        real d[4], along[TOGETHER] = {};
        load_row4(d, row_of(a.ddrrd, 3 * static_cast<int>(blockIdx.x) + x, a.n1), c, a.n1);
#pragma unroll
        for (int m = 0; m < COUNT; ++m) along[m] = d[0] * v[m][0] + d[1] * v[m][1] + d[2] * v[m][2] + d[3] * v[m][3];
        const real sum = lane_sums<TOGETHER, 8>(along);
        // Eight lanes had the same edges; this one has the sum of number threadIdx.x % 8 / ROUNDS of these.
        real* to = share + TILE * x + (FIRST + threadIdx.x % 8 / ROUNDS) * 4 + edge_of_lane();
        if (threadIdx.x % ROUNDS == 0) *to = c0 == 0 ? sum : *to + sum;
      }
    if (a.Pt != nullptr) store_scaled<COUNT>(slab + 4 * FIRST * ROW, v, scale);
  }

  template <int M>
  __device__ __forceinline__ void run() const {
    const int i = blockIdx.x;
    const bool vectors = a.ddrrd != nullptr && k0 == 0, numbers = a.Pt != nullptr;
    const real* Pt = a.Pt + cuda::strip_of(k0, a.n1) + column_of_lane();
    real acc[M][4] = {};
    for (int c0 = 0; c0 < a.n1; c0 += 32 * WARPS) {
      const int chunk = c0 + threadIdx.x / 32 * 32, c = chunk + column_of_lane();
      real scale[4] = {};
      if (numbers) {
        real r[4];
        load_row4(scale, row_of(a.dout, i, a.n1), c, a.n1);
        load_row4(r, a.r_conv, c, a.n1);
        for (int x = 0; x < 4; ++x) scale[x] *= r[x];
      }
      __syncwarp();  // the slab has been read
      bring<0, (M < TOGETHER ? M : TOGETHER)>(scale, c0, c, vectors);
      if constexpr (M > TOGETHER) bring<TOGETHER, M - TOGETHER>(scale, c0, c, vectors);
      if (!numbers) continue;
      __syncwarp();
      if (chunk < a.n1) tile_product<M>(acc, slab + edge_of_lane() * ROW, Pt + chunk * TILE, TILE);
    }
    __syncwarp();
    if (numbers) store_tile<M>(slab, acc);
  }
};

/// dg2 of a tile in the columns k0..k0 + 31, and the edges' sums (TILE, 4) over them: of conv, of the vector.
__device__ __forceinline__ void to_pairs(const cuda::MessagesBackwardArgs<real>& a, const real* slabs, const real* factor, real* sums,
                                         const int* row, int first, int count, int k0) {
  const int i = blockIdx.x, k = k0 + column_of_lane();
  real d[3][4] = {}, given[4] = {};
  if (a.dgrrg != nullptr)
    for (int x = 0; x < 3; ++x) load_row4(d[x], row_of(a.dgrrg, 3 * i + x, a.n2), k, a.n2);
  if (a.node != nullptr)
    for (int x = 0; x < 4; ++x) given[x] = k + x < a.n2 ? row_of(a.dcat, i, a.cat_width)[a.cat_conv + k + x] : real(0);
  for (int e0 = 0; e0 < count; e0 += 4 * WARPS) {
    const int e = e0 + threadIdx.x / 8;
    const bool inside = e < count;
    real part[4] = {};
    if (inside) {
      real f[4], v[4], q[4] = {}, out[4];
      load4(f, factor + 4 * e);
      load_row4(v, row_of(a.g2, first + e, a.n2), k, a.n2);
      if (a.Pt != nullptr) sum_of_slabs(q, slabs, e);
      if (a.node != nullptr) {
        load_row4(q, row_of(a.node, row[e], a.n2), k, a.n2);
        for (int x = 0; x < 4; ++x) q[x] *= given[x];
      }
      real* to = row_of(a.dg2, first + e, a.n2);
      real before[4] = {};
      if (a.fresh == 0) load_row4(before, to, k, a.n2);
#pragma unroll
      for (int x = 0; x < 4; ++x) {
        part[0] += q[x] * v[x];
#pragma unroll
        for (int y = 0; y < 3; ++y) part[1 + y] += d[y][x] * v[x];
        out[x] = before[x] + f[0] * q[x] + f[1] * d[0][x] + f[2] * d[1][x] + f[3] * d[2][x];
      }
      store_row4(to, k, a.n2, out);
    }
    const real sum = lane_sums<4, 8>(part);
    if (inside && threadIdx.x % 2 == 0) sums[4 * e + threadIdx.x % 8 / 2] += sum;
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::edge_threads, sizeof(real) == 4 ? 4 : 3)
    messages_backward(const cuda::MessagesBackwardArgs<real> a) {
  __align__(16) __shared__ real slabs[WARPS * TILE * ROW];
  __align__(16) __shared__ real factor[4 * TILE];
  __align__(16) __shared__ real sums[TILE * 4];
  __shared__ real share[WARPS * 3 * TILE];
  __align__(16) __shared__ int row[TILE];
  static_assert(sizeof(slabs) + sizeof(factor) + sizeof(sums) + sizeof(share) + sizeof(row) <= 48 * 1024,
                "any device has this for a block");
  const int i = blockIdx.x, warp = threadIdx.x / 32, begin = a.start[i], end = a.start[i + 1];
  if (begin == end) return;
  const math::Normalisation<DeviceMath, real> kappa{a.nsel, a.smooth != 0, a.root != 0};
  const real kn = kappa.conv(end - begin), kh = kappa.moment(end - begin);
  const real* dcat = a.dcat != nullptr ? row_of(a.dcat, i, a.cat_width) : nullptr;
  const bool product = a.grrg != nullptr;
  const Moments of_g2{a.dgrrg != nullptr ? row_of(a.dgrrg, 3 * i, a.n2) : nullptr,
                      product ? dcat + a.cat_grrg : nullptr,
                      a.seed != nullptr ? row_of(a.seed, 3 * i, a.n2) : nullptr,
                      product ? row_of(a.grrg, 3 * i, a.n2) : nullptr,
                      a.n2,
                      a.axis,
                      by_fours(a.cat_grrg, a.cat_width, a.n2)};
  const bool indexed = a.ddrrd != nullptr;
  const Moments of_g1{indexed ? row_of(a.ddrrd, 3 * i, a.n1) : nullptr,
                      indexed ? dcat + a.cat_drrd : nullptr,
                      nullptr,
                      indexed ? row_of(a.drrd, 3 * i, a.n1) : nullptr,
                      a.n1,
                      a.axis,
                      by_fours(a.cat_drrd, a.cat_width, a.n1)};
  if (of_g1.dC != nullptr || of_g2.dC != nullptr) {
    for (int first = 0; first < a.axis; first += WARPS) {
      const int axis = first + warp, x = threadIdx.x % 32 / 4;
      real acc[8] = {};
      of_g1.add_axis(acc, axis);
      of_g2.add_axis(acc + 4, axis);
      const real sum = lane_sums<8, 32>(acc);
      if (threadIdx.x % 4 == 0 && x < 3 && of_g1.has(axis)) of_g1.dC[x * a.n1 + axis] = sum;
      if (threadIdx.x % 4 == 0 && x >= 4 && x < 7 && of_g2.has(axis)) of_g2.dC[(x - 4) * a.n2 + axis] = sum;
    }
    __syncthreads();
    of_g1.finish(0);
    of_g2.finish(32);
  }
  for (int first = begin, each = edges_of_tile(end - begin); first < end; first += each) {
    const int count = min(each, end - first);
    __syncthreads();
    weigh_edges(factor, a.w, a.h2, first, count, kn, kh);
    stage_rows(row, a.j, first, count);
    for (int t = threadIdx.x; t < 4 * TILE; t += blockDim.x) sums[t] = 0;
    __syncthreads();
    for (int k0 = 0; k0 == 0 || k0 < a.n2; k0 += 32) {
      if (a.Pt != nullptr || (a.ddrrd != nullptr && k0 == 0)) {
        if (k0 > 0) __syncthreads();
        with_edges_per_lane(count, FromNeighbours{a, slabs + warp * TILE * ROW, share + warp * 3 * TILE, row, k0});
        __syncthreads();
      }
      if (a.fresh != 0 || a.Pt != nullptr || a.node != nullptr || a.dgrrg != nullptr)
        to_pairs(a, slabs, factor, sums, row, first, count, k0);
    }
    __syncthreads();
    const int e = threadIdx.x;
    if (e < count) {
      const long long at = first + e;
      real sum[4], along = 0;
      load4(sum, sums + 4 * e);
      for (int x = 0; x < 3; ++x) {
        real df = sum[1 + x];
        if (a.ddrrd != nullptr)
          for (int s = 0; s < WARPS; ++s) df += share[(3 * s + x) * TILE + e];
        along += a.h2[3 * at + x] * df;
        const real out = kh * a.w[at] * df;
        a.dh2[3 * at + x] = a.fresh != 0 ? out : a.dh2[3 * at + x] + out;
      }
      const real out = kn * sum[0] + kh * along;
      a.dw[at] = a.fresh != 0 ? out : a.dw[at] + out;
    }
  }
}
