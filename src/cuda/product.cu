// A product of rows with a constant matrix, its activation and its gradient: the entry to g1 (theory 7), queries, single projections.
// A block of product_threads per tile of the result, tiles of the same rows next to each other.
#include "cuda/activation.cuh"
#include "cuda/product.cuh"

using namespace dpa2;

// out (rows, n) = or += phi(A b + type_term[types]), A = a * factor; slope (rows, n) = phi'.
extern "C" __global__ void __launch_bounds__(128, RESIDENT) product(const cuda::ProductArgs<real> p) {
  __shared__ ProductTiles tiles;
  const int across = cuda::product_tiles(p.n);
  ProductTile tile(tiles, blockIdx.x / across * cuda::product_rows(ROWS), blockIdx.x % across, p.rows, p.n);
  if (p.b != nullptr) {
    if (p.factor != nullptr)
      tile.add(p.k, ScaledRows{p.a, p.factor, p.k}, p.b);
    else
      tile.add(p.k, PlainRows{p.a, p.k}, p.b);
  }
  constexpr int N = ProductTile::N;
  tile.each([&](int i, const Cells<N>& cells, const real(&sums)[N]) {
    real value[N], slope[N], more[N];
#pragma unroll
    for (int y = 0; y < N; ++y) value[y] = sums[y], slope[y] = real(1);
    if (p.b == nullptr) {  // n == k
      cells.read(row_of(p.a, i, p.n), value);
      if (p.factor != nullptr) {
        cells.read(row_of(p.factor, i, p.n), more);
#pragma unroll
        for (int y = 0; y < N; ++y) value[y] *= more[y];
      }
    }
    if (p.type_term != nullptr) {
      cells.read(row_of(p.type_term, p.types[i], p.n), more);
#pragma unroll
      for (int y = 0; y < N; ++y) value[y] += more[y];
    }
    if (p.active != 0) {
#pragma unroll
      for (int y = 0; y < N; ++y) activate(value[y], value[y], slope[y]);
    }
    real* const out = row_of(p.out, i, p.n);
    if (p.accumulate != 0) {
      cells.read(out, more);
#pragma unroll
      for (int y = 0; y < N; ++y) value[y] += more[y];
    }
    cells.write(out, value);
    if (p.slope != nullptr) cells.write(row_of(p.slope, i, p.n), slope);
  });
}
