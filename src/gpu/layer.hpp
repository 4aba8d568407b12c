// One layer of the repformer on a device, forward and backward: the stages in their order (theory 8).
#pragma once

#include <optional>

#include "fold/folded.hpp"
#include "gpu/edges.hpp"
#include "gpu/frame.hpp"
#include "gpu/g1_update.hpp"
#include "gpu/g1g1.hpp"
#include "gpu/gather.hpp"
#include "gpu/loader.hpp"
#include "gpu/local_attention.hpp"
#include "gpu/messages.hpp"
#include "gpu/pairs.hpp"
#include "gpu/product.hpp"
#include "gpu/queue.hpp"
#include "schema/config.hpp"

namespace dpa2::gpu {

/// What a layer reads, and what its forward leaves for the backward.
template <class T>
struct LayerState {
  LayerInput<T> in;
  G1Kept<T> g1;
  MessageState<T> messages;
  LocalAttentionState<T> attention;
  Counters* counters = nullptr;  ///< of every launch of this evaluation, see Layer::counters
};

/// What a layer makes of its input; the last one leaves g2 and h2 as they are.
template <class T>
struct LayerOutput {
  T *g1 = nullptr, *g2 = nullptr, *h2 = nullptr;
};

template <class T>
class Layer {
 public:
  Layer(const FoldedLayer& layer, const FoldedDescriptor& descriptor, const Config& config, Loader& loader);

  /// g2 and h2 of the output; reads g1 where pairs_read_g1. state.in is given.
  void pairs_forward(Queue& queue, const Frame& frame, const LayerState<T>& state, LayerOutput<T>& out) const;
  [[nodiscard]] bool pairs_read_g1() const { return g1g1_.has_value(); }
  /// g1 of the output. Without a gradient nothing is kept, and `state` is of no use afterwards.
  void forward(Queue& queue, const Frame& frame, LayerState<T>& state, LayerOutput<T>& out, bool gradient) const;

  /// Before `backward`, and without a gradient of g1: takes `edges` through what pairs_forward did. The gradient of what g1g1 adds to g2, for
  /// `backward`, or null.
  T* pairs_backward(Queue& queue, const Frame& frame, const LayerState<T>& state, EdgeGradient<T>& edges) const;
  /// (atoms, n1): the gradient of the layer's input g1, given `dout` of its output, which is released, as is dU; rows of ghosts hold what is
  /// to go to their owners. `edges` becomes that of the input g2 and h2, and of w. `last`: what the forward has left is released on the way.
  T* backward(Queue& queue, const Frame& frame, const LayerState<T>& state, T* dout, T* dU, EdgeGradient<T>& edges, bool last) const;
  /// How many pairs_forward takes of state.counters, and likewise pairs_backward.
  [[nodiscard]] int counters() const { return pairs_ ? pairs_->counters() : 0; }

 private:
  /// g1 times a matrix; null where the layer has none.
  T* projected(Queue& queue, int rows, const LayerInput<T>& in, const Weights2<T>& w) const;

  G1Update<T> update_;
  Messages<T> messages_;
  Gather<T> gather_;
  Product<T> product_;
  Weights2<T> node_, queries_;
  std::optional<LocalAttention<T>> attention_;
  std::optional<G1G1<T>> g1g1_;
  std::optional<Pairs<T>> pairs_;
  int n1_, n2_;
  bool last_, updates_h2_;
};

extern template class Layer<float>;
extern template class Layer<double>;

}  // namespace dpa2::gpu
