// Which atoms have outputs.
#pragma once

#include "cuda/portable.cuh"

namespace dpa2 {

/// Whether an atom has outputs: it is neither virtual nor of a type that does not count. What the caller gives as a type need not be
/// one: only its sign is looked at.
__device__ __forceinline__ bool counts(const int* given_types, const int* types, const int* counted, int i) {
  return given_types[i] >= 0 && counted[types[i]] != 0;
}

}  // namespace dpa2
