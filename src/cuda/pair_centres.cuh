// How the blocks of the pair channel share the centres out among themselves.
//
// A block that is free takes what nobody has taken, of two counters in global memory. Centres of more than one tile take longest and come
// first. Which block works on a centre may show in nothing.
#pragma once

#include "cuda/block.cuh"
#include "cuda/pair_layer.hpp"

namespace dpa2 {

/// many(first, n) for the centres with more than a tile of edges, or with `all` for every one, then one(first, n) for the others: their
/// first edge and how many. The whole block calls, and many and one end with a barrier. `slots`: pair_layer_slots bytes of shared memory.
/// With a block per centre each has its own, and nobody has to ask.
template <class Many, class One>
__device__ __forceinline__ void each_centre(const int* start, int centres, bool all, int* taken, int* slots, Many many, One one) {
  const int thread = threadIdx.x, lane = thread % 32, blocks = gridDim.x;
  const bool ask = blocks < centres;
  // Pieces of a few centres, of which mostly none is large.
  const int piece = !all && centres / 8 >= blocks ? 4 : 1;
  // Half of the slots are read while the other half is written.
  constexpr int half = cuda::pair_layer_slots / 2 / 4;
  int turn = 0, ahead = blockIdx.x;
  if (ask && thread == 0) ahead = atomicAdd(taken, 1);
#pragma unroll 1
  while (true) {
    if (thread == 0) slots[turn] = ahead;
    __syncthreads();
    const int begin = uniform(slots[turn]) * piece;
    if (cuda::pair_layer_own_slots(sizeof(real)) == 0) __syncthreads();
    turn ^= half;
    if (begin >= centres) break;
    // What comes next is on its way while this is worked on.
    ahead = centres;
    if (ask && thread == 0) ahead = atomicAdd(taken, 1);
    const int own = begin + lane;
    const bool there = lane < piece && own < centres;
    unsigned left = __ballot_sync(FULL_MASK, there && (all || start[own + 1] - start[own] > cuda::tile));
#pragma unroll 1
    while (left != 0) {
      const int i = begin + __ffs(static_cast<int>(left)) - 1;
      left &= left - 1;
      const int first = start[i];
      many(first, uniform(start[i + 1] - first));
    }
  }
  if (all) return;
  // An empty centre to begin with. Three threads hold what is to be known of the next one: where its edges begin and end, and which comes
  // after it.
  ahead = 0;
  if (thread == 2) ahead = ask ? atomicAdd(taken + 1, 1) : static_cast<int>(blockIdx.x);
#pragma unroll 1
  while (true) {
    if (thread < 3) slots[turn + thread] = ahead;
    __syncthreads();
    const int first = uniform(slots[turn]), n = uniform(slots[turn + 1]) - first, next = slots[turn + 2];
    turn ^= half;
    if (first < 0) break;
    if (thread < 2) ahead = next < centres ? start[next + thread] : -1;
    if (thread == 2) ahead = ask ? atomicAdd(taken + 1, 1) : centres;
    if (n <= cuda::tile) one(first, n);
  }
}

}  // namespace dpa2
