// The fitting network (theory 9.1, 12.2): atomic energies from g1, or the numbers that other kinds of models make their outputs of,
// and the gradients of weighted sums of them.
#pragma once

#include <optional>
#include <vector>

#include "cuda/fitting.hpp"
#include "fold/folded.hpp"
#include "gpu/product.hpp"

namespace dpa2::gpu {

template <class T>
class Fitting {
 public:
  /// Slopes of the hidden layers.
  struct Kept {
    std::vector<T*> slopes;
  };

  Fitting(const Folded& folded, const Config& config, Loader& loader);

  /// energy (centres), eV; g1 (centres, n1). fparam (frames, numb_fparam), null: the model's own; aparam (centres, numb_aparam); both as
  /// the caller gives them. Without a gradient nothing is kept.
  Kept forward(Queue& queue, const Frame& frame, double* energy, const T* g1, const double* fparam, const double* aparam,
               bool gradient) const;
  /// dg1 (centres, n1) = the gradient of sum_i seed_i energy_i; seed (centres), null: ones. May be called again.
  void backward(Queue& queue, const Frame& frame, T* dg1, const double* seed, const Kept& kept) const;

  /// Of networks that are no energies: net (centres + vacuum_rows, width) is taken, the network's numbers, first those of the centres.
  Kept numbers(Queue& queue, const Frame& frame, T*& net, const T* g1, const double* fparam, const double* aparam, bool gradient) const;
  /// dg1 (centres, n1) = the gradient of sum dnet net over the centres; dnet (centres, width). May be called again.
  void numbers_backward(Queue& queue, const Frame& frame, T* dg1, const T* dnet, const Kept& kept) const;

  /// Numbers of the network per atom.
  [[nodiscard]] int width() const noexcept { return width_; }
  /// Rows without a descriptor, after the centres: one per centre where there are atomic parameters, else one per frame.
  [[nodiscard]] int vacuum_rows(const Frame& frame) const;
  /// The same as CoefficientArgs has it: 0 none, 1 one per frame, 2 one per centre.
  [[nodiscard]] int vacuum_kind() const noexcept { return !vacuum_ ? 0 : constants_.naparam > 0 ? 2 : 1; }
  /// (ntypes) of the device, 0: atoms of that type have no outputs.
  [[nodiscard]] const int* counted() const noexcept { return counted_; }

 private:
  struct Layer {
    const T *w = nullptr, *wt = nullptr;  ///< of g1, or of the layer before
    const T *extra_w = nullptr, *b = nullptr, *idt = nullptr;
    int in = 0, out = 0, skip = 0;  ///< in: of g1 or the layer before; the first one's input goes on
  };

  /// Rows as they pass from layer to layer.
  struct Input {
    const T* y = nullptr;  ///< (given, width of the layer before): rows beyond are zeros
    T* taken = nullptr;    ///< y, where it is to be released
    int given = 0;
    cuda::FittingExtra<T> beside;
  };

  cuda::FittingExtra<T> extra(const Frame& frame, const double* fparam, const double* aparam) const;
  Input hidden(Queue& queue, const Frame& frame, Kept& kept, const T* g1, const double* fparam, const double* aparam, bool gradient) const;
  /// Through the hidden layers; `args` says where to begin.
  void hidden_backward(Queue& queue, const Frame& frame, T* dg1, cuda::FittingBackwardArgs<T> args, T* dy, const Kept& kept) const;

  TiledKernel hidden_, backward_;
  std::optional<Function> energy_;         // of energies
  std::optional<TiledKernel> last_layer_;  // of the others
  std::optional<Product<T>> last_backward_;
  std::vector<Layer> layers_;
  int n1_, last_, width_;
  cuda::FittingExtra<T> constants_{};
  const double *default_fparam_ = nullptr, *bias_ = nullptr;
  const int* counted_ = nullptr;
  const T* w_out_ = nullptr;
  T b_out_{};
  const T *out_extra_w_ = nullptr, *out_b_ = nullptr;
  Weights2<T> out_;
  bool vacuum_;
};

extern template class Fitting<float>;
extern template class Fitting<double>;

}  // namespace dpa2::gpu
