// Forces and virials from the gradients gamma of the edge vectors (theory 9.2), in double whatever the precision of the model, each sum
// in a fixed order: lanes take edges in turns, and add up in pairs. Of an evaluation that failed, everything is not a number.
#include "cuda/assemble.hpp"
#include "cuda/block.cuh"
#include "cuda/counted.cuh"

using namespace dpa2;

namespace {

__device__ __forceinline__ double not_a_number() {
  const double zero = 0;
  return zero / zero;
}

__device__ __forceinline__ bool has_failed(const int* flag) { return flag != nullptr && *flag != 0; }

/// The sum of f(i) over i < n by a block of totals_threads; for thread 0 alone, since another sum may follow.
template <class F>
__device__ __forceinline__ double sum_of_block(double* partial, int n, const F& f) {
  const int t = threadIdx.x;
  // Eight numbers of every thread are on their way at a time.
  constexpr int TOGETHER = 8;
  double sums[TOGETHER] = {};
  for (int first = t; first < n; first += TOGETHER * cuda::totals_threads)
#pragma unroll
    for (int x = 0; x < TOGETHER; ++x) {
      const int i = first + x * cuda::totals_threads;
      if (i < n) sums[x] += f(i);
    }
  partial[t] = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  __syncthreads();
  for (int half = cuda::totals_threads / 2; half > 0; half /= 2) {
    if (t < half) partial[t] += partial[t + half];
    __syncthreads();
  }
  return t == 0 ? partial[0] : 0.0;
}

/// The atom of this warp.
__device__ __forceinline__ int own_atom() { return blockIdx.x * cuda::assemble_atoms + threadIdx.x / 32; }

/// The edges of an atom as a centre, if it is one, and those to it.
struct Ends {
  int first, last, begin, end;
  __device__ __forceinline__ Ends(const cuda::EndsArgs& a, int i)
      : first(i < a.centres ? a.start[i] : 0), last(i < a.centres ? a.start[i + 1] : 0), begin(a.begin[i]), end(a.begin[i + 1]) {}
};

}  // namespace

extern "C" __global__ void __launch_bounds__(cuda::assemble_threads) assemble(const cuda::AssembleArgs<real> a) {
  const int i = own_atom(), lane = threadIdx.x % 32;
  if (i >= a.ends.atoms) return;
  const bool failed = has_failed(a.ends.failed);
  double f[3] = {}, own[9] = {}, other[9] = {};
  if (!failed) {
    const Ends at(a.ends, i);
    for (int e = at.first + lane; e < at.last; e += 32)
      for (int k = 0; k < 3; ++k) {
        const double g = a.gamma[3LL * e + k];
        f[k] += g;
        for (int l = 0; l < 3; ++l) own[3 * k + l] -= g * a.ends.d[3LL * e + l];
      }
    for (int q = at.begin + lane; q < at.end; q += 32) {
      const int e = a.ends.incoming[q];
      for (int k = 0; k < 3; ++k) {
        const double g = a.gamma[3LL * e + k];
        f[k] -= g;
        if (a.atom_virial != nullptr)
          for (int l = 0; l < 3; ++l) other[3 * k + l] -= g * a.ends.d[3LL * e + l];
      }
    }
  }
  for (int k = 0; k < 3; ++k) f[k] = sum_of_warp(f[k]);
  for (int k = 0; k < 9; ++k) {
    own[k] = sum_of_warp(own[k]);
    if (a.atom_virial != nullptr) other[k] = sum_of_warp(other[k]);
  }
  if (lane != 0) return;
  const double wrong = failed ? not_a_number() : 0.0;
  if (a.force != nullptr)
    for (int k = 0; k < 3; ++k) a.force[3LL * a.components * i + k] = f[k] + wrong;
  for (int k = 0; k < 9; ++k) {
    if (a.virial != nullptr && i < a.ends.centres) a.virial[9LL * i + k] = own[k] + wrong;
    if (a.atom_virial != nullptr) a.atom_virial[9LL * a.components * i + k] = 0.5 * (own[k] + other[k]) + wrong;
  }
}

extern "C" __global__ void __launch_bounds__(cuda::assemble_threads) assemble_deepmd(const cuda::AssembleDeepmdArgs<real> a) {
  const int i = own_atom(), lane = threadIdx.x % 32, l = a.axis;
  if (i >= a.ends.atoms) return;
  const bool failed = has_failed(a.ends.failed);
  double sum[3] = {};
  if (!failed) {
    const Ends at(a.ends, i);
    const double here = a.wrapped[3LL * i + l];
    for (int e = at.first + lane; e < at.last; e += 32)
      for (int k = 0; k < 3; ++k) sum[k] -= static_cast<double>(a.seeded[3LL * e + k]) - here * static_cast<double>(a.plain[3LL * e + k]);
    for (int q = at.begin + lane; q < at.end; q += 32) {
      const int e = a.ends.incoming[q];
      const double position = a.wrapped[3LL * a.centre[e] + l] + a.ends.d[3LL * e + l];
      for (int k = 0; k < 3; ++k)
        sum[k] += static_cast<double>(a.seeded[3LL * e + k]) - position * static_cast<double>(a.plain[3LL * e + k]);
    }
  }
  for (int k = 0; k < 3; ++k) sum[k] = sum_of_warp(sum[k]);
  if (lane < 3) {
    const double value = lane == 0 ? sum[0] : lane == 1 ? sum[1] : sum[2];
    a.atom_virial[9LL * a.components * i + 3 * lane + l] = failed ? not_a_number() : value;
  }
}

extern "C" __global__ void __launch_bounds__(cuda::assemble_threads) in_box(const cuda::InBoxArgs a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.centres) return;
  const cuda::GivenBox& box = a.boxes[i / a.per_frame];
  const double* x = a.coords + 3LL * i;
  double cells[3];
  for (int k = 0; k < 3; ++k)
    cells[k] = box.periodic[k] != 0 ? floor(x[0] * box.inverse[k] + x[1] * box.inverse[3 + k] + x[2] * box.inverse[6 + k]) : 0.0;
  for (int c = 0; c < 3; ++c)
    a.out[3LL * i + c] = x[c] - (cells[0] * box.rows[c] + cells[1] * box.rows[3 + c] + cells[2] * box.rows[6 + c]);
}

extern "C" __global__ void __launch_bounds__(cuda::assemble_threads) coordinate(const cuda::CoordinateArgs a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < a.centres) a.out[i] = a.weights != nullptr ? a.weights[i] * a.wrapped[3LL * i + a.axis] : a.wrapped[3LL * i + a.axis];
}

// Block (frame, column).
extern "C" __global__ void __launch_bounds__(cuda::totals_threads, 2) totals(const cuda::TotalsArgs a) {
  __shared__ double partial[cuda::totals_threads];
  const int frame = blockIdx.x / cuda::totals_columns, c = blockIdx.x % cuda::totals_columns, t = threadIdx.x;
  const bool energy = c == cuda::totals_columns - 1, failed = has_failed(a.failed);
  if (energy ? a.atom_energy == nullptr : a.virial == nullptr) return;
  const int width = energy ? 1 : 9;
  const double* in = row_of(energy ? a.atom_energy : a.virials + c, frame * a.per_frame, width);
  const double sum = sum_of_block(partial, a.per_frame, [&](int i) { return in[static_cast<long long>(i) * width]; });
  const double total = failed ? not_a_number() : sum;
  if (energy && failed)
    for (int i = t; i < a.per_frame; i += cuda::totals_threads) row_of(a.atom_energy, frame * a.per_frame, 1)[i] = not_a_number();
  if (t != 0) return;
  if (energy) {
    if (a.energy != nullptr) a.energy[frame] = total;
  } else {
    a.virial[9LL * a.components * frame + c] = total;
  }
}

// Block (frame, column) of values that have any number of columns.
extern "C" __global__ void __launch_bounds__(cuda::totals_threads, 2) value_totals(const cuda::ValueTotalsArgs a) {
  __shared__ double partial[cuda::totals_threads];
  const int frame = blockIdx.x / a.width, c = blockIdx.x % a.width, first = frame * a.per_frame;
  const double* in = row_of(a.values + c, first, a.width);
  double total = sum_of_block(partial, a.per_frame, [&](int i) { return in[static_cast<long long>(i) * a.width]; });
  if (a.mean != 0)
    total /= sum_of_block(partial, a.per_frame, [&](int i) { return counts(a.given_types, a.types, a.counted, first + i) ? 1.0 : 0.0; });
  if (threadIdx.x == 0) a.out[static_cast<long long>(frame) * a.width + c] = has_failed(a.failed) ? not_a_number() : total;
}
