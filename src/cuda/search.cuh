// Geometry of the neighbour search: the lattice of a system, images of atoms, and the walk over bins.
#pragma once

#include "cuda/portable.cuh"
#include "cuda/search.hpp"

namespace dpa2 {
namespace neighbors {

constexpr int image_bits = 21, image_half = 1 << 20;  // three image numbers in one word

struct Lattice {
  const cuda::SearchInput* s;
  __device__ double row(int a, int c) const { return s->rows[3 * a + c]; }
  __device__ double inverse(int c, int a) const { return s->inverse[3 * c + a]; }
  __device__ bool periodic(int a) const { return s->periodic[a] != 0; }
  __device__ int transform(int a, int b) const { return s->transform[3 * a + b]; }
};

/// A neighbour of a centre: atom j moved by m reduced lattice vectors.
struct Image {
  int j, m[3];
};

__device__ __forceinline__ long long pack(const int* m) {
  long long code = 0;
#pragma unroll
  for (int a = 0; a < 3; ++a) code = code << image_bits | static_cast<long long>(m[a] + image_half);
  return code;
}

__device__ __forceinline__ Image unpack(int j, long long code) {
  constexpr long long mask = (1LL << image_bits) - 1;
  return {j,
          {static_cast<int>(code >> (2 * image_bits) & mask) - image_half, static_cast<int>(code >> image_bits & mask) - image_half,
           static_cast<int>(code & mask) - image_half}};
}

/// v (3) = m reduced lattice vectors.
__device__ __forceinline__ void translation(double* v, const Lattice& lattice, const int* m) {
#pragma unroll
  for (int c = 0; c < 3; ++c) v[c] = m[0] * lattice.row(0, c) + m[1] * lattice.row(1, c) + m[2] * lattice.row(2, c);
}

/// d (3) = x_j + v - x_i from the wrapped atoms: the edges (i, j) and (j, i) are exact negatives. Returns |d|.
__device__ __forceinline__ double displacement(double* d, const double* xj, const double* xi, const double* v) {
#pragma unroll
  for (int c = 0; c < 3; ++c) d[c] = (xj[c] - xi[c]) + v[c];
  return sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
}

/// n (3): the image in units of the box, relative to the atoms as given.
__device__ __forceinline__ void image_number(int* n, const Lattice& lattice, const int* shift, int i, const Image& to) {
#pragma unroll
  for (int b = 0; b < 3; ++b) {
    int sum = 0;
#pragma unroll
    for (int a = 0; a < 3; ++a) sum += to.m[a] * lattice.transform(a, b);
    n[b] = sum - shift[3LL * to.j + b] + shift[3LL * i + b];
  }
}

__device__ __forceinline__ int floor_quotient(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

/// Atoms sorted[begin..end) moved by m reduced lattice vectors; none where begin is not below end.
struct BinRow {
  int begin = 0, end = 0, m[3] = {};
};

/// Rows of bins around bin number `home` of a system. A row is one range of atoms as far as it lies in one cell.
struct BinRows {
  int home[3], lowest, images, across, count;

  __device__ __forceinline__ BinRows(const Lattice& lattice, const cuda::SearchLayout& at, int bin) {
    const int nx = at.bins[0], ny = at.bins[1], rx = at.reach[0];
    home[0] = bin % nx, home[1] = bin / nx % ny, home[2] = bin / nx / ny;
    const bool px = lattice.periodic(0);
    lowest = px ? floor_quotient(home[0] - rx, nx) : 0;
    images = (px ? floor_quotient(home[0] + rx, nx) : 0) - lowest + 1;
    across = 2 * at.reach[1] + 1;
    count = (2 * at.reach[2] + 1) * across * images;
  }
  /// Row `number`, below `count`.
  __device__ __forceinline__ BinRow row(const Lattice& lattice, const cuda::SearchLayout& at, const int* first, int number) const {
    const int nx = at.bins[0], ny = at.bins[1], nz = at.bins[2], rx = at.reach[0];
    BinRow to;
    const int y = home[1] + number / images % across - at.reach[1], z = home[2] + number / images / across - at.reach[2];
    to.m[0] = lowest + number % images, to.m[1] = floor_quotient(y, ny), to.m[2] = floor_quotient(z, nz);
    if ((to.m[1] != 0 && !lattice.periodic(1)) || (to.m[2] != 0 && !lattice.periodic(2))) return to;
    const int row = ((z - to.m[2] * nz) * ny + y - to.m[1] * ny) * nx;
    const int x0 = max(home[0] - rx - to.m[0] * nx, 0), x1 = min(home[0] + rx - to.m[0] * nx, nx - 1);
    to.begin = first[row + x0], to.end = first[row + x1 + 1];
    return to;
  }
};

__device__ __forceinline__ int count_all(int v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(FULL_MASK, v, step);
  return v;
}

/// The row of this warp, and the number of the lane.
__device__ __forceinline__ int row_of_warp() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }
__device__ __forceinline__ int lane_number() { return threadIdx.x % 32; }

/// The bits of a distance >= 0, which are in its order.
__device__ __forceinline__ unsigned long long bits_of(double r) { return static_cast<unsigned long long>(__double_as_longlong(r)); }

/// The number of an atom that decides between equal distances and that messages name. Read as constant: the compiler for sm_100
/// does not always see that the pointer is to global memory.
__device__ __forceinline__ int number_of(const int* ids, int row, int first_row) {
  return ids != nullptr ? __ldg(ids + row) : row - first_row;
}

}  // namespace neighbors
}  // namespace dpa2
