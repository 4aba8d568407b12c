// The fitting network on rows of atoms, forward and backward in one pass (theory 9.1, 12.2).
#pragma once

#include "cpu/activation.hpp"
#include "cpu/arena.hpp"
#include "cpu/linear.hpp"
#include "cpu/sum.hpp"

namespace dpa2 {

inline constexpr int max_fitting_layers = 32;

/// A hidden layer; `in` and `out` are the real widths, the packed matrices are padded.
template <class T>
struct FittingLayer {
  int in = 0, out = 0;
  Packed<T> w, wt;
  const T* b = nullptr;
  const T* idt = nullptr;  ///< or null
  int skip = 0;            ///< 0 none, 1 y += x, 2 y += [x, x]
};

template <class T>
struct FittingParams {
  int nlayers = 0;
  const FittingLayer<T>* layers = nullptr;
  int in = 0;      ///< padded width of the input
  int width = 1;   ///< real width of the output
  int stride = 1;  ///< between rows of the output: 1 for one number, else `width` padded
  // The last layer: of one number its column (padded width of the last hidden layer), else the matrix and its transpose.
  const T* w_out = nullptr;
  T b_out = 0;
  Packed<T> out, out_t;
  const T* out_b = nullptr;  ///< (stride)
  // The same (last, stride) and (stride) in double, of float32, or null: their rounding is an error that all atoms share.
  const Sum<T>*sum_w = nullptr, *sum_b = nullptr;
  ActivationSpec<T> act;
};

/// The gradients of its weights, rows padded to 64 bytes; null: not wanted.
template <class R>
struct FittingGradient {
  R* w[max_fitting_layers] = {};    ///< (in, out)
  R* b[max_fitting_layers] = {};    ///< (out)
  R* idt[max_fitting_layers] = {};  ///< (out), of layers that have one
  R* out = nullptr;                 ///< (last, stride), or (last) where the output is one number; without hidden layers last is `in`
  R* out_b = nullptr;               ///< (stride)
};

template <class T, class Isa>
struct Fitting {
  /// y (m, stride) = ; dx (m, in) = the gradient of the sum of dy * y unless null, g += those of the weights unless null;
  /// dy (m, stride), zero in the padding, or null for ones where the output is one number; x (m, in), zero in the padding
  static void run(const FittingParams<Real<T>>& p, int m, Sum<T>* y, T* dx, const FittingGradient<Real<T>>* g, const T* dy, const T* x,
                  Arena& arena);
};

}  // namespace dpa2
