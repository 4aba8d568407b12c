// Sorting by one warp.
#pragma once

#include "cuda/portable.cuh"

namespace dpa2 {
namespace neighbors {

/// Sorts key (n) ascending. Bitonic merges whose comparisons all go the same way: what lies beyond n counts as largest, and stays there.
/// n log^2 n / 4 comparisons.
__device__ __forceinline__ void sort_by_warp(unsigned long long* key, int n) {
  const int lane = threadIdx.x % 32;
  for (int size = 2; size / 2 < n; size *= 2) {
    for (int apart = size / 2; apart > 0; apart /= 2) {
      // The first step of a merge compares with the mirror image, which turns the second half round.
      const int partner = apart == size / 2 ? size - 1 : apart;
      for (int t = lane;; t += 32) {
        const int low = 2 * t - (t & (apart - 1)), high = low ^ partner;
        if (low >= n) break;
        if (high >= n) continue;
        const unsigned long long u = key[low], v = key[high];
        if (v < u) {
          key[low] = v;
          key[high] = u;
        }
      }
      __syncwarp(FULL_MASK);
    }
  }
}

}  // namespace neighbors
}  // namespace dpa2
