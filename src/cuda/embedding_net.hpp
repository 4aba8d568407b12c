// Arguments and sizes of the embedding networks: shared by host and kernels.
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace cuda {

constexpr int embedding_threads = 128;  ///< of every block that evaluates a network
constexpr int embedding_warps = embedding_threads / 32;
constexpr int embedding_parts = embedding_warps - 1;  ///< of a sum over the block that wait in shared memory for the first warp
constexpr int embedding_layer = 6;                    ///< numbers of `layout` for a layer
/// What fits into shared memory beside the small parts decides how many scalars a block takes at a time: LANES, a power of two.
constexpr int least_lanes = 4;
/// Scalars at a time of an ordinary network, and of one with few channels, which would leave most threads without work.
DPA2_MATH constexpr int most_lanes(bool narrow, int bytes_of_scalar) { return (narrow ? 512 : 128) / bytes_of_scalar; }
constexpr int narrow_width = 16;  ///< the widest layer of a network with few channels

/// Numbers from one channel to the next in the tiles: an odd number of sixteen bytes, so that vector loads of neighbouring channels fall
/// on different banks.
DPA2_MATH constexpr int lane_row(int lanes, int bytes_of_scalar) {
  return lanes * bytes_of_scalar / 16 % 2 != 0 ? lanes : lanes + 16 / bytes_of_scalar;
}
/// Numbers that a network of these widths works in; `tangent`: with the derivative.
DPA2_MATH constexpr long long embedding_numbers(int even, int odd, bool tangent, int lanes, int bytes_of_scalar) {
  return (tangent ? 2LL : 1LL) * (static_cast<long long>(even) + odd) * lane_row(lanes, bytes_of_scalar);
}
/// What a warp works in for every scalar, and how many scalars it has at a time in so many numbers.
DPA2_MATH constexpr int embedding_each(int even, int odd, bool tangent) { return (tangent ? 2 : 1) * (even + odd); }
DPA2_MATH constexpr int embedding_scalars(int numbers, int each) { return numbers / each < 32 ? numbers / each : 32; }

/// A network of one scalar and of types. layout, for every layer: its input and output width, its skip (0 none, 1 y += x, 2 y += [x, x])
/// and where in `weights` its matrix, bias and idt begin (-1: none). Matrices are (in, out rounded up to a multiple of 4), with zeros, and
/// begin at multiples of 4; so do biases and idt.
///
/// With -DTABLE the network is the table of a compressed model: weights has the ends of the intervals (intervals + 1), then coefficients
/// (curves, intervals, 6, even channels).
template <class T>
struct EmbeddingNetArgs {
  const int* layout;
  const T* weights;    // aligned to 16 bytes
  const T* type_term;  // (combinations or 1, out0): bias plus the types' share of the first layer
  const T* type_skip;  // (combinations or 1, in0): the first layer's input without the scalar, or null
  const T* gate;       // (combinations, width): the types' network of strip mode with -DGATED, or null
  int layers;
  int intervals;
  int typed;        // 1: a row of type_term and type_skip, or a curve, for every combination of types
  int even;         // widest output among layers 0, 2, ...
  int odd;          // and among 1, 3, ...
  int gate_switch;  // 1: the gate goes with the switch
};
static_assert(sizeof(EmbeddingNetArgs<float>) == 64 && sizeof(EmbeddingNetArgs<double>) == 64, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
