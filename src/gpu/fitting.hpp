// Atomic energies from g1, and the gradient of their weighted sum (theory 9.1, 12.2).
#pragma once

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
  void release(Queue& queue, const Kept& kept) const;

 private:
  struct Layer {
    const T *w = nullptr, *wt = nullptr;  ///< of g1, or of the layer before
    const T *extra_w = nullptr, *b = nullptr, *idt = nullptr;
    int in = 0, out = 0, skip = 0;  ///< in: of g1 or the layer before; the first one's input goes on
  };

  /// Rows without a descriptor, after the centres.
  [[nodiscard]] int vacuum_rows(const Frame& frame) const;
  cuda::FittingExtra<T> extra(const Frame& frame, const double* fparam, const double* aparam) const;

  TiledKernel hidden_, backward_;
  Function energy_;
  std::vector<Layer> layers_;
  int n1_, last_;
  cuda::FittingExtra<T> constants_{};
  const double *default_fparam_ = nullptr, *bias_ = nullptr;
  const int* counted_ = nullptr;
  const T* w_out_ = nullptr;
  T b_out_;
  bool vacuum_;
};

extern template class Fitting<float>;
extern template class Fitting<double>;

}  // namespace dpa2::gpu
