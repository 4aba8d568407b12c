// The embedding networks of repinit and of the three-body block: functions of one scalar per edge (or pair) and of types.
#pragma once

#include "cpu/activation.hpp"
#include "cpu/arena.hpp"

namespace dpa2 {

inline constexpr int max_embedding_layers = 16;

/// One hidden layer, y = phi(x W + b) * idt + skip (theory 4.1).
template <class T>
struct EmbeddingLayer {
  int in = 0, out = 0;
  const T* w = nullptr;    ///< (in, out)
  const T* wt = nullptr;   ///< (out, in)
  const T* b = nullptr;    ///< (out)
  const T* idt = nullptr;  ///< (out) or null
  int skip = 0;            ///< 0 none, 1 y += x, 2 y += [x, x]
};

/// The first layer sees [s, type embeddings]: everything but s is a row of a table, one per combination of types (theory S4).
template <class T>
struct EmbeddingNet {
  int nlayers = 0;
  const EmbeddingLayer<T>* layers = nullptr;
  bool typed = false;            ///< false: the tables have one row, whatever the types (strip mode)
  const T* w_scalar = nullptr;   ///< (out0): weights of s in the first layer
  const T* type_term = nullptr;  ///< (ncombination, out0): bias plus the types' share of the first layer
  const T* type_skip = nullptr;  ///< (ncombination, in0): the first layer's input without s, when it has a skip
  ActivationSpec<T> act;
};

/// What the forward keeps for the backward: y[l], dphi[l] (with idt) and phi[l] (without it) of every layer, each (out_l, m).
template <class T>
struct EmbeddingTape {
  T* y[max_embedding_layers];
  T* dphi[max_embedding_layers];
  T* phi[max_embedding_layers];  ///< only with `grad`, of layers with an idt
};

/// The gradients of a network's weights, rows padded to 64 bytes; null: not wanted.
template <class R>
struct EmbeddingGradient {
  R* w[max_embedding_layers] = {};    ///< (in, out), of all layers but the first
  R* b[max_embedding_layers] = {};    ///< (out), likewise
  R* idt[max_embedding_layers] = {};  ///< (out), of layers that have one
  R* w_scalar = nullptr;              ///< (out0)
  R* type_term = nullptr;             ///< (ncombination or 1, out0)
  R* type_skip = nullptr;             ///< (ncombination, in0), without its first column; of networks that have it
};

/// Lane layout [channel][m]: edges or pairs on the lanes, m a multiple of 64 bytes, so that layers of any width fill the vectors.
template <class T, class Isa>
struct EmbeddingNetOp {
  /// Takes the buffers of a tape from the arena (what the backward needs only with `grad`).
  static void layout(const EmbeddingNet<Real<T>>& net, int m, bool grad, Arena& arena, EmbeddingTape<T>& tape);
  /// tape.y[last] (out, m) = net(s, types); s (m), combination (m): rows of the type tables
  static void forward(const EmbeddingNet<Real<T>>& net, int m, EmbeddingTape<T>& tape, bool grad, const T* s, const int* combination);
  /// ds (m) = gradient with respect to s unless null, g += those of the weights unless null, given dy (out, m); s and combination as in
  /// the forward. For g, lanes that hold no edge have dy of zero and a finite s. Scratch from the arena.
  static void backward(const EmbeddingNet<Real<T>>& net, int m, T* ds, const EmbeddingGradient<Real<T>>* g, const T* dy,
                       const EmbeddingTape<T>& tape, const T* s, const int* combination, Arena& arena);
};

}  // namespace dpa2
