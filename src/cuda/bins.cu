// The atoms of each system in their cell, and sorted into bins of about half the search radius.
//
// How many bins there are never depends on where the atoms are: an atom that is far away makes the bins larger, not more.
#include "cuda/bins.hpp"

#include "cuda/search.cuh"
#include "math/limits.hpp"

using namespace dpa2;
using namespace dpa2::neighbors;

namespace dpa2 {
namespace neighbors {

/// An order of finite numbers as unsigned integers, all of them > 0 and < 2^64 - 1.
__device__ __forceinline__ unsigned long long order_code(double x) {
  const unsigned long long bits = bits_of(x), sign = 1ULL << 63;
  return (bits & sign) != 0 ? ~bits : bits | sign;
}
__device__ __forceinline__ double from_order_code(unsigned long long code) {
  const unsigned long long sign = 1ULL << 63;
  return __longlong_as_double(static_cast<long long>((code & sign) != 0 ? code & ~sign : ~code));
}

__device__ __forceinline__ unsigned long long largest_of_warp(unsigned long long v) {
  for (int step = 16; step > 0; step /= 2) {
    const unsigned long long other = __shfl_xor_sync(FULL_MASK, v, step);
    v = other > v ? other : v;
  }
  return v;
}

/// Fractional coordinate a of x (3).
__device__ __forceinline__ double fraction(const Lattice& lattice, const double* x, int a) {
  return x[0] * lattice.inverse(0, a) + x[1] * lattice.inverse(1, a) + x[2] * lattice.inverse(2, a);
}

__device__ __forceinline__ bool usable(const double* x) {
  return fabs(x[0]) <= largest_length && fabs(x[1]) <= largest_length && fabs(x[2]) <= largest_length;  // false for NaN
}

/// Bins of half the radius or more, at most `limit`; returns how many there would be without the limit.
__device__ __forceinline__ int choose_bins(cuda::SearchLayout& to, const cuda::SearchInput& cell, const cuda::SystemNotes& notes,
                                           double radius, int limit) {
  // A little more than half the radius: rounding never puts a neighbour one bin too far.
  const double edge = 0.5 * radius * (1.0 + 1e-6);
  double extent[3], length[3], count[3];
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    double low = 0.0, high = 1.0;
    if (cell.periodic[a] == 0) {
      const bool any = notes.high[a] != 0;  // no atom, or none that can be used
      low = any ? from_order_code(~notes.low[a]) : 0.0;
      high = any ? from_order_code(notes.high[a]) : 0.0;
    }
    extent[a] = high - low > 1e-3 ? high - low : 1e-3;
    length[a] = extent[a] * cell.heights[a];
    const double fit = floor(length[a] / edge);
    count[a] = fit > 1.0 ? fit : 1.0;
    to.origin[a] = low;
  }
  const double wanted = count[0] * count[1] * count[2];
  while (count[0] * count[1] * count[2] > limit) {
    const double largest = fmax(count[0], fmax(count[1], count[2])), half = fmax(1.0, floor(0.5 * largest));
    if (count[0] == largest)
      count[0] = half;
    else if (count[1] == largest)
      count[1] = half;
    else
      count[2] = half;
  }
#pragma unroll
  for (int a = 0; a < 3; ++a) {
    const int bins = static_cast<int>(count[a]), reach = static_cast<int>(floor(radius * (1.0 + 1e-7) / (length[a] / count[a]))) + 1;
    to.scale[a] = count[a] / extent[a];
    to.bins[a] = bins;
    to.reach[a] = cell.periodic[a] != 0 ? reach : min(reach, bins - 1);
  }
  return wanted < 2147483647.0 ? static_cast<int>(wanted) : 2147483647;
}

}  // namespace neighbors
}  // namespace dpa2

// One thread per atom: how far the atoms of each system reach in its open directions. Not launched where there is none.
extern "C" __global__ void __launch_bounds__(128) extents(const cuda::ExtentArgs a) {
  const int f = blockIdx.x / a.blocks, k = (blockIdx.x - f * a.blocks) * blockDim.x + threadIdx.x;
  const long long i = static_cast<long long>(f) * a.atoms + k;
  const Lattice lattice{a.input + f};
  double x[3] = {0.0, 0.0, 0.0};
  bool present = k < a.atoms;
  if (present) {
#pragma unroll
    for (int c = 0; c < 3; ++c) x[c] = a.coords[3 * i + c];
    present = usable(x) && a.given[i] >= 0 && a.given[i] < a.ntypes;
  }
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    if (lattice.periodic(axis)) continue;
    const unsigned long long code = present ? order_code(fraction(lattice, x, axis)) : 0;
    const unsigned long long high = largest_of_warp(code), low = largest_of_warp(present ? ~code : 0);
    if (lane_number() == 0 && high != 0) {
      atomicMax(&a.systems[f].high[axis], high);
      atomicMax(&a.systems[f].low[axis], low);
    }
  }
}

// One thread per atom: the atom in the cell, and its bin. Every block works out the bins of its system.
extern "C" __global__ void __launch_bounds__(128) wrap_atoms(const cuda::WrapArgs a) {
  __shared__ cuda::SearchLayout at;
  const int f = blockIdx.x / a.blocks, block = blockIdx.x - f * a.blocks, k = block * blockDim.x + threadIdx.x;
  const Lattice lattice{a.input + f};
  if (threadIdx.x == 0) {
    const int wanted = choose_bins(at, a.input[f], a.systems[f], a.radius, a.bins);
    if (block == 0) {
      a.layout[f] = at;
      atomicMax(&a.notes->wanted_bins, wanted);
    }
  }
  __syncthreads();
  if (k >= a.atoms) return;
  const long long i = static_cast<long long>(f) * a.atoms + k;
  double w[3];
#pragma unroll
  for (int c = 0; c < 3; ++c) w[c] = a.coords[3 * i + c];
  const int type = a.given[i];
  const bool finite = usable(w), known = type < a.ntypes, present = finite && known && type >= 0;
  if (!finite) atomicMax(&a.systems[f].not_finite, cuda::first_code(k));
  if (!known) atomicMax(&a.systems[f].unknown_type, cuda::first_code(k));
  const int shown = known && type >= 0 ? type : 0;
  a.types[i] = shown;
  if (k == 0) a.pad_types[f] = shown;
  double cells[3] = {0.0, 0.0, 0.0};
  if (present) {
#pragma unroll
    for (int axis = 0; axis < 3; ++axis)
      if (lattice.periodic(axis)) cells[axis] = floor(fraction(lattice, w, axis));
#pragma unroll
    for (int c = 0; c < 3; ++c) w[c] -= cells[0] * lattice.row(0, c) + cells[1] * lattice.row(1, c) + cells[2] * lattice.row(2, c);
  }
  bool near = true;
#pragma unroll
  for (int b = 0; b < 3; ++b) {
    const double s = cells[0] * lattice.transform(0, b) + cells[1] * lattice.transform(1, b) + cells[2] * lattice.transform(2, b);
    const bool fits = fabs(s) < cuda::image_limit_stored;
    near = near && fits;
    a.shift[3 * i + b] = fits ? static_cast<int>(s) : 0;
    a.wrapped[3 * i + b] = w[b];
  }
  if (!near) atomicMax(&a.systems[f].too_far, cuda::first_code(k));
  if (!finite || !known || !near) atomicOr(&a.notes->failed, 1);
  int number = -1;
  if (present && near) {
    number = 0;
#pragma unroll
    for (int axis = 2; axis >= 0; --axis) {
      const double q = floor((fraction(lattice, w, axis) - at.origin[axis]) * at.scale[axis]);
      const int last = at.bins[axis] - 1;
      number = number * at.bins[axis] + (q > last ? last : q > 0.0 ? static_cast<int>(q) : 0);
    }
    number += f * a.bins;
    atomicAdd(a.count + number, 1);
  }
  a.bin[i] = number;
}

// One thread per atom.
extern "C" __global__ void __launch_bounds__(128) fill_bins(const cuda::FillBinsArgs a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.atoms) return;
  const int to = a.bin[i];
  if (to >= 0) a.sorted[a.start[to] + atomicSub(a.left + to, 1) - 1] = i;
}
