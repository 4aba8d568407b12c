// What edges bring to their neighbours: arguments of gather.cu.
#pragma once

#include "cuda/edge_tile.hpp"

namespace dpa2::cuda {

/// A block of edge_threads per atom, whose incoming edges come from the centres i:
///   dg1[c] (+)= sum_k P[k][c] r[c] sum_e (kappa_n w_e g2_e[k]) rows_i[c] + sum_e sum_x (kappa_h w_e h2_e[x]) vectors_i[x][c],
///   dnode[k] = sum_e (kappa_n w_e g2_e[k]) node_rows_i[k];
/// and of the attention to the neighbours (local_attention.hpp), dg1[c] += sum_e sum_h room_eh[0] queries_ih[c] + room_eh[1] given_ih[c].
/// Terms that there are not are null.
template <class T>
struct GatherArgs {
  const int* begin;    // (atoms + 1) of the edges to each atom
  const int* edges;    // (capacity)
  const int* centre;   // (capacity)
  const int* start;    // (centres + 1)
  const T* g2;         // (capacity, n2) the numbers of an edge
  const T* h2;         // (capacity, 3) or null: no vectors
  const T* w;          // (capacity)
  const T* P;          // (n2, n1) padded to whole tiles
  const T* r;          // (n1) or null: 1
  const T* rows;       // (centres, n1) with P
  const T* vectors;    // (centres, 3, n1)
  const T* node_rows;  // (centres, node_stride) from the first column on
  const T* room;       // (capacity, nh, 2) of local_attention_backward
  const T* queries;    // (centres, nh n1) with room
  const T* given;      // (centres, nh n1) with room: the gradient of o
  T* dg1;              // (atoms, n1)
  T* dnode;            // (atoms, n2) with node_rows
  int n1;
  int n2;
  int node_stride;
  int nh;
  int added;  // rows of dg1 below this one are added to, the others set
  int nsel;   // math::Normalisation
  int smooth;
  int root;
};
static_assert(sizeof(GatherArgs<float>) == 168 && sizeof(GatherArgs<double>) == 168, "host and kernel agree");

}  // namespace dpa2::cuda
