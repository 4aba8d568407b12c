// What edges of the repformer bring to their neighbours.
#pragma once

#include "gpu/frame.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

template <class T>
class SumIncoming {
 public:
  explicit SumIncoming(Loader& loader);

  /// out (atoms, width): += for the first `added` atoms, = for the others, the sum of rows (capacity, width) of the edges to each.
  void run(Queue& queue, const Frame& frame, const T* rows, int width, T* out, int added) const;

 private:
  Function sum_;
};

extern template class SumIncoming<float>;
extern template class SumIncoming<double>;

}  // namespace dpa2::gpu
