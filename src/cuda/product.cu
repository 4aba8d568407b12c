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
  tile.each([&](int i, int c, real sum) {
    real value = sum, slope = real(1);
    if (p.b == nullptr) value = p.factor != nullptr ? row_of(p.a, i, p.k)[c] * row_of(p.factor, i, p.k)[c] : row_of(p.a, i, p.k)[c];
    if (p.type_term != nullptr) value += p.type_term[p.types[i] * p.n + c];
    if (p.active != 0) activate(value, value, slope);
    real* out = row_of(p.out, i, p.n) + c;
    *out = p.accumulate != 0 ? *out + value : value;
    if (p.slope != nullptr) row_of(p.slope, i, p.n)[c] = slope;
  });
}
