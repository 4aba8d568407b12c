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

/// What the forward keeps for the backward: y[l] and dphi[l] (with idt) of every layer, each (out_l, m).
template <class T>
struct EmbeddingTape {
  T* y[max_embedding_layers];
  T* dphi[max_embedding_layers];
};

/// Lane layout [channel][m]: edges or pairs on the lanes, m a multiple of 64 bytes, so that layers of any width fill the vectors.
template <class T, class Isa>
struct EmbeddingNetOp {
  /// Takes the buffers of a tape from the arena (dphi only with `grad`).
  static void layout(const EmbeddingNet<T>& net, int m, bool grad, Arena& arena, EmbeddingTape<T>& tape);
  /// tape.y[last] (out, m) = net(s, types); s (m), combination (m): rows of the type tables
  static void forward(const EmbeddingNet<T>& net, int m, EmbeddingTape<T>& tape, bool grad, const T* s, const int* combination);
  /// ds (m) = gradient with respect to s, given dy (out, m); scratch from the arena
  static void backward(const EmbeddingNet<T>& net, int m, T* ds, const T* dy, const EmbeddingTape<T>& tape, Arena& arena);
};

}  // namespace dpa2
