// The product of both ends' g1 as an update of g2 (theory 8.3).
#pragma once

#include "fold/layer.hpp"
#include "gpu/edges.hpp"
#include "gpu/frame.hpp"
#include "gpu/gather.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

template <class T>
class G1G1 {
 public:
  G1G1(const FoldedLayer& layer, Loader& loader);

  /// U (capacity, n2) =. One launch.
  void forward(Queue& queue, const Frame& frame, const LayerInput<T>& in, T* U) const;
  /// Given dU (capacity, n2): to both atoms' g1; dw +=, so that `edges` must not be fresh. Two launches. `terms`: what the attention brings
  /// to the neighbours, or nothing; it comes with their sums.
  void backward(Queue& queue, const Frame& frame, const LayerInput<T>& in, const T* dU, const EdgeGradient<T>& edges,
                cuda::GatherArgs<T> terms, NeighbourGradient<T>& neighbours) const;

 private:
  Function forward_, backward_;
  Gather<T> gather_;
  int n1_, n2_;
  const T *W_, *Wt_;
};

extern template class G1G1<float>;
extern template class G1G1<double>;

}  // namespace dpa2::gpu
