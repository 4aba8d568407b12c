#include "cpu/fitting.hpp"

#include "cpu/simd.hpp"
#include "cpu/skip.hpp"

namespace dpa2 {

using simd::load;
using simd::pad;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

template <class T, class Isa>
void Fitting<T, Isa>::run(const FittingParams<T>& p, int m, T* y, T* dx, const T* dy, const T* x, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  const T* h[max_fitting_layers + 1];
  T* dphi[max_fitting_layers];
  h[0] = x;
  int widest = p.in;
  for (int l = 0; l < p.nlayers; ++l) {
    const FittingLayer<T>& layer = p.layers[l];
    const int n = layer.w.n, k = layer.w.k;
    const long size = static_cast<long>(m) * n;
    widest = n > widest ? n : widest;
    T* out = arena.take<T>(size);
    dphi[l] = arena.take<T>(size);
    Linear<T, Isa>::run(m, n, k, out, n, h[l], k, 1, layer.w.data, pad<T>, static_cast<long>(k) * pad<T>, layer.b, false);
    Activate<T, Isa>::forward_grad(p.act, size, out, dphi[l], out);
    if (layer.idt != nullptr)
      for (int i = 0; i < m; ++i)
        for (int c = 0; c < n; c += width<T>) {
          const Vec<T> f = load<T>(layer.idt + c);
          const long at = static_cast<long>(i) * n + c;
          store<T>(out + at, load<T>(out + at) * f);
          store<T>(dphi[l] + at, load<T>(dphi[l] + at) * f);
        }
    add_skip(layer.skip, m, layer.in, out, n, h[l], k);  // the copies follow each other without padding
    h[l + 1] = out;
  }
  const int last = p.nlayers > 0 ? p.layers[p.nlayers - 1].w.n : p.in;
  if (p.stride > 1) {
    Linear<T, Isa>::run(m, p.stride, last, y, p.stride, h[p.nlayers], last, 1, p.out.data, pad<T>, static_cast<long>(last) * pad<T>,
                        p.out_b, false);
  } else {
    for (int i = 0; i < m; ++i) {
      Vec<T> acc{};
      for (int c = 0; c < last; c += width<T>) acc += load<T>(h[p.nlayers] + static_cast<long>(i) * last + c) * load<T>(p.w_out + c);
      y[i] = sum<T>(acc) + p.b_out;
    }
  }
  if (dx != nullptr) {
    T* dh = arena.take<T>(static_cast<long>(m) * widest);
    T* other = arena.take<T>(static_cast<long>(m) * widest);
    if (p.stride > 1) {
      Linear<T, Isa>::run(m, last, p.stride, dh, last, dy, p.stride, 1, p.out_t.data, pad<T>, static_cast<long>(p.stride) * pad<T>, nullptr,
                          false);
    } else {
      for (int i = 0; i < m; ++i)
        for (int c = 0; c < last; c += width<T>) {
          const Vec<T> w = load<T>(p.w_out + c);
          store<T>(dh + static_cast<long>(i) * last + c, dy != nullptr ? w * dy[i] : w);
        }
    }
    for (int l = p.nlayers - 1; l >= 0; --l) {
      const FittingLayer<T>& layer = p.layers[l];
      const int n = layer.w.n, k = layer.w.k;
      T* dz = dphi[l];
      Activate<T, Isa>::backward(static_cast<long>(m) * n, dz, dh, dphi[l]);
      T* out = l > 0 ? other : dx;
      Linear<T, Isa>::run(m, k, n, out, k, dz, n, 1, layer.wt.data, pad<T>, static_cast<long>(n) * pad<T>, nullptr, false);
      add_skip_backward(layer.skip, m, layer.in, out, k, dh, n);
      other = dh;
      dh = out;
    }
    if (p.nlayers == 0)
      for (long i = 0; i < static_cast<long>(m) * p.in; ++i) dx[i] = dh[i];
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(Fitting)

}  // namespace dpa2
