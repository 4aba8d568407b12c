// The activation function that a source is compiled for: -DACT=<number in math/activation.hpp>, and for silut its constants
// -DSILUT_THRESHOLD=..., -DSILUT_SLOPE=..., -DSILUT_OFFSET=....
#pragma once

#include "cuda/portable.cuh"

#ifndef ACT
#define ACT 1
#endif
#ifndef SILUT_THRESHOLD
#define SILUT_THRESHOLD 0
#define SILUT_SLOPE 0
#define SILUT_OFFSET 0
#endif

namespace dpa2 {

/// y = phi(x), dy = phi'(x)
__device__ __forceinline__ void activate(real x, real& y, real& dy) {
  const math::Silut<real> silut{real(SILUT_THRESHOLD), real(SILUT_SLOPE), real(SILUT_OFFSET)};
  math::activate<static_cast<Activation>(ACT), DeviceMath>(x, silut, y, dy);
}

}  // namespace dpa2
