// What the stages over the repformer's edges read, and what they hand back.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda/edge_tile.hpp"
#include "fold/matrix.hpp"
#include "gpu/loader.hpp"

namespace dpa2::gpu {

/// The input of a layer.
template <class T>
struct LayerInput {
  const T* g1 = nullptr;  ///< (atoms, n1)
  const T* g2 = nullptr;  ///< (capacity, n2)
  const T* h2 = nullptr;  ///< (capacity, 3)
  const T* w = nullptr;   ///< (capacity) 1 where the switch is not smooth
};

/// Gradients of the edges, which pass from layer to layer in place; w has one for all layers.
template <class T>
struct EdgeGradient {
  T* dg2 = nullptr;   ///< (capacity, n2)
  T* dh2 = nullptr;   ///< (capacity, 3)
  T* dw = nullptr;    ///< (capacity)
  bool fresh = true;  ///< nothing has flowed into them, and they hold nothing: the first stage sets them
};

/// Counters of the device, zero, of which every launch takes its own: what its blocks share out among themselves.
struct Counters {
  int* next = nullptr;
  int* take(int count) {
    int* const own = next;
    next += count;
    return own;
  }
};

/// The gradient of a layer's input g1, to which one stage after the other adds.
template <class T>
struct NeighbourGradient {
  T* dg1 = nullptr;  ///< (atoms, n1)
  int set = 0;       ///< rows that hold something: those of ghosts hold nothing until the first stage that reaches them sets them
};

/// What kernels that add up over edges are compiled with for n2 numbers of each (cuda/edge_sums.cuh).
inline Defines numbers_of_edges(int n2) { return {{"GROUP", n2 <= 16 ? "4" : "8"}}; }

/// A matrix as tiles of edges are multiplied with it (cuda/edge_tile.hpp).
template <class T>
const T* upload_for_tiles(const Matrix& m, Loader& loader) {
  std::vector<double> strips(static_cast<std::size_t>(cuda::strip_of(cuda::padded_to_edge_tiles(m.cols), m.rows)));
  for (int k = 0; k < m.rows; ++k)
    for (int c = 0; c < m.cols; ++c)
      strips[static_cast<std::size_t>(cuda::strip_of(c / cuda::tile * cuda::tile, m.rows) + k * cuda::tile + c % cuda::tile)] = m(k, c);
  return loader.upload<T>(strips);
}

}  // namespace dpa2::gpu
