// The update of g2 and h2 in a layer: attention among the edges of a centre, linear2, LayerNorm, residual (theory 8.2, 8.5-8.7, 8.11).
#pragma once

#include "cuda/pair_layer.hpp"
#include "fold/folded.hpp"
#include "gpu/edges.hpp"
#include "gpu/frame.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"
#include "schema/config.hpp"

namespace dpa2::gpu {

/// Of a layer that is not the last.
template <class T>
class Pairs {
 public:
  Pairs(const FoldedLayer& layer, const FoldedDescriptor& descriptor, const Config& config, Loader& loader);

  /// g2_out (capacity, n2), another array than in.g2; h2_out (capacity, 3) where h2 is updated. U (capacity, n2): the update by g1g1
  /// where there is one. Nothing is kept for the backward.
  void forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, Counters* counters, const T* U, T* g2_out, T* h2_out) const;
  /// The gradients of g2 and h2 become those of the layer's input, as far as they flow here; dw +=; dU (capacity, n2) = where
  /// there is g1g1.
  void backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, Counters* counters, EdgeGradient<T>& edges, T* dU) const;
  /// How many of `counters` each of them takes.
  [[nodiscard]] int counters() const { return attention() ? cuda::pair_layer_counters : 0; }

 private:
  [[nodiscard]] bool attention() const { return with_.query != nullptr; }
  /// Blocks that the device has registers for.
  [[nodiscard]] int resident(bool backward) const;

  Function forward_, backward_;
  cuda::PairConstants<T> with_{};
  bool fast_ = false;  // pair_layer_fast
  int multiprocessors_ = 0;
};

extern template class Pairs<float>;
extern template class Pairs<double>;

}  // namespace dpa2::gpu
