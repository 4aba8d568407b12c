// The fitting network (theory 9.1, 12.2): hidden layers with skip and idt, atomic energies, and their gradient with respect to g1.
#include "cuda/activation.cuh"
#include "cuda/counted.cuh"
#include "cuda/failed.cuh"
#include "cuda/fitting.hpp"
#include "cuda/product.cuh"

using namespace dpa2;

namespace {

/// Rows of which only the first are stored, the others zeros.
struct GivenRows {
  struct Row {
    const real* at;
    bool given;
    __device__ __forceinline__ real operator()(int k) const { return given ? at[k] : real(0); }
    __device__ __forceinline__ void skip(int columns) { at += columns; }
  };
  const real* a;
  int width, given;
  __device__ __forceinline__ Row row(int i) const { return {row_of(a, i, width), i < given}; }
};

/// What the network sees besides g1.
struct ExtraRows {
  struct Row {
    const cuda::FittingExtra<real>* given;
    int atom, frame, first = 0;
    __device__ __forceinline__ void skip(int columns) { first += columns; }
    __device__ __forceinline__ real operator()(int k) const {
      const cuda::FittingExtra<real>& e = *given;
      k += first;
      if (k < e.ntebd) return atom < e.centres ? e.tebd[e.types[atom] * e.ntebd + k] : real(0);
      k -= e.ntebd;
      if (k < e.nfparam) return real((e.fparam[frame * e.fparam_row + k] - e.fparam_avg[k]) * e.fparam_inv_std[k]);
      k -= e.nfparam;
      if (k < e.naparam) {
        const int of = atom < e.centres ? atom : atom - e.centres;
        return real((row_of(e.aparam, of, e.naparam)[k] - e.aparam_avg[k]) * e.aparam_inv_std[k]);
      }
      return e.case_embd[k - e.naparam];
    }
  };
  const cuda::FittingExtra<real>& e;
  __device__ __forceinline__ Row row(int i) const {
    const int beyond = i - e.centres;
    return {&e, i, beyond < 0 ? i / e.per_frame : e.naparam > 0 ? beyond / e.per_frame : beyond};
  }
};

/// The gradient of the last layer's results: the seed of the atom times the row of weights.
struct SeedRows {
  struct Row {
    real seed;
    const real *w, *slope;
    __device__ __forceinline__ real operator()(int k) const { return seed * w[k] * slope[k]; }
    __device__ __forceinline__ void skip(int columns) { w += columns, slope += columns; }
  };
  const cuda::FittingBackwardArgs<real>& p;
  __device__ __forceinline__ real seed(int i) const {
    if (!counts(p.given_types, p.types, p.counted, i)) return real(0);
    return p.seed != nullptr ? real(p.seed[i]) : real(1);
  }
  __device__ __forceinline__ Row row(int i) const { return {seed(i), p.w_out, row_of(p.slope, i, p.out)}; }
};

}  // namespace

// A block of product_threads per tile of y.
extern "C" __global__ void __launch_bounds__(128, RESIDENT) fitting_hidden(const cuda::FittingHiddenArgs<real> p) {
  __shared__ ProductTiles tiles;
  const int across = cuda::product_tiles(p.out);
  ProductTile tile(tiles, blockIdx.x / across * cuda::product_rows(ROWS), blockIdx.x % across, p.rows, p.out);
  const GivenRows x{p.x, p.in, p.given};
  const ExtraRows extra{p.extra};
  tile.add(p.in, x, p.w);
  if (p.extra.width > 0) tile.add(p.extra.width, extra, p.extra_w);
  constexpr int N = ProductTile::N;
  const int width = p.in + p.extra.width;
  tile.each([&](int i, const Cells<N>& cells, const real(&sums)[N]) {
    real value[N], slope[N], more[N];
    cells.read(p.b, value);
#pragma unroll
    for (int y = 0; y < N; ++y) activate(value[y] + sums[y], value[y], slope[y]);
    if (p.idt != nullptr) {
      cells.read(p.idt, more);
#pragma unroll
      for (int y = 0; y < N; ++y) value[y] *= more[y], slope[y] *= more[y];
    }
    if (p.skip != 0 && i < p.given) {  // what is added is the input, once or twice
      const int back = cells.first < width ? 0 : width;
      if (width % N == 0 && p.in % N == 0) {
        if (cells.first - back < p.in) {
          cells.read(row_of(p.x, i, p.in) - back, more);
#pragma unroll
          for (int y = 0; y < N; ++y) value[y] += more[y];
        }
      } else {
#pragma unroll
        for (int y = 0; y < N; ++y) {
          const int c = cells.first + y, from = c < width ? c : c - width;
          if (y < cells.count && from < p.in) value[y] += row_of(p.x, i, p.in)[from];
        }
      }
    }
    cells.write(row_of(p.y, i, p.out), value);
    if (p.slope != nullptr) cells.write(row_of(p.slope, i, p.out), slope);
  });
  if (p.skip == 0 || p.extra.width == 0) return;
  tile.again([&](int i, int c) {
    const int from = c < width ? c : c - width;
    if (from >= p.in) row_of(p.y, i, p.out)[c] += extra.row(i)(from - p.in);
  });
}

// A block of product_threads per tile of dx.
extern "C" __global__ void __launch_bounds__(128, RESIDENT) fitting_hidden_backward(const cuda::FittingBackwardArgs<real> p) {
  __shared__ ProductTiles tiles;
  const int across = cuda::product_tiles(p.wanted);
  ProductTile tile(tiles, blockIdx.x / across * cuda::product_rows(ROWS), blockIdx.x % across, p.rows, p.wanted);
  const SeedRows seeds{p};
  if (p.slope != nullptr) {
    if (p.dy != nullptr)
      tile.add(p.out, ScaledRows{p.dy, p.slope, p.out}, p.wt);
    else
      tile.add(p.out, seeds, p.wt);
  }
  constexpr int N = ProductTile::N;
  const bool aligned = p.out % N == 0 && p.in % N == 0;
  tile.each([&](int i, const Cells<N>& cells, const real(&sums)[N]) {
    real value[N], passed[N], more[N];
#pragma unroll
    for (int y = 0; y < N; ++y) value[y] = sums[y];
    if (p.skip > 0) {
      const Cells<N> of_dy{cells.first, cells.count, cells.whole && aligned};
      const real* const dy = p.dy != nullptr ? row_of(p.dy, i, p.out) : p.w_out;
      of_dy.read(dy, passed);
      if (p.skip > 1) {
        of_dy.read(dy + p.in, more);
#pragma unroll
        for (int y = 0; y < N; ++y) passed[y] += more[y];
      }
      const real seed = p.dy != nullptr ? real(1) : seeds.seed(i);
#pragma unroll
      for (int y = 0; y < N; ++y) value[y] += seed * passed[y];
    }
    cells.write(row_of(p.dx, i, p.wanted), value);
  });
}

// A warp per centre.
extern "C" __global__ void __launch_bounds__(128) fitting_energy(const cuda::FittingEnergyArgs<real> p) {
  const int i = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (i >= p.extra.centres) return;
  const GivenRows y{p.y, p.in, p.given};
  const ExtraRows extra{p.extra};
  const auto network = [&](int row) {
    real acc = 0;
    const auto of_y = y.row(row);
    for (int c = lane; c < p.in; c += 32) acc += of_y(c) * p.w_out[c];
    const auto of_extra = extra.row(row);
    for (int c = lane; c < p.extra.width; c += 32) acc += of_extra(c) * p.w_out[p.in + c];
    return static_cast<double>(warp_sum(acc) + p.b_out);
  };
  double value = network(i);
  if (p.vacuum != 0) value -= network(p.extra.centres + (p.extra.naparam > 0 ? i : i / p.extra.per_frame));
  if (lane != 0) return;
  value = counts(p.given_types, p.extra.types, p.counted, i) ? value + p.bias[p.extra.types[i]] : 0.0;
  p.energy[i] = unless_failed(p.failed, value);
}
