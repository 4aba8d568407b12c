// Sums of all that comes before, of up to three arrays in one launch.
//
// A block sums its part, tells the others, and looks back at what those before it have told until one knows the sum of everything up
// to its end. Blocks are numbered in the order in which they start, so that those before a block are running or done: nobody waits for a
// block that is not there. What a block tells is one word with its state in the two highest bits.
#include "cuda/prefix_sums.hpp"

#include "cuda/portable.cuh"

using namespace dpa2;

namespace dpa2 {
namespace sums {

constexpr int state_shift = 62;
constexpr unsigned long long own_part = 1ULL << state_shift;    // the sum of the block's part
constexpr unsigned long long everything = 2ULL << state_shift;  // the sum of everything up to its end
constexpr unsigned long long value = own_part - 1;

__device__ __forceinline__ long long sum_of_warp(long long v) {
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(FULL_MASK, v, step);
  return v;
}

/// What all blocks from `first` to `tile` - 1 add up to, in every lane of the warp that asks.
__device__ __forceinline__ long long look_back(const unsigned long long* state, int first, int tile) {
  const int lane = threadIdx.x % 32;
  long long before = 0;
  for (int last = tile - 1;; last -= 32) {
    const int at = last - lane;
    unsigned long long told = everything;  // there is nothing before the first
    if (at >= first) told = *static_cast<const volatile unsigned long long*>(state + at);
    while (__any_sync(FULL_MASK, told == 0) != 0)
      if (at >= first) told = *static_cast<const volatile unsigned long long*>(state + at);
    const unsigned complete = __ballot_sync(FULL_MASK, (told & everything) != 0);
    const int nearest = complete != 0 ? __ffs(static_cast<int>(complete)) - 1 : 31;
    before += sum_of_warp(lane <= nearest ? static_cast<long long>(told & value) : 0);
    if (complete != 0) return before;
  }
}

}  // namespace sums
}  // namespace dpa2

extern "C" __global__ void __launch_bounds__(256) prefix_sums(const cuda::SumArgs a) {
  using namespace dpa2::sums;
  constexpr int each = cuda::sum_each, warps = cuda::sum_threads / 32;
  __shared__ long long of_warp[warps];
  __shared__ long long before_tile;
  __shared__ int drawn;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (threadIdx.x == 0) drawn = atomicAdd(a.ticket, 1);
  __syncthreads();
  const int tile = drawn;
  int first = 0, end = cuda::sum_blocks(a.first.n);
  cuda::SumJob job = a.first;
  if (tile >= end) {
    first = end;
    end += cuda::sum_blocks(a.second.n);
    job = a.second;
    if (tile >= end) {
      first = end;
      end += cuda::sum_blocks(a.third.n);
      job = a.third;
    }
  }

  const int at = (tile - first) * cuda::sum_tile + each * static_cast<int>(threadIdx.x);
  int v[each];
  long long mine = 0;
#pragma unroll
  for (int k = 0; k < each; ++k) {
    v[k] = at + k < job.n ? job.count[at + k] : 0;
    mine += v[k];
  }
  long long sum = mine;  // of this and all lower lanes
  for (int step = 1; step < 32; step *= 2) {
    const long long other = __shfl_up_sync(FULL_MASK, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) of_warp[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    const long long whole = sum_of_warp(lane < warps ? of_warp[lane] : 0);
    unsigned long long* const told = a.state + tile;
    if (tile > first && lane == 0) atomicExch(told, own_part | static_cast<unsigned long long>(whole));
    const long long before = tile > first ? look_back(a.state, first, tile) : 0;
    if (lane == 0) {
      atomicExch(told, everything | static_cast<unsigned long long>(before + whole));
      before_tile = before;
      if (tile == end - 1) {
        if (job.total != nullptr) *job.total = before + whole;
        if (a.failed != nullptr && before + whole > job.capacity) atomicOr(a.failed, 1);
      }
    }
  }
  __syncthreads();
  long long next = before_tile + sum - mine;
  for (int w = 0; w < warp; ++w) next += of_warp[w];
#pragma unroll
  for (int k = 0; k < each; ++k) {
    if (at + k <= job.n) job.start[at + k] = next < 2147483647 ? static_cast<int>(next) : 2147483647;
    next += v[k];
  }
}
