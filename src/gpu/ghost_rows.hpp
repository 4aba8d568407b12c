// Communication of the rows of ghosts on the device.
#pragma once

#include <functional>

#include "gpu/queue.hpp"

namespace dpa2::gpu {

/// Queues what is computed while rows travel.
using Meanwhile = std::function<void()>;

/// The calls are adjoint (exchange.hpp). With other processes nothing is captured.
template <class T>
class GhostRows {
 public:
  virtual ~GhostRows() = default;
  /// `meanwhile`: neither reads nor writes any of `rows`; called once, between what is sent and what is received.
  virtual void forward(Queue& queue, T* rows, int width, const Meanwhile& meanwhile) = 0;
  virtual void reverse(Queue& queue, T* rows, int width, const Meanwhile& meanwhile) = 0;
};

}  // namespace dpa2::gpu
