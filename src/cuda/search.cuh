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

/// Walks over the bins around bin number `home` of a system: visit(begin, end, m) for the atoms sorted[begin..end) moved by m. A row of
/// bins is one range as far as it lies in one cell. All lanes walk together.
template <class Visit>
__device__ __forceinline__ void walk(const Lattice& lattice, const cuda::SearchLayout& at, const int* first, int home, Visit visit) {
  const int nx = at.bins[0], ny = at.bins[1], nz = at.bins[2];
  const int rx = at.reach[0], ry = at.reach[1], rz = at.reach[2];
  const bool px = lattice.periodic(0), py = lattice.periodic(1), pz = lattice.periodic(2);
  const int hx = home % nx, hy = home / nx % ny, hz = home / nx / ny;
  int m[3];
  for (int oz = -rz; oz <= rz; ++oz) {
    m[2] = floor_quotient(hz + oz, nz);
    if (m[2] != 0 && !pz) continue;
    for (int oy = -ry; oy <= ry; ++oy) {
      m[1] = floor_quotient(hy + oy, ny);
      if (m[1] != 0 && !py) continue;
      const int row = ((hz + oz - m[2] * nz) * ny + hy + oy - m[1] * ny) * nx;
      const int from = hx - rx, to = hx + rx;
      const int lowest = px ? floor_quotient(from, nx) : 0;
      const int highest = px ? floor_quotient(to, nx) : 0;
      for (m[0] = lowest; m[0] <= highest; ++m[0]) {
        const int x0 = max(from - m[0] * nx, 0), x1 = min(to - m[0] * nx, nx - 1);
        const int begin = first[row + x0], end = first[row + x1 + 1];
        if (begin < end) visit(begin, end, m);
      }
    }
  }
}

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
