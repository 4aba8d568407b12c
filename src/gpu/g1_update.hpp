// The update of g1 in a layer (theory 8.11): everything in it that is not a sum over edges.
#pragma once

#include "cuda/g1_update.hpp"
#include "fold/folded.hpp"
#include "gpu/cat.hpp"
#include "gpu/product.hpp"

namespace dpa2::gpu {

/// What the forward of a layer leaves for the backward: 2 n1 numbers per centre, or n1 without the self MLP.
template <class T>
struct G1Kept {
  T* self_slope = nullptr;    ///< (centres, n1), null without the self MLP
  T* linear_slope = nullptr;  ///< (centres, n1)
};

template <class T>
class G1Update {
 public:
  G1Update(const FoldedLayer& layer, const FoldedActivation& act, Loader& loader);

  /// Buffers for the backward.
  G1Kept<T> keep(Queue& queue, int centres) const;
  /// out (centres, n1), another array than g1 (centres, n1). cat (centres, cat().width); conv (centres, n1), of a layer where it is a
  /// member of its own; o (centres, heads n1), of a layer with local attention. kept: {} without a gradient.
  void forward(Queue& queue, int centres, T* out, const T* g1, const T* cat, const T* conv, const T* o, const G1Kept<T>& kept) const;
  /// dg1 (centres, n1) = what the terms here pass on, another array than dout (centres, n1); dcat and d_o =. That of conv is
  /// dout times the factor of the member, in kernels of the messages.
  void backward(Queue& queue, int centres, T* dg1, T* dcat, T* d_o, const T* dout, const G1Kept<T>& kept) const;

  [[nodiscard]] const CatLayout& cat() const noexcept { return cat_; }
  /// 0 without local attention
  [[nodiscard]] int heads() const noexcept { return heads_; }

 private:
  TiledKernel forward_, backward_;
  CatLayout cat_;
  int n1_, heads_ = 0;
  T a_;
  Weights2<T> self_, linear_g1_, linear_cat_, attention_;
  const T *self_b_ = nullptr, *self_r_ = nullptr, *linear_b_ = nullptr, *linear_r_ = nullptr, *conv_r_ = nullptr, *attention_b_ = nullptr;
};

extern template class G1Update<float>;
extern template class G1Update<double>;

}  // namespace dpa2::gpu
