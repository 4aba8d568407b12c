#include "cpu/embedding_net.hpp"

#include "cpu/linear.hpp"
#include "cpu/simd.hpp"
#include "cpu/skip.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

namespace {

/// Applies the activation to z, which stands in y, and the optional time step of every channel; phi keeps what it is without that.
template <class T, class Isa>
void finish_layer(const EmbeddingLayer<Real<T>>& layer, const ActivationSpec<Real<T>>& act, int m, T* y, T* dphi, T* phi) {
  const long n = static_cast<long>(layer.out) * m;
  T* const value = phi != nullptr ? phi : y;
  if (dphi != nullptr)
    Activate<T, Isa>::forward_grad(act, n, value, dphi, y);
  else
    Activate<T, Isa>::forward(act, n, value, y);
  if (layer.idt == nullptr) return;
  for (int o = 0; o < layer.out; ++o) {
    const Vec<Real<T>> f = splat<Real<T>>(layer.idt[o]);
    const long row = static_cast<long>(o) * m;
    for (int e = 0; e < m; e += width<T>) {
      store<T>(y + row + e, load<T>(value + row + e) * f);
      if (dphi != nullptr) store<T>(dphi + row + e, load<T>(dphi + row + e) * f);
    }
  }
}

/// to (m, ld) = the transpose of rows (n, m), with zeros from column n on; m and ld are padded.
template <class T>
void transpose_rows(int n, int m, T* to, int ld, const T* rows) {
  for (int o = 0; o < ld; o += width<T>)
    for (int e = 0; e < m; e += width<T>) {
      Vec<T> x[width<T>];
#pragma GCC unroll 16
      for (int i = 0; i < width<T>; ++i) x[i] = o + i < n ? load<T>(rows + static_cast<long>(o + i) * m + e) : Vec<T>{};
      simd::transpose<T>(x);
#pragma GCC unroll 16
      for (int i = 0; i < width<T>; ++i) store<T>(to + static_cast<long>(e + i) * ld + o, x[i]);
    }
}

/// The weights of layer l, given dy and dz (out, m); `dzt` is room for dz with the channels on the lanes.
template <class T, class Isa>
void layer_gradient(const EmbeddingNet<Real<T>>& net, int l, int m, const EmbeddingGradient<Real<T>>& g, const T* dy, const T* dz,
                    const EmbeddingTape<T>& tape, const T* s, const int* combination, T* dzt) {
  using R = Real<T>;
  const EmbeddingLayer<R>& layer = net.layers[l];
  const int out = padded<T>(layer.out);
  if (layer.idt != nullptr && g.idt[l] != nullptr)
    for (int o = 0; o < layer.out; ++o) {
      Vec<T> acc{};
      for (int e = 0; e < m; e += width<T>) {
        const long k = static_cast<long>(o) * m + e;
        acc += load<T>(dy + k) * load<T>(tape.phi[l] + k);
      }
      g.idt[l][o] += math::gradient_of(sum<T>(acc));
    }
  transpose_rows(layer.out, m, dzt, out, dz);
  if (l > 0) {
    if (g.w[l] != nullptr) Linear<T, Isa>::gradient(layer.in, out, m, g.w[l], out, tape.y[l - 1], m, 1, dzt, out, simd::pad<T>);
    if (g.b[l] != nullptr) Linear<T, Isa>::bias_gradient(out, m, g.b[l], dzt, out);
    return;
  }
  if (g.w_scalar != nullptr) Linear<T, Isa>::gradient(1, out, m, g.w_scalar, out, s, m, 1, dzt, out, simd::pad<T>);
  if (g.type_term != nullptr && !net.typed) Linear<T, Isa>::bias_gradient(out, m, g.type_term, dzt, out);
  if (g.type_term != nullptr && net.typed)
    for (int e = 0; e < m; ++e)
      Linear<T, Isa>::bias_gradient(out, 1, g.type_term + static_cast<long>(combination[e]) * out, dzt + static_cast<long>(e) * out, out);
  if (g.type_skip == nullptr) return;
  const int in = padded<T>(layer.in);
  for (int half = 0; half < layer.skip; ++half)
    for (int i = 1; i < layer.in; ++i) {
      const T* row = dy + (static_cast<long>(half) * layer.in + i) * m;
      for (int e = 0; e < m; ++e) g.type_skip[static_cast<long>(combination[e]) * in + i] += math::gradient_of(row[e]);
    }
}

}  // namespace

template <class T, class Isa>
void EmbeddingNetOp<T, Isa>::layout(const EmbeddingNet<Real<T>>& net, int m, bool grad, Arena& arena, EmbeddingTape<T>& tape) {
  for (int l = 0; l < net.nlayers; ++l) {
    const long n = static_cast<long>(net.layers[l].out) * m;
    tape.y[l] = arena.take<T>(n);
    tape.dphi[l] = grad ? arena.take<T>(n) : nullptr;
    tape.phi[l] = grad && net.layers[l].idt != nullptr ? arena.take<T>(n) : nullptr;
  }
}

template <class T, class Isa>
void EmbeddingNetOp<T, Isa>::forward(const EmbeddingNet<Real<T>>& net, int m, EmbeddingTape<T>& tape, bool grad, const T* s,
                                     const int* combination) {
  using R = Real<T>;
  for (int l = 0; l < net.nlayers; ++l) {
    const EmbeddingLayer<R>& layer = net.layers[l];
    T* y = tape.y[l];
    if (l == 0) {
      for (int o = 0; o < layer.out; ++o) {
        T* row = y + static_cast<long>(o) * m;
        const R* term = net.type_term + o;
        if (net.typed) {
          for (int e = 0; e < m; ++e) row[e] = s[e] * net.w_scalar[o] + term[static_cast<long>(combination[e]) * layer.out];
        } else {
          const Vec<R> w = splat<R>(net.w_scalar[o]), b = splat<R>(*term);
          for (int e = 0; e < m; e += width<T>) store<T>(row + e, load<T>(s + e) * w + b);
        }
      }
    } else {
      for (int o = 0; o < layer.out; ++o) {
        const Vec<T> b = splat<T>(T(layer.b[o]));
        for (int e = 0; e < m; e += width<T>) store<T>(y + static_cast<long>(o) * m + e, b);
      }
      Linear<T, Isa>::run(layer.out, m, layer.in, y, m, layer.w, 1, layer.out, tape.y[l - 1], m, simd::pad<T>, nullptr, true);
    }
    finish_layer<T, Isa>(layer, net.act, m, y, grad ? tape.dphi[l] : nullptr, grad ? tape.phi[l] : nullptr);
    if (layer.skip == 0) continue;
    if (l > 0) {
      add_skip(layer.skip, 1, static_cast<long>(layer.in) * m, y, 0, tape.y[l - 1], 0);
      continue;
    }
    for (int half = 0; half < layer.skip; ++half) {
      T* yh = y + static_cast<long>(half) * layer.in * m;
      for (int e = 0; e < m; ++e) yh[e] += s[e];
      for (int i = 1; i < layer.in; ++i)
        for (int e = 0; e < m; ++e) yh[static_cast<long>(i) * m + e] += net.type_skip[static_cast<long>(combination[e]) * layer.in + i];
    }
  }
}

template <class T, class Isa>
void EmbeddingNetOp<T, Isa>::backward(const EmbeddingNet<Real<T>>& net, int m, T* ds, const EmbeddingGradient<Real<T>>* g, const T* dy,
                                      const EmbeddingTape<T>& tape, const T* s, const int* combination, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  int widest = 0;
  for (int l = 0; l < net.nlayers; ++l) widest = net.layers[l].out > widest ? net.layers[l].out : widest;
  T* dz = arena.take<T>(static_cast<long>(widest) * m);
  T* dx[2] = {arena.take<T>(static_cast<long>(widest) * m), arena.take<T>(static_cast<long>(widest) * m)};
  T* dzt = g != nullptr ? arena.take<T>(static_cast<long>(padded<T>(widest)) * m) : nullptr;
  for (int l = net.nlayers - 1; l >= 0; --l) {
    const EmbeddingLayer<Real<T>>& layer = net.layers[l];
    Activate<T, Isa>::backward(static_cast<long>(layer.out) * m, dz, dy, tape.dphi[l]);
    if (g != nullptr) layer_gradient<T, Isa>(net, l, m, *g, dy, dz, tape, s, combination, dzt);
    if (l > 0) {
      T* other = dx[l & 1];
      Linear<T, Isa>::run(layer.in, m, layer.out, other, m, layer.wt, 1, layer.in, dz, m, simd::pad<T>, nullptr, false);
      add_skip_backward(layer.skip, 1, static_cast<long>(layer.in) * m, other, 0, dy, 0);
      dy = other;
      continue;
    }
    for (int e = 0; ds != nullptr && e < m; e += width<T>) {
      Vec<T> acc{};
      for (int o = 0; o < layer.out; ++o) acc += load<T>(dz + static_cast<long>(o) * m + e) * net.w_scalar[o];
      for (int half = 0; half < layer.skip; ++half) acc += load<T>(dy + static_cast<long>(half) * layer.in * m + e);
      store<T>(ds + e, acc);
    }
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(EmbeddingNetOp)
DPA2_INSTANTIATE_DUAL(EmbeddingNetOp)

}  // namespace dpa2
