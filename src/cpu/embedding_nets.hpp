// Embedding networks of which every combination of types has one of its own: those of se_e2_a (theory 16.2).
#pragma once

#include "cpu/embedding_net.hpp"

namespace dpa2 {

/// Lane layout as in embedding_net.hpp; combination (m): the number of an edge's network. Edges of one network that follow each other
/// go through it together. The networks have one width, and none of them is typed.
template <class T, class Isa>
struct EmbeddingNets {
  /// y (out, m) =
  static void forward(const EmbeddingNet<Real<T>>* nets, int m, T* y, const T* s, const int* combination, Arena& arena);
  /// ds (m) = the gradient with respect to s, given dy (out, m)
  static void backward(const EmbeddingNet<Real<T>>* nets, int m, T* ds, const T* dy, const T* s, const int* combination, Arena& arena);
};

}  // namespace dpa2
