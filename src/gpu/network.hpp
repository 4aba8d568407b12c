// The model from neighbour lists to results, and back: which stage follows which.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "fold/folded.hpp"
#include "gpu/engine.hpp"
#include "gpu/entry.hpp"
#include "gpu/frame.hpp"
#include "gpu/head.hpp"
#include "gpu/layer.hpp"
#include "gpu/messages.hpp"
#include "gpu/outputs.hpp"
#include "gpu/product.hpp"
#include "gpu/queue.hpp"
#include "gpu/stages.hpp"
#include "schema/config.hpp"

namespace dpa2::gpu {

template <class T>
class Network final : public Stages<T> {
 public:
  /// `config` is that of the network itself, also where it is mixed with a table.
  Network(const Config& config, const Folded& folded, Loader& loader);

  void enqueue(Queue& queue, const Frame& frame, const Request& request, const Parameters& given, const Output& out,
               GhostRows<T>* ghosts) const override;
  [[nodiscard]] const HeadShape& shape() const override { return head_.shape(); }

 private:
  struct Forward;
  void forward(Queue& queue, const Frame& frame, Forward& f, bool gradient, GhostRows<T>* ghosts) const;
  void release_input(Queue& queue, const Forward& f, std::size_t l) const;
  /// gamma (master edges, 3) = the gradient of a weighted sum of what the head gives, and with `more` of its other seeds; taken late where
  /// it is null. `last`: what the forward has left is released as soon as it is of no more use.
  void backward(Queue& queue, const Frame& frame, const Forward& f, const HeadSeed& seed, const Parameters* more, T*& gamma, bool last,
                GhostRows<T>* ghosts) const;

  int n1_ = 0, n2_ = 0;
  Entry<T> entry_;
  EntryNodes<T> entry_nodes_;
  std::vector<std::unique_ptr<Layer<T>>> layers_;
  Rotation<T> rotation_;
  Head<T> head_;
  Outputs<T> outputs_;
};

extern template class Network<float>;
extern template class Network<double>;

}  // namespace dpa2::gpu
