// What a model computes from the descriptors of atoms: energies from the fitting network alone, or other outputs (theory 9.1, 9.4, 12.2).
#pragma once

#include <optional>

#include "cuda/head.hpp"
#include "fold/folded.hpp"
#include "gpu/engine.hpp"
#include "gpu/fitting.hpp"
#include "gpu/frame.hpp"
#include "gpu/loader.hpp"
#include "gpu/pair_table.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

/// How many numbers an output has, and of which kind.
struct HeadShape {
  int width = 1;       ///< numbers of an atom, and of the frame
  int components = 1;  ///< numbers of the frame that have forces and virials; 0: there are no derivatives
  bool total = true;   ///< the frame has a value
  bool mean = false;   ///< it is the mean over the atoms that count, else the sum
  bool energy = true;

  /// That of an energy.
  HeadShape() = default;
  explicit HeadShape(const Config& config);
};

/// Weights of a sum of outputs.
struct HeadSeed {
  const double* seed = nullptr;  ///< (centres, width); with a component (centres), null: ones
  int component = -1;            ///< of this number of the output alone
};

template <class T>
class Head {
 public:
  struct Kept {
    typename Fitting<T>::Kept fitting;
    T* net = nullptr;      ///< numbers of the fitting network
    const T* C = nullptr;  ///< the caller's
    typename Zbl<T>::Kept zbl;
  };

  /// A table in the fold is mixed with the energies.
  Head(const Config& config, const Folded& folded, Loader& loader);

  [[nodiscard]] const HeadShape& shape() const noexcept { return shape_; }
  /// Whether it looks at the rotation matrix.
  [[nodiscard]] bool rotation() const noexcept { return rotation_; }

  /// value (centres, width), null: only what a gradient needs; g1 (centres, n1); C (centres, 3, n2), the vector moments of the last g2,
  /// where it looks at the rotation matrix, stays the caller's. Parameters as for the fitting network.
  Kept forward(Queue& queue, const Frame& frame, double* value, const T* g1, const T* C, const double* fparam, const double* aparam,
               bool gradient) const;
  /// dg1 (centres, n1) and, where it looks at it, dC (centres, 3, n2) = the gradient of a weighted sum. May be called again.
  void backward(Queue& queue, const Frame& frame, T* dg1, T* dC, const HeadSeed& seed, const Kept& kept) const;
  /// What `forward` has left, as far as edges_backward does not need it.
  static void release(Queue& queue, const Kept& kept);
  /// gamma (master edges, 3) += what does not flow through the descriptor, of energies that are mixed with those of a table.
  void edges_backward(Queue& queue, const Frame& frame, T* gamma, const HeadSeed& seed, const Kept& kept) const;
  /// The values (frames, width) of frames that have any, from those of the centres; energies are added up with the virials.
  void totals(Queue& queue, const Frame& frame, double* out, const double* value) const;

 private:
  cuda::CoefficientArgs<T> coefficients(const Frame& frame, const T* net) const;

  HeadShape shape_;
  Fitting<T> fitting_;
  std::optional<Zbl<T>> zbl_;
  Function forward_, backward_, totals_;
  const double *scale_ = nullptr, *bias_ = nullptr, *shift_ = nullptr;
  int n2_;
  bool rotation_, diagonal_;
};

extern template class Head<float>;
extern template class Head<double>;

}  // namespace dpa2::gpu
