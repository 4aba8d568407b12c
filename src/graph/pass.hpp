// What the parts of the descriptor know of the frame that they work on.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "graph/frame.hpp"
#include "graph/gradients.hpp"
#include "graph/workspace.hpp"
#include "math/normalisation.hpp"

namespace dpa2 {

/// What a layer has made of its centres, of which the gradients of its weights are made.
template <class T>
struct NodeTerms {
  T *cat = nullptr, *o = nullptr;                                                ///< (count, ncat), (count, nh1 n1): inputs of products
  T *self = nullptr, *conv = nullptr, *linear1 = nullptr, *attention = nullptr;  ///< (count, n1): the updates of g1
};

/// Rows of a tile of centres that a layer passes on.
template <class T>
struct Tile {
  int i0 = 0, i1 = 0;
  T* g1 = nullptr;         ///< (count, n1): the output of the layer
  T* dphi_lin = nullptr;   ///< (count, n1): derivative of linear1's activation, or null without a backward
  T* dphi_self = nullptr;  ///< (count, n1): that of the self MLP, or null: computed again in the backward
  NodeTerms<T> kept;       ///< where the layer's terms go to if they are kept, or null
  T* rot = nullptr;        ///< (count, 3, n2): the vector moments of g2 before the layer, or null: not wanted
  int count() const noexcept { return i1 - i0; }
};

/// The gradients of the weights on every thread; null where none are wanted.
template <class T>
using ThreadGradients = std::vector<std::unique_ptr<Gradients<Real<T>>>>;

template <class T>
class Pass {
 public:
  using R = Real<T>;
  Pass(const Prepared<R>& model, Workspace<T>& workspace, const Frame& frame, const ThreadGradients<T>* gradients = nullptr)
      : m_(model), k_(kernels<T>()), ws_(workspace), frame_(&frame), gradients_(gradients) {}

 protected:
  int type(int row) const { return frame_->types[row] < 0 ? 0 : frame_->types[row]; }
  int n_repformer(int i) const { return frame_->edges->n_repformer[static_cast<std::size_t>(i)]; }
  /// Padded slots of a centre with n neighbours, where they count.
  R pad_repformer(int n) const { return m_.smooth ? static_cast<R>(m_.nsel_repformer - n) : R(0); }
  R kappa_n(int n) const { return normalisation().conv(n); }
  R kappa_h(int n) const { return normalisation().moment(n); }
  /// Per edge: s (n) = kappa_n w, the weight in the convolution; f (n, 3) = kappa_h w h2, the weight in the moments.
  void edge_factors(int i, T* s, T* f, const T* h2) const {
    const int n = n_repformer(i);
    const T* w = ws_.w.data() + ws_.start_repformer.data()[i];
    const R kn = kappa_n(n), kh = kappa_h(n);
    for (int e = 0; e < n; ++e) {
      s[e] = kn * w[e];
      for (int x = 0; x < 3; ++x) f[3 * e + x] = kh * w[e] * h2[3 * e + x];
    }
  }
  void dense(int n, T* y, const T* x, long ldx, const Packed<R>& w, const R* bias, bool accumulate) const {
    constexpr int panel = padded<T>(1);
    k_.linear(n, w.n, w.k, y, w.n, x, ldx, 1, w.data, panel, static_cast<long>(w.k) * panel, bias, accumulate);
  }
  /// The gradients of a dense layer's weights, dw += x^T dy and, unless null, db, given n rows of what it has seen and of dy.
  void dense_gradient(int n, const Packed<R>& w, R* dw, R* db, const T* x, long ldx, const T* dy) const {
    constexpr int panel = padded<T>(1);
    k_.weight_gradient(w.k, w.n, n, dw, w.n, x, 1, ldx, dy, w.n, panel);
    if (db != nullptr) k_.bias_gradient(w.n, n, db, dy, w.n);
  }
  /// Those of thread t, or null.
  Gradients<R>* gradients(int t) const { return gradients_ != nullptr ? (*gradients_)[static_cast<std::size_t>(t)].get() : nullptr; }

  struct Sqrt {
    static R sqrt(R x) { return std::sqrt(x); }
  };
  math::Normalisation<Sqrt, R> normalisation() const { return {m_.nsel_repformer, m_.smooth, m_.use_sqrt_nnei}; }

  const Prepared<R>& m_;
  const Kernels<T>& k_;
  Workspace<T>& ws_;
  const Frame* frame_;
  const ThreadGradients<T>* gradients_;
};

}  // namespace dpa2
