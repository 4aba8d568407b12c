#include "cpu/embedding_net.hpp"

#include "cpu/linear.hpp"
#include "cpu/simd.hpp"
#include "cpu/skip.hpp"

namespace dpa2 {

using simd::load;
using simd::splat;
using simd::store;
using simd::Vec;
using simd::width;

namespace {

/// Applies the activation to z in place and the optional time step of every channel.
template <class T, class Isa>
void finish_layer(const EmbeddingLayer<T>& layer, const ActivationSpec<T>& act, int m, T* y, T* dphi) {
  const long n = static_cast<long>(layer.out) * m;
  if (dphi != nullptr)
    Activate<T, Isa>::forward_grad(act, n, y, dphi, y);
  else
    Activate<T, Isa>::forward(act, n, y, y);
  if (layer.idt == nullptr) return;
  for (int o = 0; o < layer.out; ++o) {
    const Vec<T> f = splat<T>(layer.idt[o]);
    for (int e = 0; e < m; e += width<T>) {
      T* p = y + static_cast<long>(o) * m + e;
      store<T>(p, load<T>(p) * f);
      if (dphi != nullptr) {
        T* q = dphi + static_cast<long>(o) * m + e;
        store<T>(q, load<T>(q) * f);
      }
    }
  }
}

}  // namespace

template <class T, class Isa>
void EmbeddingNetOp<T, Isa>::layout(const EmbeddingNet<T>& net, int m, bool grad, Arena& arena, EmbeddingTape<T>& tape) {
  for (int l = 0; l < net.nlayers; ++l) {
    const long n = static_cast<long>(net.layers[l].out) * m;
    tape.y[l] = arena.take<T>(n);
    tape.dphi[l] = grad ? arena.take<T>(n) : nullptr;
  }
}

template <class T, class Isa>
void EmbeddingNetOp<T, Isa>::forward(const EmbeddingNet<T>& net, int m, EmbeddingTape<T>& tape, bool grad, const T* s,
                                     const int* combination) {
  for (int l = 0; l < net.nlayers; ++l) {
    const EmbeddingLayer<T>& layer = net.layers[l];
    T* y = tape.y[l];
    if (l == 0) {
      for (int o = 0; o < layer.out; ++o) {
        T* row = y + static_cast<long>(o) * m;
        const T* term = net.type_term + o;
        if (net.typed) {
          for (int e = 0; e < m; ++e) row[e] = s[e] * net.w_scalar[o] + term[static_cast<long>(combination[e]) * layer.out];
        } else {
          const Vec<T> w = splat<T>(net.w_scalar[o]), b = splat<T>(*term);
          for (int e = 0; e < m; e += width<T>) store<T>(row + e, load<T>(s + e) * w + b);
        }
      }
    } else {
      for (int o = 0; o < layer.out; ++o) {
        const Vec<T> b = splat<T>(layer.b[o]);
        for (int e = 0; e < m; e += width<T>) store<T>(y + static_cast<long>(o) * m + e, b);
      }
      Linear<T, Isa>::run(layer.out, m, layer.in, y, m, layer.w, 1, layer.out, tape.y[l - 1], m, simd::pad<T>, nullptr, true);
    }
    finish_layer<T, Isa>(layer, net.act, m, y, grad ? tape.dphi[l] : nullptr);
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
void EmbeddingNetOp<T, Isa>::backward(const EmbeddingNet<T>& net, int m, T* ds, const T* dy, const EmbeddingTape<T>& tape, Arena& arena) {
  const Arena::Mark mark = arena.mark();
  int widest = 0;
  for (int l = 0; l < net.nlayers; ++l) widest = net.layers[l].out > widest ? net.layers[l].out : widest;
  T* dz = arena.take<T>(static_cast<long>(widest) * m);
  T* dx[2] = {arena.take<T>(static_cast<long>(widest) * m), arena.take<T>(static_cast<long>(widest) * m)};
  for (int l = net.nlayers - 1; l >= 0; --l) {
    const EmbeddingLayer<T>& layer = net.layers[l];
    Activate<T, Isa>::backward(static_cast<long>(layer.out) * m, dz, dy, tape.dphi[l]);
    if (l > 0) {
      T* other = dx[l & 1];
      Linear<T, Isa>::run(layer.in, m, layer.out, other, m, layer.wt, 1, layer.in, dz, m, simd::pad<T>, nullptr, false);
      add_skip_backward(layer.skip, 1, static_cast<long>(layer.in) * m, other, 0, dy, 0);
      dy = other;
      continue;
    }
    for (int e = 0; e < m; e += width<T>) {
      Vec<T> acc{};
      for (int o = 0; o < layer.out; ++o) acc += load<T>(dz + static_cast<long>(o) * m + e) * net.w_scalar[o];
      for (int half = 0; half < layer.skip; ++half) acc += load<T>(dy + static_cast<long>(half) * layer.in * m + e);
      store<T>(ds + e, acc);
    }
  }
  arena.release(mark);
}

DPA2_INSTANTIATE(EmbeddingNetOp)

}  // namespace dpa2
