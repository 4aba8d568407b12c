// The attention of a centre to the g1 of its neighbours (theory 8.10), between the products with its matrices.
#pragma once

#include "cuda/gather.hpp"
#include "gpu/edges.hpp"
#include "gpu/frame.hpp"
#include "gpu/queue.hpp"
#include "schema/config.hpp"

namespace dpa2::gpu {

/// Of the forward for the backward: the softmax of every centre and head.
template <class T>
struct LocalAttentionState {
  T* largest = nullptr;  ///< (centres, heads)
  T* inverse = nullptr;  ///< (centres, heads)
};

template <class T>
class LocalAttention {
 public:
  /// attention_shift: of the folded descriptor.
  LocalAttention(const Config& config, double attention_shift, Loader& loader);

  LocalAttentionState<T> keep(Queue& queue, const Frame& frame) const;
  /// o (centres, heads n1) = given the queries tq (centres, heads n1). One launch.
  void forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* tq, T* o, const LocalAttentionState<T>& state) const;
  /// dtq (centres, heads n1) =, given d_o (centres, heads n1); dw +=, so that `edges` must not be fresh. One launch. The terms of
  /// a gather are what flows to the neighbours: it reads tq and d_o, and its `room` is a buffer to be released after it.
  cuda::GatherArgs<T> backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* tq, const LocalAttentionState<T>& state,
                               const T* d_o, T* dtq, const EdgeGradient<T>& edges) const;

 private:
  Function forward_, backward_;
  int n1_, nh_, nsel_;
  T shift_;
};

extern template class LocalAttention<float>;
extern template class LocalAttention<double>;

}  // namespace dpa2::gpu
