// What passes from the neighbours to a centre in one layer of the repformer, and back: arguments of messages.cu.
#pragma once

#include "cuda/edge_tile.hpp"

namespace dpa2::cuda {

/// A block of edge_threads per centre. Terms that a layer does not have are null; matrices are padded to whole tiles.
template <class T>
struct MessagesArgs {
  const int* start;  // (centres + 1)
  const int* j;      // (capacity)
  const T* g1;       // (atoms, n1)
  const T* g2;       // (capacity, n2)
  const T* h2;       // (capacity, 3)
  const T* w;        // (capacity)
  const T* P;        // (n2, n1) padded: the convolution projects g2
  const T* node;     // (atoms, n2) g1 P: the convolution projects g1
  T* conv;           // (centres, n1) with P
  T* cat;            // (centres, cat_width), or null: no Gram products
  T* grrg;           // (centres, 3, n2) moments of g2
  T* drrd;           // (centres, 3, n1) moments of the neighbours' g1
  int n1;
  int n2;
  int axis;
  int cat_width;
  int cat_conv;  // first columns in a row of cat; -1: not there
  int cat_grrg;
  int cat_drrd;
  int nsel;  // math::Normalisation
  int smooth;
  int root;
};
static_assert(sizeof(MessagesArgs<float>) == 136 && sizeof(MessagesArgs<double>) == 136, "host and kernel agree");

/// A block of edge_threads per centre. What flows back is set where `fresh`, else added to. To the neighbours: gather.hpp, from ddrrd,
/// dout and dcat.
template <class T>
struct MessagesBackwardArgs {
  const int* start;  // (centres + 1)
  const int* j;      // (capacity)
  const T* g1;       // (atoms, n1)
  const T* g2;       // (capacity, n2)
  const T* h2;       // (capacity, 3)
  const T* w;        // (capacity)
  const T* Pt;       // (n1, n2) the transpose of P padded, or null
  const T* node;     // (atoms, n2) or null
  const T* dout;     // (centres, n1) with Pt: times r_conv the gradient of conv
  const T* r_conv;   // (n1)
  const T* dcat;     // (centres, cat_width), or null: nothing flows into Gram products
  const T* seed;     // (centres, 3, n2) of the moments of g2 themselves, or null
  const T* grrg;     // (centres, 3, n2) of the forward pass; null without Gram products
  const T* drrd;     // (centres, 3, n1)
  T* dgrrg;          // (centres, 3, n2) room for the gradient of the moments; null: no moments of g2
  T* ddrrd;          // (centres, 3, n1) = the gradient of the moments of g1; null: none
  T* dg2;            // (capacity, n2)
  T* dh2;            // (capacity, 3)
  T* dw;             // (capacity)
  int n1;
  int n2;
  int axis;
  int cat_width;
  int cat_conv;
  int cat_grrg;
  int cat_drrd;
  int nsel;
  int smooth;
  int root;
  int fresh;
};
static_assert(sizeof(MessagesBackwardArgs<float>) == 200 && sizeof(MessagesBackwardArgs<double>) == 200, "host and kernel agree");

}  // namespace dpa2::cuda
