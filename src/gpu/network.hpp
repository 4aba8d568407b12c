// The model from neighbour lists to results, and back: which stage follows which.
#pragma once

#include <memory>
#include <vector>

#include "fold/folded.hpp"
#include "gpu/assemble.hpp"
#include "gpu/engine.hpp"
#include "gpu/entry.hpp"
#include "gpu/frame.hpp"
#include "gpu/head.hpp"
#include "gpu/layer.hpp"
#include "gpu/messages.hpp"
#include "gpu/outputs.hpp"
#include "gpu/product.hpp"
#include "gpu/queue.hpp"
#include "schema/config.hpp"

namespace dpa2::gpu {

/// Communication of ghost rows on the device; the calls are adjoint (exchange.hpp). With an exchange nothing is captured.
template <class T>
class GhostRows {
 public:
  virtual ~GhostRows() = default;
  virtual void forward(Queue& queue, T* rows, int width) = 0;
  virtual void reverse(Queue& queue, T* rows, int width) = 0;
};

/// What an evaluation reads besides the frame; of the device, null where absent.
struct Parameters {
  const double* coords = nullptr;           ///< (atoms, 3) as given
  const cuda::GivenBox* boxes = nullptr;    ///< (frames) where deepmd-kit's virials are asked for
  const double* fparam = nullptr;           ///< (frames, numb_fparam)
  const double* aparam = nullptr;           ///< (centres, numb_aparam)
  const double* weights = nullptr;          ///< (centres) of the atoms' values in what forces and virials are derivatives of
  const double* seed_head = nullptr;        ///< (centres, width)
  const double* seed_descriptor = nullptr;  ///< (centres, descriptor_dim)
  const double* seed_rot_mat = nullptr;     ///< (centres, n2, 3)
};

template <class T>
class Network {
 public:
  Network(const Config& config, const Folded& folded, Loader& loader);

  /// Everything that `request` asks for into `out`, arrays of the device; `ghosts` where there are ghost rows, else null.
  void enqueue(Queue& queue, const Frame& frame, const Request& request, const Parameters& given, const Output& out,
               GhostRows<T>* ghosts) const;

  [[nodiscard]] const HeadShape& shape() const noexcept { return head_.shape(); }
  [[nodiscard]] int n2() const noexcept { return n2_; }

 private:
  struct Forward;
  void forward(Queue& queue, const Frame& frame, Forward& f, bool gradient, GhostRows<T>* ghosts) const;
  /// gamma (master edges, 3) =, given dg1 (atoms, n1) of the last layer's output and dC (centres, 3, n2) of the rotation matrix or null;
  /// both are released.
  void backward(Queue& queue, const Frame& frame, const Forward& f, T* dg1, T* dC, T* gamma, GhostRows<T>* ghosts) const;
  /// The same of a weighted sum of what the head gives.
  void backward(Queue& queue, const Frame& frame, const Forward& f, const HeadSeed& seed, const typename Head<T>::Kept& kept, T* gamma,
                GhostRows<T>* ghosts) const;
  /// The same of `given`'s seeds.
  void backward_seeds(Queue& queue, const Frame& frame, const Forward& f, const Parameters& given, const typename Head<T>::Kept& kept,
                      T* gamma, GhostRows<T>* ghosts) const;

  int n1_ = 0, n2_ = 0;
  Entry<T> entry_;
  EntryNodes<T> entry_nodes_;
  std::vector<std::unique_ptr<Layer<T>>> layers_;
  Rotation<T> rotation_;
  Head<T> head_;
  Outputs<T> outputs_;
  Assemble<T> assemble_;
};

extern template class Network<float>;
extern template class Network<double>;

}  // namespace dpa2::gpu
