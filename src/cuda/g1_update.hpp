// Arguments of the update of g1 and its gradient: shared by host and kernels.
#pragma once

#include "cuda/product.hpp"

namespace dpa2 {
namespace cuda {

/// out = a g1 + self_r phi(g1 self_w + self_b) + conv_r conv + linear_r phi([g1, cat] linear1 + linear_b) + attention. Matrices are packed
/// (product.hpp). What a layer does not have is null.
template <class T>
struct G1UpdateArgs {
  T* out;                // (n, n1)
  T* self_slope;         // (n, n1) self_r phi' for the backward, or null
  T* linear_slope;       // (n, n1) linear_r phi' for the backward, or null
  const T* g1;           // (n, n1)
  const T* self_w;       // (n1, n1)
  const T* self_b;       // (n1)
  const T* self_r;       // (n1)
  const T* conv;         // (n, n1)
  const T* conv_r;       // (n1)
  const T* cat;          // (n, width)
  const T* linear_g1;    // (n1, n1) where linear1 sees g1
  const T* linear_cat;   // (width, n1)
  const T* linear_b;     // (n1)
  const T* linear_r;     // (n1)
  const T* o;            // (n, heads n1) what the local attention gathers
  const T* attention_w;  // (heads n1, n1) times its weight in the update
  const T* attention_b;  // (n1) likewise
  T a;
  int n;
  int n1;
  int width;
  int heads;
};
static_assert(sizeof(G1UpdateArgs<float>) == 160 && sizeof(G1UpdateArgs<double>) == 160, "fixed-width");

/// The gradients of g1 (what its terms here pass on), cat and o, given that of out.
template <class T>
struct G1UpdateBackwardArgs {
  T* dg1;                 // (n, n1), not dout
  T* dcat;                // (n, width)
  T* d_o;                 // (n, heads n1) or null
  const T* dout;          // (n, n1)
  const T* self_slope;    // (n, n1) of the forward
  const T* linear_slope;  // (n, n1) of the forward
  const T* self_wt;       // (n1, n1) transposed, like the others
  const T* linear_g1t;    // (n1, n1)
  const T* linear_catt;   // (n1, width)
  const T* attention_wt;  // (n1, heads n1)
  T a;
  int n;
  int n1;
  int width;
  int heads;  // 0 without local attention
};
static_assert(sizeof(G1UpdateBackwardArgs<float>) == 104 && sizeof(G1UpdateBackwardArgs<double>) == 104, "fixed-width");

}  // namespace cuda
}  // namespace dpa2
