#include "cpu/fitting.hpp"

#include <type_traits>

#include "cpu/simd_wide.hpp"
#include "cpu/skip.hpp"

namespace dpa2 {

using simd::load;
using simd::load_wide;
using simd::pad;
using simd::splat;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

/// y (m, stride) = the last layer, on rows h (m, last) of the last hidden one.
template <class T, class Isa>
void output(const FittingParams<Real<T>>& p, int m, Sum<T>* y, const T* h, int last, Arena& arena) {
  if constexpr (!std::is_same_v<T, Sum<T>>) {
    using A = Sum<T>;
    for (int i = 0; i < m && p.sum_w != nullptr; ++i) {
      const T* row = h + static_cast<long>(i) * last;
      A* out = y + static_cast<long>(i) * p.stride;
      if (p.stride == 1) {
        Vec<A> acc{};
        for (int k = 0; k < last; k += width<A>) acc += load_wide<T>(row + k) * load<A>(p.sum_w + k);
        *out = sum<A>(acc) + *p.sum_b;
      }
      for (int c = 0; p.stride > 1 && c < p.stride; c += width<A>) {
        Vec<A> acc = load<A>(p.sum_b + c);
        for (int k = 0; k < last; ++k) acc += static_cast<A>(row[k]) * load<A>(p.sum_w + static_cast<long>(k) * p.stride + c);
        store<A>(out + c, acc);
      }
    }
    if (p.sum_w != nullptr) return;
  }
  const long size = static_cast<long>(m) * p.stride;
  const Arena::Mark mark = arena.mark();
  T* z = nullptr;
  if constexpr (std::is_same_v<T, Sum<T>>)
    z = y;
  else
    z = arena.take<T>(size);
  if (p.stride > 1) {
    Linear<T, Isa>::run(m, p.stride, last, z, p.stride, h, last, 1, p.out.data, pad<T>, static_cast<long>(last) * pad<T>, p.out_b, false);
  } else {
    for (int i = 0; i < m; ++i) {
      Vec<T> acc{};
      for (int c = 0; c < last; c += width<T>) acc += load<T>(h + static_cast<long>(i) * last + c) * load<Real<T>>(p.w_out + c);
      z[i] = sum<T>(acc) + p.b_out;
    }
  }
  if constexpr (!std::is_same_v<T, Sum<T>>)
    for (long i = 0; i < size; ++i) y[i] = z[i];
  arena.release(mark);
}

/// The gradients of its weights.
template <class T, class Isa>
void output_gradient(const FittingParams<Real<T>>& p, int m, const FittingGradient<Real<T>>& g, const T* dy, const T* h, int last) {
  using R = Real<T>;
  if (p.stride > 1) {
    const int rows = p.nlayers > 0 ? p.layers[p.nlayers - 1].out : last;
    if (g.out != nullptr) Linear<T, Isa>::gradient(rows, p.stride, m, g.out, p.stride, h, 1, last, dy, p.stride, pad<T>);
    if (g.out_b != nullptr) Linear<T, Isa>::bias_gradient(p.stride, m, g.out_b, dy, p.stride);
    return;
  }
  if (g.out != nullptr) {
    if (dy != nullptr)
      Linear<T, Isa>::gradient(1, last, m, g.out, last, dy, m, 1, h, last, pad<T>);
    else
      Linear<T, Isa>::bias_gradient(last, m, g.out, h, last);
  }
  if (g.out_b != nullptr) {
    R total = 0;
    for (int i = 0; i < m; ++i) total += math::gradient_of(dy != nullptr ? dy[i] : T(1));
    *g.out_b += total;
  }
}

/// A hidden layer, given dh and dz (m, n), on rows x (m, k).
template <class T, class Isa>
void layer_gradient(const FittingLayer<Real<T>>& layer, int m, Real<T>* w, Real<T>* b, Real<T>* idt, const T* dh, const T* dz, const T* phi,
                    const T* x) {
  const int n = layer.w.n, k = layer.w.k;
  if (w != nullptr) Linear<T, Isa>::gradient(layer.in, n, m, w, n, x, 1, k, dz, n, pad<T>);
  if (b != nullptr) Linear<T, Isa>::bias_gradient(n, m, b, dz, n);
  if (layer.idt != nullptr && idt != nullptr) Linear<T, Isa>::gain_gradient(n, m, idt, dh, n, phi, n);
}

}  // namespace

template <class T, class Isa>
void Fitting<T, Isa>::run(const FittingParams<Real<T>>& p, int m, Sum<T>* y, T* dx, const FittingGradient<Real<T>>* g, const T* dy,
                          const T* x, Arena& arena) {
  using R = Real<T>;
  const Arena::Mark mark = arena.mark();
  const T* h[max_fitting_layers + 1];
  T* dphi[max_fitting_layers];
  T* phi[max_fitting_layers];  // without idt, where its gradient is wanted
  h[0] = x;
  int widest = p.in;
  for (int l = 0; l < p.nlayers; ++l) {
    const FittingLayer<R>& layer = p.layers[l];
    const int n = layer.w.n, k = layer.w.k;
    const long size = static_cast<long>(m) * n;
    widest = n > widest ? n : widest;
    T* out = arena.take<T>(size);
    dphi[l] = arena.take<T>(size);
    phi[l] = layer.idt != nullptr && g != nullptr && g->idt[l] != nullptr ? arena.take<T>(size) : out;
    Linear<T, Isa>::run(m, n, k, out, n, h[l], k, 1, layer.w.data, pad<T>, static_cast<long>(k) * pad<T>, layer.b, false);
    Activate<T, Isa>::forward_grad(p.act, size, phi[l], dphi[l], out);
    if (layer.idt != nullptr)
      for (int i = 0; i < m; ++i)
        for (int c = 0; c < n; c += width<T>) {
          const Vec<R> f = load<R>(layer.idt + c);
          const long at = static_cast<long>(i) * n + c;
          store<T>(out + at, load<T>(phi[l] + at) * f);
          store<T>(dphi[l] + at, load<T>(dphi[l] + at) * f);
        }
    add_skip(layer.skip, m, layer.in, out, n, h[l], k);  // the copies follow each other without padding
    h[l + 1] = out;
  }
  const int last = p.nlayers > 0 ? p.layers[p.nlayers - 1].w.n : p.in;
  output<T, Isa>(p, m, y, h[p.nlayers], last, arena);
  if (g != nullptr) output_gradient<T, Isa>(p, m, *g, dy, h[p.nlayers], last);
  if (dx != nullptr || g != nullptr) {
    T* dh = arena.take<T>(static_cast<long>(m) * widest);
    T* other = arena.take<T>(static_cast<long>(m) * widest);
    if (p.stride > 1) {
      Linear<T, Isa>::run(m, last, p.stride, dh, last, dy, p.stride, 1, p.out_t.data, pad<T>, static_cast<long>(p.stride) * pad<T>, nullptr,
                          false);
    } else {
      for (int i = 0; i < m; ++i)
        for (int c = 0; c < last; c += width<T>) {
          const Vec<T> seed = splat<T>(dy != nullptr ? dy[i] : T(1));
          store<T>(dh + static_cast<long>(i) * last + c, seed * load<R>(p.w_out + c));
        }
    }
    for (int l = p.nlayers - 1; l >= 0; --l) {
      const FittingLayer<R>& layer = p.layers[l];
      const int n = layer.w.n, k = layer.w.k;
      T* dz = dphi[l];
      Activate<T, Isa>::backward(static_cast<long>(m) * n, dz, dh, dphi[l]);
      if (g != nullptr) layer_gradient<T, Isa>(layer, m, g->w[l], g->b[l], g->idt[l], dh, dz, phi[l], h[l]);
      if (l == 0 && dx == nullptr) break;
      T* out = l > 0 ? other : dx;
      Linear<T, Isa>::run(m, k, n, out, k, dz, n, 1, layer.wt.data, pad<T>, static_cast<long>(n) * pad<T>, nullptr, false);
      add_skip_backward(layer.skip, m, layer.in, out, k, dh, n);
      other = dh;
      dh = out;
    }
    if (p.nlayers == 0 && dx != nullptr)
      for (long i = 0; i < static_cast<long>(m) * p.in; ++i) dx[i] = dh[i];
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(Fitting)
DPA2_INSTANTIATE_DUAL(Fitting)

}  // namespace dpa2
