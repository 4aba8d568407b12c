// Descriptors and rotation matrices as the caller gets them, and the gradients that belong to weights of them (theory 8.12).
#pragma once

#include "fold/folded.hpp"
#include "gpu/frame.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

template <class T>
class Outputs {
 public:
  Outputs(const FoldedDescriptor& folded, const Config& config, Loader& loader);

  /// out (centres, descriptor_dim) = [g1, type embedding]; NaN where the frame has failed, like the next.
  void descriptor(Queue& queue, const Frame& frame, double* out, const T* g1) const;
  /// out (centres, n2, 3), given the vector moments C (centres, 3, n2) of the last g2
  void rotation(Queue& queue, const Frame& frame, double* out, const T* C) const;
  /// dg1 (centres, n1) = or += the share of seed (centres, descriptor_dim)
  void descriptor_seeds(Queue& queue, const Frame& frame, T* dg1, const double* seed, bool accumulate) const;
  /// dC (centres, 3, n2) = or += that of seed (centres, n2, 3)
  void rotation_seeds(Queue& queue, const Frame& frame, T* dC, const double* seed, bool accumulate) const;

 private:
  template <class Args>
  void launch(Queue& queue, const Function& kernel, const Args& args) const;

  Function descriptor_, rotation_, descriptor_seeds_, rotation_seeds_;
  const T* tebd_ = nullptr;
  int n1_, n2_, ntebd_ = 0;
};

extern template class Outputs<float>;
extern template class Outputs<double>;

}  // namespace dpa2::gpu
