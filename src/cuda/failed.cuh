// A result of an evaluation that is void (gpu/frame.hpp) must not look like a number.
#pragma once

#include "cuda/portable.cuh"

namespace dpa2 {

/// `value`, or NaN where *failed is not 0; failed may be null.
__device__ __forceinline__ double unless_failed(const int* failed, double value) {
  return failed != nullptr && *failed != 0 ? ::nan("") : value;
}

}  // namespace dpa2
