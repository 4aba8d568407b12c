// What edges of the repformer bring to their neighbours, gathered atom by atom.
#pragma once

#include "cuda/gather.hpp"
#include "gpu/edges.hpp"
#include "gpu/frame.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

template <class T>
class Gather {
 public:
  Gather(int n1, int n2, Loader& loader);

  /// `terms` without lists, widths and dg1, which are those of `frame` and `neighbours`. One launch, none without terms.
  void run(Queue& queue, const Frame& frame, cuda::GatherArgs<T> terms, NeighbourGradient<T>& neighbours) const;

 private:
  Function gather_;
  int n1_, n2_;
};

extern template class Gather<float>;
extern template class Gather<double>;

}  // namespace dpa2::gpu
