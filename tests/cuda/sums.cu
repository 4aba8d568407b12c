// A kernel for tests of the emulation: its barriers are needed for reads after writes and for writes after reads.
#include "cuda/portable.cuh"

using namespace dpa2;

// One block. start (n + 1) = sums of count before each entry; totals (2): all of them, and the largest.
extern "C" __global__ void __launch_bounds__(1024) prefix_sums(int n, int* start, long long* totals, const int* count) {
  __shared__ long long of_warp[32];
  __shared__ int largest_of_warp[32];
  constexpr int each = 4;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  long long before_chunk = 0;
  int largest = 0;
  for (int chunk = 0; chunk < n; chunk += each * blockDim.x) {
    const int at = chunk + each * threadIdx.x;
    int v[each];
    long long mine = 0;
    for (int k = 0; k < each; ++k) {
      v[k] = at + k < n ? count[at + k] : 0;
      mine += v[k];
      largest = max(largest, v[k]);
    }
    long long sum = mine;  // of this and all lower lanes
    for (int step = 1; step < 32; step *= 2) {
      const long long other = __shfl_up_sync(FULL_MASK, sum, step);
      if (lane >= step) sum += other;
    }
    if (lane == 31) of_warp[warp] = sum;
    __syncthreads();
    long long before_warp = before_chunk;
    for (int w = 0; w < warps; ++w) {
      if (w < warp) before_warp += of_warp[w];
      before_chunk += of_warp[w];
    }
    long long next = before_warp + sum - mine;
    for (int k = 0; k < each; ++k) {
      if (at + k < n) start[at + k] = static_cast<int>(next);
      next += v[k];
    }
    __syncthreads();  // before the next chunk's sums replace these
  }
  for (int step = 16; step > 0; step /= 2) largest = max(largest, __shfl_xor_sync(FULL_MASK, largest, step));
  if (lane == 0) largest_of_warp[warp] = largest;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 0; w < warps; ++w) largest = max(largest, largest_of_warp[w]);
  start[n] = static_cast<int>(before_chunk);
  totals[0] = before_chunk;
  totals[1] = largest;
}
