// The attention of a centre to its neighbours: arguments of local_attention.cu.
#pragma once

#include "cuda/edge_tile.hpp"

namespace dpa2::cuda {

/// A block of edge_threads per centre. Not smooth: w is 1, shift and nsel are 0.
template <class T>
struct LocalAttentionArgs {
  const int* start;  // (centres + 1)
  const int* j;      // (capacity)
  const T* g1;       // (atoms, n1)
  const T* tq;       // (centres, nh * n1) queries, folded with keys
  const T* w;        // (capacity)
  T* o;              // (centres, nh * n1) sum_e P_he w_e g1_j
  T* largest;        // (centres, nh) logit
  T* inverse;        // (centres, nh) 1 / the sum of exponentials relative to it; 0 where there is nothing to attend to
  T* logit;          // (capacity, nh) room
  int n1;
  int nh;
  int nsel;
  T shift;  // of the logits
};
static_assert(sizeof(LocalAttentionArgs<float>) == 88 && sizeof(LocalAttentionArgs<double>) == 96, "host and kernel agree");

/// A block of edge_threads per centre. To the neighbours: gather.hpp, from room, tq and dout.
template <class T>
struct LocalAttentionBackwardArgs {
  const int* start;
  const int* j;
  const T* g1;
  const T* tq;
  const T* w;
  const T* dout;     // (centres, nh * n1) the gradient of o
  const T* largest;  // of the forward pass
  const T* inverse;
  T* dtq;   // (centres, nh * n1) =
  T* dw;    // (capacity) +=
  T* room;  // (capacity, nh, 2) = what comes from each edge for its neighbour: gradient of the score, probability times w
  int n1;
  int nh;
  T shift;
};
static_assert(sizeof(LocalAttentionBackwardArgs<float>) == 104 && sizeof(LocalAttentionBackwardArgs<double>) == 104,
              "host and kernel agree");

}  // namespace dpa2::cuda
