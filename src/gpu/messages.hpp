// What passes from the neighbours to a centre in a layer: convolution and symmetrisation (theory 8.4, 8.8), and the rotation matrix.
#pragma once

#include "cuda/gather.hpp"
#include "fold/layer.hpp"
#include "gpu/cat.hpp"
#include "gpu/edges.hpp"
#include "gpu/frame.hpp"
#include "gpu/queue.hpp"
#include "schema/config.hpp"

namespace dpa2::gpu {

/// Moments of a layer's forward, for its Gram products and for the backward; null where the layer has none.
template <class T>
struct MessageState {
  T* grrg = nullptr;  ///< (centres, 3, n2)
  T* drrd = nullptr;  ///< (centres, 3, n1)
};

template <class T>
class Messages {
 public:
  Messages(const FoldedLayer& layer, const Config& config, Loader& loader);

  /// Whether P acts on g1, atom by atom, and forward and backward want node (atoms, n2) = g1 P.
  [[nodiscard]] bool wants_node() const noexcept { return conv_ && !out_conv_; }
  /// Whether there is an output conv (centres, n1).
  [[nodiscard]] bool has_conv() const noexcept { return out_conv_; }

  /// Buffers for the moments; released by the caller, without a gradient after the forward.
  MessageState<T> keep(Queue& queue, const Frame& frame) const;

  /// conv (centres, n1) = with has_conv(), before its residual factor; the columns of cat (centres, width) =. One launch or none.
  void forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* node, T* conv, T* cat,
               const MessageState<T>& state) const;

  /// Given dout (centres, n1) of the layer's output g1 and dcat (centres, width): to the edges. `seed` (centres, 3, n2): what flows into
  /// the moments of the layer's g2 besides, or null. One launch or none. What flows to the neighbours are terms of a gather, of which
  /// `vectors` is a buffer to be released after it, and with wants_node() dnode (atoms, n2) = is its output.
  cuda::GatherArgs<T> backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* node, const MessageState<T>& state,
                               const T* dout, const T* dcat, const T* seed, EdgeGradient<T>& edges, T* dnode) const;

 private:
  template <class Args>
  Args layer_arguments(const Frame& frame, const LayerInput<T>& in, const T* node, const MessageState<T>& state) const;

  Function forward_, backward_;
  CatLayout cat_;
  bool conv_, out_conv_, grrg_, drrd_;
  int n1_, n2_, axis_, nsel_;
  bool smooth_, root_;
  const T *P_ = nullptr, *Pt_ = nullptr, *r_conv_ = nullptr;
};

/// The moments of g2 and h2 after the last layer.
template <class T>
class Rotation {
 public:
  Rotation(const Config& config, Loader& loader);

  /// moments (centres, 3, n2) =. One launch.
  void forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, T* moments) const;
  /// seed (centres, 3, n2) of the moments to the edges. One launch.
  void backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* seed, EdgeGradient<T>& edges) const;

 private:
  Function forward_, backward_;
  int n1_, n2_, nsel_;
  bool smooth_, root_;
};

extern template class Messages<float>;
extern template class Messages<double>;
extern template class Rotation<float>;
extern template class Rotation<double>;

}  // namespace dpa2::gpu
