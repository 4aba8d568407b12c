// The embedding networks of repinit and of the three-body block: functions of one scalar per edge (or pair) and of types,
// evaluated by one block for a tile of LANES scalars (theory 4.1).
//
// A backward pass needs no transposed weights and keeps nothing: the derivative with respect to the scalar travels with the value.
#pragma once

#include "cuda/activation.cuh"
#include "cuda/block.cuh"
#include "math/quintic.hpp"

namespace dpa2 {

constexpr int LANES = sizeof(real) == 4 ? 32 : 16;
constexpr int LANE_ROW = LANES + 8;  // of a channel in shared memory: parts of an edge's channels fall on different banks

/// The arrays that describe a network. layout: number of layers; widest output among layers 0, 2, ... and among 1, 3, ...; whether
/// the first layer's tables have a row per combination of types; then for every layer its input and output width, its skip (0
/// none, 1 y += x, 2 y += [x, x]) and where in `weights` its matrix, bias and idt begin (-1: none).
///
/// With -DTABLE the network is the table of a compressed model: layout[1] is its number of channels, layout[3] whether it has a curve per
/// combination of types, layout[4] its number of intervals; weights: their ends (intervals + 1), then coefficients (curves, intervals, 6,
/// channels).
struct EmbeddingNet {
  const int* layout;
  const real* weights;
  const real* type_term;  // (combinations, out0): bias plus the types' share of the first layer
  const real* type_skip;  // (combinations, in0): the first layer's input without the scalar, where it has a skip

  /// Numbers of shared memory that embed() works in; doubled for a tangent.
  __device__ int even() const { return layout[1] * LANE_ROW; }
  __device__ int odd() const { return layout[2] * LANE_ROW; }
};

/// Where embed() left its result: channel c of lane e at value[c * LANE_ROW + e], its derivative likewise.
struct Embedded {
  const real* value;
  const real* tangent;
};

/// embed() from a table: quintic polynomials of the place in an interval, straight lines beyond the ends. A warp per lane.
template <bool tangent>
__device__ Embedded look_up(const EmbeddingNet& net, const real* s, const int* row, real* work) {
  const int intervals = net.layout[4], channels = net.layout[1];
  const real* ends = net.weights;
  const real* table = net.weights + intervals + 1;
  real* slopes = work + net.even();
  __syncthreads();
  for (int e = threadIdx.x / 32; e < LANES; e += blockDim.x / 32) {
    int n = 0, above = intervals;  // the last interval that begins at s or before
    while (above - n > 1) {
      const int middle = (n + above) / 2;
      if (ends[middle] <= s[e])
        n = middle;
      else
        above = middle;
    }
    const real inv_length = real(1) / (ends[n + 1] - ends[n]);
    const real within = s[e] < ends[0] ? ends[0] : s[e] > ends[intervals] ? ends[intervals] : s[e];
    const real u = (within - ends[n]) * inv_length, beyond = (s[e] - within) * inv_length;
    const int curve = net.layout[3] != 0 ? row[e] : 0;
    const real* a = table + (static_cast<long long>(curve) * intervals + n) * quintic_terms * channels;
    for (int c = threadIdx.x % 32; c < channels; c += 32) {
      real value, slope;
      math::quintic(u, [&](int k) { return a[k * channels + c]; }, value, slope);
      work[c * LANE_ROW + e] = value + slope * beyond;
      if (tangent) slopes[c * LANE_ROW + e] = slope * inv_length;
    }
  }
  __syncthreads();
  return {work, slopes};
}

/// net(s[lane], row[lane]) of all lanes; work: shared memory. Begins and ends with all threads at one place.
template <bool tangent>
__device__ Embedded embed(const EmbeddingNet& net, const real* s, const int* row, real* work) {
#ifdef TABLE
  return look_up<tangent>(net, s, row, work);
#else
  constexpr int PACK = tangent ? 4 : 8;
  constexpr int copies = tangent ? 2 : 1;
  const int* layer = net.layout + 4;
  real* buffers[2] = {work, work + copies * net.even()};
  const int sizes[2] = {net.even(), net.odd()};
  __syncthreads();
  {
    const int in = layer[0], out = layer[1], skip = layer[2];
    const real* w = net.weights + layer[3];
    real* y = buffers[0];
    for (int t = threadIdx.x; t < out * LANES; t += blockDim.x) {
      const int c = t / LANES, e = t % LANES, combination = net.layout[3] != 0 ? row[e] : 0;
      real value, slope;
      activate(s[e] * w[c] + net.type_term[combination * out + c], value, slope);
      if (layer[5] >= 0) {
        value *= net.weights[layer[5] + c];
        slope *= net.weights[layer[5] + c];
      }
      slope *= w[c];
      if (skip != 0) {
        const int k = c % in;
        value += k == 0 ? s[e] : net.type_skip[combination * in + k];
        slope += k == 0 ? real(1) : real(0);
      }
      y[c * LANE_ROW + e] = value;
      if (tangent) y[sizes[0] + c * LANE_ROW + e] = slope;
    }
  }
  __syncthreads();
  for (int l = 1; l < net.layout[0]; ++l) {
    layer += 6;
    const int in = layer[0], out = layer[1], skip = layer[2], from = (l - 1) % 2;
    const real* w = net.weights + layer[3];
    const real* x = buffers[from];
    real* y = buffers[1 - from];
    for (int t = threadIdx.x; t < out * (LANES / PACK); t += blockDim.x) {
      const int c = t % out, e0 = t / out * PACK;
      real z[PACK] = {}, dz[PACK] = {};
      for (int k = 0; k < in; ++k) {
        const real factor = w[k * out + c];
        const real* xk = x + k * LANE_ROW + e0;
#pragma unroll
        for (int e = 0; e < PACK; ++e) {
          z[e] += factor * xk[e];
          if (tangent) dz[e] += factor * xk[sizes[from] + e];
        }
      }
      const real bias = net.weights[layer[4] + c], idt = layer[5] >= 0 ? net.weights[layer[5] + c] : real(1);
      const real* xc = x + c % in * LANE_ROW + e0;
      real* yc = y + c * LANE_ROW + e0;
#pragma unroll
      for (int e = 0; e < PACK; ++e) {
        real value, slope;
        activate(z[e] + bias, value, slope);
        yc[e] = value * idt + (skip != 0 ? xc[e] : real(0));
        if (tangent) yc[sizes[1 - from] + e] = slope * idt * dz[e] + (skip != 0 ? xc[sizes[from] + e] : real(0));
      }
    }
    __syncthreads();
  }
  const int last = (net.layout[0] - 1) % 2;
  return {buffers[last], buffers[last] + sizes[last]};
#endif
}

}  // namespace dpa2
