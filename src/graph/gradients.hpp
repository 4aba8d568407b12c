// The gradients of a loss with respect to the folded tensors, as the kernels of one thread add them up (theory 15).
#pragma once

#include <cstddef>
#include <vector>

#include "graph/buffer.hpp"
#include "graph/prepared.hpp"

namespace dpa2 {

/// One layer of the repformer: every array has the shape of its weight in LayerParams, row-major. Null: the layer does not have it.
template <class R>
struct LayerGradients {
  R *w1 = nullptr, *b1 = nullptr, *self = nullptr, *self_b = nullptr, *P = nullptr;
  R *att_q = nullptr, *att_o = nullptr, *att_b = nullptr, *w2 = nullptr, *b2 = nullptr, *gg = nullptr;
  PairAttentionGradient<R> pair{};
  R *ln_gain = nullptr, *ln_bias = nullptr;
  // Vectors of the residual updates; null where they are constants of the update style.
  R *res1[max_residual_terms] = {}, *res2[max_residual_terms] = {};
  R* h2_r = nullptr;
};

/// The fitting network, and the type embedding that it sees.
template <class R>
struct HeadGradient {
  FittingGradient<R> fitting{};
  R* tebd = nullptr;  ///< (ntypes, padded tebd_dim), or null
};

template <class R>
class Gradients {
 public:
  /// `model` must outlive this; its series are made for training, and it has no other tables.
  Gradients(const Config& config, const Prepared<R>& model);

  void clear() { memory_.zeros(size_); }
  /// Adds what another thread has.
  void add(const Gradients& other);
  /// What the embeddings of padded slots give the network that they come from; once, when all is added up.
  void finish_padding();
  /// Whether this was made for tables of the model's sizes as they are now.
  [[nodiscard]] bool fits() const {
    return repinit_intervals_ == intervals(m_.repinit.table) && three_intervals_ == intervals(m_.three.table);
  }
  /// In the shapes of the folded tensors, without padding; what has no gradient is empty. The coefficients of series are gone back
  /// to the networks that they come from.
  [[nodiscard]] Folded folded(int threads) const;
  [[nodiscard]] std::size_t bytes() const noexcept { return memory_.bytes(); }

  RepinitGradient<R> repinit{};
  R* pad_G = nullptr;  ///< (ntypes, ntypes, padded ng): of Prepared::pad_G, or null
  ThreeBodyGradient<R> three{};
  R *shape = nullptr, *tebd_term = nullptr, *g2_w = nullptr, *g2_b = nullptr;
  std::vector<LayerGradients<R>> layers;
  HeadGradient<R> head;

 private:
  struct Place {
    R** pointer;
    std::size_t at;
  };
  static int intervals(const SeriesTable<R>* table) { return table != nullptr ? table->nintervals : 0; }
  void want(R*& pointer, long rows, int columns);

  const Config& config_;
  const Prepared<R>& m_;
  std::vector<Place> places_;
  int repinit_intervals_, three_intervals_;
  std::size_t size_ = 0;
  Buffer<R> memory_;
};

extern template class Gradients<double>;
extern template class Gradients<float>;

}  // namespace dpa2
