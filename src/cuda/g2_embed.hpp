// Arguments and sizes of the entry of the repformer: shared by host and kernels.
#pragma once

#include "cuda/env_mat.hpp"

namespace dpa2 {
namespace cuda {

constexpr int g2_embed_threads = 128;
constexpr int g2_embed_edges = 32;  ///< of a block
constexpr int g2_embed_backward_edges = 64;

/// Where the edges of the repformer are: the first ones of every centre of the master list.
struct RepformerEdgesArgs {
  const double* d;          // (master edges, 3)
  const double* r;          // (master edges)
  const int* start;         // (centres + 1)
  const int* master_start;  // (centres + 1)
  const int* centre;        // (edges)
  const int* types;         // (atoms)
  int centres;
  int smooth;  // 1: the weight of an edge is the switch, else it is 1
};
static_assert(sizeof(RepformerEdgesArgs) == 56, "fixed-width");

/// The first g2 and h2, and the weights.
template <class T>
struct G2EmbedArgs {
  T* g2;            // (edges, n2) =
  T* h2;            // (edges, 3) =
  T* w;             // (edges) =
  const T* weight;  // (n2)
  const T* bias;    // (n2)
  RepformerEdgesArgs edges;
  StatisticsArgs<T> statistics;
  T direct;  // 1/rcut where g2 and h2 are made of r and d themselves, else 0
  int n2;
};
static_assert(sizeof(G2EmbedArgs<float>) == 136 && sizeof(G2EmbedArgs<double>) == 152, "fixed-width");

/// The gradients of the edge vectors from theirs.
template <class T>
struct G2EmbedBackwardArgs {
  T* gamma;         // (master edges, 3) +=
  const T* dg2;     // (edges, n2)
  const T* dh2;     // (edges, 3)
  const T* dw;      // (edges)
  const T* weight;  // (n2)
  const T* bias;    // (n2)
  RepformerEdgesArgs edges;
  StatisticsArgs<T> statistics;
  T direct;
  int n2;
};
static_assert(sizeof(G2EmbedBackwardArgs<float>) == 144 && sizeof(G2EmbedBackwardArgs<double>) == 160, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
