// The update of g2 and h2 in a layer: attention among the edges of a centre, linear2, LayerNorm, residual (theory 8.2, 8.5-8.7, 8.11).
#pragma once

#include "cuda/pair_attention.hpp"
#include "cuda/pair_update.hpp"
#include "fold/folded.hpp"
#include "gpu/edges.hpp"
#include "gpu/frame.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"
#include "schema/config.hpp"

namespace dpa2::gpu {

/// What the forward of a layer leaves for its backward: n2 + 2 heads numbers per edge; null where the layer has no such update.
template <class T>
struct PairState {
  T* z = nullptr;        ///< (capacity, n2) attention before LayerNorm
  T* top = nullptr;      ///< (capacity, heads) the largest logit of a query
  T* inv_sum = nullptr;  ///< (capacity, heads) 1 / sum of exponentials
};

/// Of a layer that is not the last.
template <class T>
class Pairs {
 public:
  Pairs(const FoldedLayer& layer, const FoldedDescriptor& descriptor, const Config& config, Loader& loader);

  /// g2_out (capacity, n2), another array than in.g2; h2_out (capacity, 3) where h2 is updated. U (capacity, n2): the update by g1g1
  /// where there is one. Without a gradient, nothing is left in `state`.
  void forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* U, T* g2_out, T* h2_out, PairState<T>& state,
               bool gradient) const;
  /// The gradients of g2 and h2 become those of the layer's input, as far as they flow here; dw +=; dU (capacity, n2) = where
  /// there is g1g1.
  void backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const PairState<T>& state, EdgeGradient<T>& edges, T* dU) const;

 private:
  template <class Args>
  Args update_arguments(const Frame& frame, const LayerInput<T>& in, const PairState<T>& state) const;

  Function update_, update_backward_, attention_, attention_backward_;
  int n2_, heads_ = 0, nsel_ = 0;
  bool gate_ = false;
  T shift_ = 0, eps_, a_, h2_a_ = 1, h2_r_ = 0;
  const T *w_ = nullptr, *w_t_ = nullptr, *b_ = nullptr, *linear_r_ = nullptr, *g1g1_r_ = nullptr;
  const T *query_ = nullptr, *query_t_ = nullptr, *value_ = nullptr, *value_t_ = nullptr, *bias_ = nullptr;
  const T *gain_ = nullptr, *norm_shift_ = nullptr, *h2_weight_ = nullptr;
};

extern template class Pairs<float>;
extern template class Pairs<double>;

}  // namespace dpa2::gpu
