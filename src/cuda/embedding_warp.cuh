// An embedding network by one warp, a few scalars at a time: those that are outside of the range of its series (theory S6). They are rare,
// and what counts is that the memory and the registers of the series are enough.
#pragma once

#include "cuda/embedding.cuh"

namespace dpa2 {

/// net(s[e], types[e]) of `scalars` scalars, by all lanes of the warp; rows of the result have that length. work:
/// cuda::embedding_each for every scalar. Begins without and ends with all lanes at one place.
template <bool tangent>
__device__ __forceinline__ Embedded embed_in_warp(const cuda::EmbeddingNetArgs<real>& net, int scalars, const real* s, const int* types,
                                                  real* work) {
  // Offsets, not pointers: the compiler must see where every load goes.
  int from = 0, to = (tangent ? 2 : 1) * net.even * scalars, dfrom = net.even * scalars, dto = net.odd * scalars;
  __syncwarp(FULL_MASK);
  embed_first<tangent>(net, s, types, work, dfrom, scalars, scalars, threadIdx.x % 32, 32);
  __syncwarp(FULL_MASK);
  for (int l = 1; l < net.layers; ++l) {
    const int* layer = net.layout + cuda::embedding_layer * l;
    const int in = layer[0], out = layer[1], skip = layer[2], idt_at = layer[5], padded = (out + 3) / 4 * 4;
    for (int t = threadIdx.x % 32; t < out * scalars; t += 32) {
      const int c = t / scalars, e = t - c * scalars;
      const real* w = net.weights + layer[3] + c;
      const real* x = work + from + e;
      real z = net.weights[layer[4] + c], dz = 0, value, slope;
#pragma unroll 1
      for (int k = 0; k < in; ++k) {
        z += *w * *x;
        if (tangent) dz += *w * x[dfrom];
        w += padded;
        x += scalars;
      }
      activate(z, value, slope);
      const real idt = idt_at >= 0 ? net.weights[idt_at + c] : real(1);
      value *= idt;
      slope *= idt * dz;
      if (skip != 0) {
        const real* own = work + from + (c < in ? c : c - in) * scalars + e;
        value += *own;
        if (tangent) slope += own[dfrom];
      }
      work[to + t] = value;
      if (tangent) work[to + dto + t] = slope;
    }
    __syncwarp(FULL_MASK);
    exchange(from, to);
    exchange(dfrom, dto);
  }
  return {work + from, work + from + dfrom};
}

}  // namespace dpa2
