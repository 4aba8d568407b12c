// The three-body block: embedded products of neighbour vectors (theory 6, 12.13). One block per centre at a time, over all ordered pairs
// of its edges, by tiles of neighbours; the padded slots are one more neighbour, behind the edges, that counts `multiplicity` times.
#include "cuda/embedding_net.cuh"
#include "cuda/env_mat.cuh"
#include "cuda/three_body.hpp"

using namespace dpa2;

namespace {

constexpr int THREADS = cuda::embedding_threads, TILE = cuda::three_body_tile, PAIR_ROW = cuda::three_body_row;
constexpr int PARTS = THREADS / TILE, PART = TILE / PARTS;  // threads of a neighbour, and what each of them adds up
static_assert(2 * TILE <= THREADS, "two tiles are loaded at once");

/// A centre, and how many neighbours it has.
struct Centre {
  int i, type, n, m, at;  // edges; with the padded slots; the first edge in the master list
  real multiplicity;

  template <class Args>
  __device__ __forceinline__ Centre(const Args& a, int centre)
      : i(centre), type(a.types[centre]), n(a.start[centre + 1] - a.start[centre]), at(a.master_start[centre]) {
    multiplicity = a.pad_v != nullptr ? real(a.pad[centre]) : real(0);
    m = n + (multiplicity != real(0) ? 1 : 0);
  }
  __device__ __forceinline__ real times(int k) const { return k < n ? real(1) : multiplicity; }
};

/// Neighbours `first`... of a centre in shared memory.
struct Side {
  real* v;    // (TILE, 4) vector and switch
  int* type;  // (TILE)
  int first, count;
};

/// What a block works on: two tiles of neighbours, and LANES of their pairs.
struct Pairs {
  Side a, b;
  real *e, *ss, *weight;  // (LANES): v_j . v_k, sw_j sw_k, multiplicities
  int* row;               // (LANES)
  real *sums, *de, *dss;  // of sum_lanes; (TILE, PAIR_ROW) gradients of e, and of ss where gated, of all pairs of the two tiles

  __device__ __forceinline__ Pairs(real* shared, bool backward) {
    a.v = shared;
    b.v = shared + 4 * TILE;
    e = shared + 8 * TILE;
    ss = e + LANES;
    weight = ss + LANES;
    sums = weight + LANES;
    de = sums + cuda::three_body_sums(gated) * cuda::embedding_parts * LANES;
    dss = de + TILE * PAIR_ROW;
    row = reinterpret_cast<int*>(shared + cuda::three_body_numbers(backward, gated, LANES));
    a.type = row + LANES;
    b.type = a.type + TILE;
  }

  /// The tiles that begin at these neighbours.
  template <class Args>
  __device__ __forceinline__ void load(const Args& args, const Centre& centre, int first_a, int first_b) {
    a.first = first_a;
    b.first = first_b;
    a.count = min(TILE, centre.m - first_a);
    b.count = min(TILE, centre.m - first_b);
    __syncthreads();
    const int t = threadIdx.x % TILE;
    if (threadIdx.x < TILE)
      load(args, centre, a, t);
    else if (threadIdx.x < 2 * TILE)
      load(args, centre, b, t);
  }

  /// Lane `lane` = the pair (j, k) of the tiles; no pair where k >= b.count.
  __device__ __forceinline__ void pair(const Centre& centre, int lane, int j, int k, bool there) {
    Quad product = {};
    if (there) {
      const Quad vj = read_quad(a.v + 4 * j), vk = read_quad(b.v + 4 * k);
      for (int x = 0; x < 4; ++x) product.at[x] = vj.at[x] * vk.at[x];
    }
    e[lane] = product.at[0] + product.at[1] + product.at[2];
    ss[lane] = product.at[3];
    weight[lane] = there ? centre.times(a.first + j) * centre.times(b.first + k) : real(0);
  }

 private:
  template <class Args>
  __device__ __forceinline__ static void load(const Args& args, const Centre& centre, const Side& side, int t) {
    const int k = side.first + t;
    if (t >= side.count) return;
    real R[4], sw = 0;
    int type;
    if (k < centre.n) {
      environment(args.statistics, Edge(args.d, args.r, centre.at + k), centre.type, R, sw);
      type = args.types[args.j[centre.at + k]];
    } else {
      for (int x = 0; x < 3; ++x) R[1 + x] = args.pad_v[3 * centre.type + x];
      type = args.pad_types[centre.i / args.per_frame];
    }
    write_quad(side.v + 4 * t, {{R[1], R[2], R[3], sw}});
    side.type[t] = type;
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::embedding_threads, FORWARD_BLOCKS) three_body(const cuda::ThreeBodyArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  const int n3 = a.n3, lane = threadIdx.x % QUADS * 4;
  Pairs at(shared, false);
  real* const total = work_of(shared, cuda::three_body_small(false, gated, LANES, sizeof(real)) / int(sizeof(real)), a.scratch,
                              cuda::three_body_work(n3, a.net.even, a.net.odd, false, LANES, sizeof(real)));
  real* const work = total + (n3 + 3) / 4 * 4;
  for (int i = blockIdx.x; i < a.centres; i += gridDim.x) {
    const Centre centre(a, i);
    for (int c = threadIdx.x; c < n3; c += THREADS) total[c] = real(0);
    for (int first_a = 0; first_a < centre.m; first_a += TILE)
      for (int first_b = 0; first_b < centre.m; first_b += TILE) {
        at.load(a, centre, first_a, first_b);
        const int pairs = at.a.count * at.b.count;
        for (int q = 0; q < pairs; q += LANES) {
          __syncthreads();
          const int own = threadIdx.x;
          if (own < LANES) {
            const bool there = q + own < pairs;
            const int j = there ? (q + own) / at.b.count : 0, k = there ? q + own - j * at.b.count : 0;
            at.pair(centre, own, j, k, there);
            at.row[own] = at.a.type[j] * a.ntypes + at.b.type[k];
          }
          const Embedded H = embed<false>(a.net, at.e, at.row, work);
          for (int c0 = 0; c0 < n3; c0 += THREADS / QUADS) {
            const int c = c0 + threadIdx.x / QUADS;
            real term = 0;
            if (c < n3) {
              const Quad h = read_quad(H.value + c * LANE_ROW + lane);
#pragma unroll
              for (int l = 0; l < 4; ++l) {
                real one = at.weight[lane + l] * at.e[lane + l] * h.at[l];
                if constexpr (gated)
                  one *= real(1) + a.net.gate[at.row[lane + l] * n3 + c] * (a.net.gate_switch != 0 ? at.ss[lane + l] : real(1));
                term += one;
              }
            }
            term = part_sum(term, QUADS);
            if (c < n3 && lane == 0) total[c] += term;
          }
        }
      }
    __syncthreads();
    for (int c = threadIdx.x; c < n3; c += THREADS) row_of(a.D, i, a.d_width)[a.offset + c] = total[c] * a.inv_nsel_squared;
  }
}

namespace {

/// gamma += what the pairs of the two tiles give to neighbour `t` of one of them. Threads t * PARTS... of all warps take part; a neighbour
/// belongs to the same thread whatever the tiles.
__device__ __forceinline__ void add_to_edge(const cuda::ThreeBodyBackwardArgs<real>& a, const Centre& centre, const Side& side,
                                            real (&sum)[4]) {
  const int t = threadIdx.x / PARTS, k = side.first + t;
  for (int x = 0; x < 4; ++x) sum[x] = part_sum(sum[x], PARTS);
  if (threadIdx.x % PARTS != 0 || t >= side.count || k >= centre.n) return;
  const real dR[4] = {real(0), sum[0], sum[1], sum[2]};
  real g[3] = {};
  environment_backward(a.statistics, Edge(a.d, a.r, centre.at + k), centre.type, dR, sum[3], g);
  for (int x = 0; x < 3; ++x) a.gamma[3LL * (centre.at + k) + x] += g[x];
}

/// sum (4) += over the neighbours of the other side: `step` numbers from one to the next in the tables, `own` this neighbour's place there.
__device__ __forceinline__ void add_pairs(const Pairs& at, const Side& other, int own, int step, real (&sum)[4]) {
  const int first = threadIdx.x % PARTS * PART, end = min(first + PART, other.count);
  for (int k = first; k < end; ++k) {
    const Quad v = read_quad(other.v + 4 * k);
    const real de = at.de[own + k * step];
    for (int x = 0; x < 3; ++x) sum[x] += de * v.at[x];
    if constexpr (gated) sum[3] += at.dss[own + k * step] * v.at[3];
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::embedding_threads, BACKWARD_BLOCKS)
    three_body_backward(const cuda::ThreeBodyBackwardArgs<real> a) {
  DYNAMIC_SHARED(real, shared);
  const int n3 = a.n3, lane = threadIdx.x % QUADS * 4;
  Pairs at(shared, true);
  real* const dQ = work_of(shared, cuda::three_body_small(true, gated, LANES, sizeof(real)) / int(sizeof(real)), a.scratch,
                           cuda::three_body_work(n3, a.net.even, a.net.odd, true, LANES, sizeof(real)));
  real* const work = dQ + (n3 + 3) / 4 * 4;
  for (int i = blockIdx.x; i < a.centres; i += gridDim.x) {
    const Centre centre(a, i);
    for (int c = threadIdx.x; c < n3; c += THREADS) dQ[c] = row_of(a.dD, i, a.d_width)[a.offset + c] * a.inv_nsel_squared;
    // Every two tiles once; where they differ, a pair of their neighbours counts in both orders.
    for (int first_a = 0; first_a < centre.m; first_a += TILE)
      for (int first_b = first_a; first_b < centre.m; first_b += TILE) {
        at.load(a, centre, first_a, first_b);
        const int pairs = at.a.count * at.b.count, orders = first_a == first_b ? 1 : 2;
        for (int q = 0; q < pairs; q += LANES) {
          const int own = threadIdx.x;
          const bool there = own < LANES && q + own < pairs;
          const int j = there ? (q + own) / at.b.count : 0, k = there ? q + own - j * at.b.count : 0;
          __syncthreads();
          if (own < LANES) at.pair(centre, own, j, k, there);
          for (int order = 0; order < orders; ++order) {
            if (own < LANES) at.row[own] = order == 0 ? at.a.type[j] * a.ntypes + at.b.type[k] : at.b.type[k] * a.ntypes + at.a.type[j];
            const Embedded H = embed<true>(a.net, at.e, at.row, work);
            constexpr int SUMS = cuda::three_body_sums(gated);
            real sums[SUMS][4] = {};  // dH, along the scalar, and through the gate
            for (int c = threadIdx.x / QUADS; c < n3; c += THREADS / QUADS) {
              const Quad h = read_quad(H.value + c * LANE_ROW + lane), slope = read_quad(H.tangent + c * LANE_ROW + lane);
              const real given = dQ[c];
#pragma unroll
              for (int l = 0; l < 4; ++l) {
                real factor = given;
                if constexpr (gated) {
                  const real g = a.net.gate[at.row[lane + l] * n3 + c];
                  factor *= real(1) + g * (a.net.gate_switch != 0 ? at.ss[lane + l] : real(1));
                  sums[SUMS - 1][l] += given * h.at[l] * g;
                }
                sums[0][l] += factor * h.at[l];
                sums[1][l] += factor * slope.at[l];
              }
            }
            sum_lanes(sums, at.sums);
            if (there) {
              const int place = j * PAIR_ROW + k;
              const real de = at.weight[own] * (at.sums[own] + at.e[own] * at.sums[LANES + own]);
              at.de[place] = order == 0 ? de : at.de[place] + de;
              if constexpr (gated) {
                const real dss = a.net.gate_switch != 0 ? at.weight[own] * at.e[own] * at.sums[(SUMS - 1) * LANES + own] : real(0);
                at.dss[place] = order == 0 ? dss : at.dss[place] + dss;
              }
            }
          }
        }
        __syncthreads();
        const int t = threadIdx.x / PARTS;
        real sum[4] = {};
        if (t < at.a.count) add_pairs(at, at.b, t * PAIR_ROW, 1, sum);
        if (orders == 2) {
          add_to_edge(a, centre, at.a, sum);
          for (int x = 0; x < 4; ++x) sum[x] = real(0);
        }
        if (t < at.b.count) add_pairs(at, at.a, t, PAIR_ROW, sum);
        add_to_edge(a, centre, at.b, sum);
      }
  }
}
