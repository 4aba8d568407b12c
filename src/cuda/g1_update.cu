// The update of g1 in a layer (theory 8.11, 12.3, 12.4): its products, their activations and their sum in one pass, and the same for
// the gradient. A block of product_threads per tile of a result, tiles of the same rows next to each other.
#include "cuda/activation.cuh"
#include "cuda/g1_update.hpp"
#include "cuda/product.cuh"

using namespace dpa2;

// The gradient in double needs a few registers more than four blocks leave.
constexpr int BACKWARD_RESIDENT = sizeof(real) == 8 && ROWS == 4 && RESIDENT > 3 ? 3 : RESIDENT;

extern "C" __global__ void __launch_bounds__(128, RESIDENT) g1_update(const cuda::G1UpdateArgs<real> p) {
  __shared__ ProductTiles tiles;
  const int across = cuda::product_tiles(p.n1);
  ProductTile tile(tiles, blockIdx.x / across * cuda::product_rows(ROWS), blockIdx.x % across, p.n, p.n1);
  // One copy of the product for all: 0 of the self MLP, 1 and 2 of linear1, 3 of the attention.
#pragma unroll 1
  for (int piece = 0; piece < 4; ++piece) {
    // Chosen two by two: of a longer chain the compiler for sm_100 no longer knows that they point to global memory.
    const real* w = piece < 2 ? (piece == 0 ? p.self_w : p.linear_g1) : (piece == 2 ? p.linear_cat : p.attention_w);
    const real* a = piece < 2 ? p.g1 : piece == 2 ? p.cat : p.o;
    const int width = piece < 2 ? p.n1 : piece == 2 ? p.width : p.heads * p.n1;
    if (w != nullptr) tile.add(width, PlainRows{a, width}, w);
    if (piece == 1) continue;  // goes on
    const bool active = piece < 3, has = piece == 2 || w != nullptr;
    if (!has && piece == 3) break;
    const real* b = piece == 2 ? p.linear_b : piece == 0 ? p.self_b : p.attention_b;
    const real* r = piece == 0 ? p.self_r : p.linear_r;
    real* kept = piece == 0 ? p.self_slope : p.linear_slope;
    constexpr int N = ProductTile::N;
    tile.each([&](int i, const Cells<N>& cells, const real(&sums)[N]) {
      // The sum so far lies in `out`: in registers it would take as many as the product.
      real* const out = row_of(p.out, i, p.n1);
      real total[N], factor[N], value[N];
      cells.read(piece == 0 ? row_of(p.g1, i, p.n1) : out, total);
      if (piece == 0) {
#pragma unroll
        for (int y = 0; y < N; ++y) total[y] *= p.a;
      }
      if (has) {
        cells.read(b, value);
#pragma unroll
        for (int y = 0; y < N; ++y) value[y] += sums[y];
        if (active) {
          real slope[N];
          cells.read(r, factor);
#pragma unroll
          for (int y = 0; y < N; ++y) {
            activate(value[y], value[y], slope[y]);
            value[y] *= factor[y];
            slope[y] *= factor[y];
          }
          if (kept != nullptr) cells.write(row_of(kept, i, p.n1), slope);
        }
#pragma unroll
        for (int y = 0; y < N; ++y) total[y] += value[y];
      }
      if (piece == 0 && p.conv != nullptr) {
        cells.read(p.conv_r, factor);
        cells.read(row_of(p.conv, i, p.n1), value);
#pragma unroll
        for (int y = 0; y < N; ++y) total[y] += factor[y] * value[y];
      }
      cells.write(out, total);
    });
    tile.clear();
  }
}

extern "C" __global__ void __launch_bounds__(128, BACKWARD_RESIDENT) g1_update_backward(const cuda::G1UpdateBackwardArgs<real> p) {
  __shared__ ProductTiles tiles;
  constexpr int N = ProductTile::N;
  const int wide = p.heads * p.n1;
  const int of_g1 = cuda::product_tiles(p.n1), of_cat = cuda::product_tiles(p.width), across = of_g1 + of_cat + cuda::product_tiles(wide);
  const int i0 = blockIdx.x / across * cuda::product_rows(ROWS), column = blockIdx.x % across;
  if (column < of_g1 + of_cat) {
    const bool is_g1 = column < of_g1;
    const int width = is_g1 ? p.n1 : p.width;
    ProductTile tile(tiles, i0, is_g1 ? column : column - of_g1, p.n, width);
#pragma unroll 1
    for (int piece = is_g1 ? 0 : 1; piece < 2; ++piece) {
      const real* w = piece == 0 ? p.self_wt : is_g1 ? p.linear_g1t : p.linear_catt;
      if (w != nullptr) tile.add(p.n1, ScaledRows{p.dout, piece == 0 ? p.self_slope : p.linear_slope, p.n1}, w);
    }
    real* out = is_g1 ? p.dg1 : p.dcat;
    tile.each([&](int i, const Cells<N>& cells, const real(&sums)[N]) {
      real value[N] = {};
      if (is_g1) cells.read(row_of(p.dout, i, p.n1), value);
#pragma unroll
      for (int y = 0; y < N; ++y) value[y] = is_g1 ? p.a * value[y] + sums[y] : sums[y];
      cells.write(row_of(out, i, width), value);
    });
  } else {
    ProductTile tile(tiles, i0, column - of_g1 - of_cat, p.n, wide);
    tile.add(p.n1, PlainRows{p.dout, p.n1}, p.attention_wt);
    tile.each([&](int i, const Cells<N>& cells, const real(&sums)[N]) { cells.write(row_of(p.d_o, i, wide), sums); });
  }
}
