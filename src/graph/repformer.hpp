// One repformer layer on a tile of centres, and the way back through it.
#pragma once

#include "graph/pass.hpp"

namespace dpa2 {

template <class T>
class LayerForward : Pass<T> {
 public:
  explicit LayerForward(const Pass<T>& pass) : Pass<T>(pass) {}

  /// The layer's g1 of a tile, and the g2 and h2 of its edges for the next layer.
  void tile(int layer, const Tile<T>& tile, Arena& arena) const;
  /// The g2 (n, n2) of centre i before a layer, wherever they come from.
  const T* pairs(int layer, int i, Arena& arena) const;

 private:
  using Pass<T>::n_repformer;
  using Pass<T>::pad_repformer;
  using Pass<T>::edge_factors;
  using Pass<T>::dense;
  using typename Pass<T>::R;
  using Pass<T>::m_;
  using Pass<T>::k_;
  using Pass<T>::ws_;
  using Pass<T>::frame_;

  void update_pairs(int layer, int i, const T* g2, T* next, Arena& arena) const;
};

/// What the backward of the pair attention needs of its forward; null: not there, or not wanted.
template <class T>
struct PairAttentionTape {
  PairAttentionInput<T> in{};
  T *zh = nullptr, *inv_sigma = nullptr;  ///< of LayerNorm
  T* normal = nullptr;                    ///< (n, n2): its output
  T* update_h = nullptr;                  ///< (n, 3)
};

template <class T>
class LayerBackward : Pass<T> {
 public:
  explicit LayerBackward(const Pass<T>& pass) : Pass<T>(pass), forward_(pass) {}

  /// dnext (count, n1): gradient of the output of the layer; the sums of thread t += that of its input. The gradients of g2, h2 and
  /// the switch of the tile's edges turn from those after the layer into those before it. The last layer leaves g2 and h2 as they
  /// are: there drot (count, 3, n2) is the gradient of their vector moments, zero in the padding, or null: nothing depends on them.
  void tile(int layer, int t, const Tile<T>& tile, const T* dnext, const T* drot, Arena& arena) const;

 private:
  using Pass<T>::n_repformer;
  using Pass<T>::pad_repformer;
  using Pass<T>::kappa_n;
  using Pass<T>::dense_gradient;
  using Pass<T>::gradients;
  using Pass<T>::kappa_h;
  using Pass<T>::edge_factors;
  using Pass<T>::dense;
  using typename Pass<T>::R;
  using Pass<T>::m_;
  using Pass<T>::k_;
  using Pass<T>::ws_;
  using Pass<T>::frame_;

  void pairs(int layer, int t, int i, const T* g2, Arena& arena) const;
  PairAttentionTape<T> pair_attention(int layer, int i, const T* g2, const LayerGradients<R>* g, Arena& arena) const;
  void pair_attention_backward(int layer, int i, const PairAttentionTape<T>& tape, T* dz, LayerGradients<R>* g, Arena& arena) const;

  LayerForward<T> forward_;
};

extern template class LayerForward<double>;
extern template class LayerForward<float>;
extern template class LayerForward<Dual<double>>;
extern template class LayerForward<Dual<float>>;
extern template class LayerBackward<double>;
extern template class LayerBackward<float>;
extern template class LayerBackward<Dual<double>>;
extern template class LayerBackward<Dual<float>>;

}  // namespace dpa2
