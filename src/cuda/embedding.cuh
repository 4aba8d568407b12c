// What evaluations of an embedding network by a block (embedding_net.cuh) and by a warp (embedding_warp.cuh) share: functions of one scalar
// per edge (or pair) and of types.
//
// A backward pass needs no transposed weights and keeps nothing: the derivative with respect to the scalar travels with the value.
//
//   -DGATED   there is a types' network of strip mode
#pragma once

#include "cuda/activation.cuh"
#include "cuda/block.cuh"
#include "cuda/embedding_net.hpp"

namespace dpa2 {

#ifdef GATED
constexpr bool gated = true;
#else
constexpr bool gated = false;
#endif

/// Where an evaluation left its result: channel c of scalar e at value[c * row + e], row as the evaluation says; its derivative likewise.
struct Embedded {
  const real* value;
  const real* tangent;
};

/// A layer writes to where the one before it has read.
__device__ __forceinline__ void exchange(int& a, int& b) {
  const int other = a;
  a = b;
  b = other;
}

/// The first layer, whose input is the scalar and a row of the types: channel c of scalar e at work[c * row + e], its derivative `slopes`
/// numbers behind, by thread `rank` of so many.
template <bool tangent>
__device__ __forceinline__ void embed_first(const cuda::EmbeddingNetArgs<real>& net, const real* s, const int* types, real* work,
                                            int slopes, int scalars, int row, int rank, int threads) {
  const int* layer = net.layout;
  const int in = layer[0], out = layer[1], skip = layer[2], idt_at = layer[5];
  const real* w = net.weights + layer[3];
  for (int t = rank; t < out * scalars; t += threads) {
    const int c = t / scalars, e = t % scalars, combination = net.typed != 0 ? types[e] : 0;
    const real factor = w[c], idt = idt_at >= 0 ? net.weights[idt_at + c] : real(1);
    real value, slope;
    activate(s[e] * factor + net.type_term[combination * out + c], value, slope);
    value *= idt;
    slope *= idt * factor;
    if (skip != 0) {
      const int k = c < in ? c : c - in;
      value += k == 0 ? s[e] : net.type_skip[combination * in + k];
      slope += k == 0 ? real(1) : real(0);
    }
    work[c * row + e] = value;
    if (tangent) work[slopes + c * row + e] = slope;
  }
}

}  // namespace dpa2
