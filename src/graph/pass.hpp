// What the parts of the descriptor know of the frame that they work on.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "graph/frame.hpp"
#include "graph/prepared.hpp"
#include "graph/workspace.hpp"
#include "math/normalisation.hpp"

namespace dpa2 {

/// Rows of a tile of centres that a layer passes on.
template <class T>
struct Tile {
  int i0 = 0, i1 = 0;
  T* g1 = nullptr;         ///< (count, n1): the output of the layer
  T* dphi_lin = nullptr;   ///< (count, n1): derivative of linear1's activation, or null without a backward
  T* dphi_self = nullptr;  ///< (count, n1): that of the self MLP, or null: computed again in the backward
  T* rot = nullptr;        ///< (count, 3, n2): the vector moments of g2 before the layer, or null: not wanted
  int count() const noexcept { return i1 - i0; }
};

template <class T>
class Pass {
 public:
  Pass(const Prepared<T>& model, Workspace<T>& workspace, const Frame& frame)
      : m_(model), k_(model.kernels), ws_(workspace), frame_(&frame) {}

 protected:
  int type(int row) const { return frame_->types[row] < 0 ? 0 : frame_->types[row]; }
  int n_repformer(int i) const { return frame_->edges->n_repformer[static_cast<std::size_t>(i)]; }
  /// Padded slots of a centre with n neighbours, where they count.
  T pad_repformer(int n) const { return m_.smooth ? static_cast<T>(m_.nsel_repformer - n) : T(0); }
  T kappa_n(int n) const { return normalisation().conv(n); }
  T kappa_h(int n) const { return normalisation().moment(n); }
  /// Per edge: s (n) = kappa_n w, the weight in the convolution; f (n, 3) = kappa_h w h2, the weight in the moments.
  void edge_factors(int i, T* s, T* f, const T* h2) const {
    const int n = n_repformer(i);
    const T* w = ws_.w.data() + ws_.start_repformer.data()[i];
    const T kn = kappa_n(n), kh = kappa_h(n);
    for (int e = 0; e < n; ++e) {
      s[e] = kn * w[e];
      for (int x = 0; x < 3; ++x) f[3 * e + x] = kh * w[e] * h2[3 * e + x];
    }
  }
  void dense(int n, T* y, const T* x, long ldx, const Packed<T>& w, const T* bias, bool accumulate) const {
    constexpr int panel = padded<T>(1);
    k_.linear(n, w.n, w.k, y, w.n, x, ldx, 1, w.data, panel, static_cast<long>(w.k) * panel, bias, accumulate);
  }

  struct Sqrt {
    static T sqrt(T x) { return std::sqrt(x); }
  };
  math::Normalisation<Sqrt, T> normalisation() const { return {m_.nsel_repformer, m_.smooth, m_.use_sqrt_nnei}; }

  const Prepared<T>& m_;
  const Kernels<T>& k_;
  Workspace<T>& ws_;
  const Frame* frame_;
};

}  // namespace dpa2
