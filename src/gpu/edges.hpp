// What the stages over the repformer's edges read, and what they hand back.
#pragma once

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

/// What flows to the neighbours, in rows of edges, until it is added up.
template <class T>
struct NeighbourGradient {
  T* rows = nullptr;     ///< (capacity, n1)
  bool written = false;  ///< the first stage sets the rows
};

/// A matrix as tiles of edges are multiplied with it: whole tiles of rows and columns.
template <class T>
const T* upload_for_tiles(const Matrix& m, Loader& loader) {
  return loader.upload<T>(padded_to(m, cuda::padded_to_edge_tiles(m.rows), cuda::padded_to_edge_tiles(m.cols)));
}

}  // namespace dpa2::gpu
