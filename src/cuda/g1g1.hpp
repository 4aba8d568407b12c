// The product of both ends' g1 as an update of g2: arguments of g1g1.cu.
#pragma once

#include "cuda/edge_tile.hpp"

namespace dpa2::cuda {

/// A block of edge_threads per centre: U = (w_e g1_i * g1_j) W.
template <class T>
struct G1G1Args {
  const int* start;  // (centres + 1)
  const int* j;      // (capacity)
  const T* g1;       // (atoms, n1)
  const T* W;        // (n1, n2) padded to whole tiles
  const T* w;        // (capacity)
  T* U;              // (capacity, n2)
  int n1;
  int n2;
};
static_assert(sizeof(G1G1Args<float>) == 56 && sizeof(G1G1Args<double>) == 56, "host and kernel agree");

/// A block of edge_threads per centre. To the neighbours: gather.hpp, with dU as the numbers of the edges.
template <class T>
struct G1G1BackwardArgs {
  const int* start;
  const int* j;
  const T* g1;
  const T* Wt;  // (n2, n1) padded
  const T* w;
  const T* dU;  // (capacity, n2)
  T* dg1;       // (atoms, n1) += of the centre
  T* dw;        // (capacity) +=
  int n1;
  int n2;
};
static_assert(sizeof(G1G1BackwardArgs<float>) == 72 && sizeof(G1G1BackwardArgs<double>) == 72, "host and kernel agree");

}  // namespace dpa2::cuda
