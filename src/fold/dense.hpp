// Layers whose weights are taken as they are.
#pragma once

#include <string>

#include "fold/activation.hpp"
#include "fold/matrix.hpp"

namespace dpa2 {

/// y = x w + b; without a bias b is empty.
struct FoldedDense {
  Matrix w, b;  ///< (in, out), (1, out)

  template <class F>
  void for_each(const std::string& at, F& f) const {
    give(f, at + ".w", w);
    give(f, at + ".b", b);
  }
};

/// A hidden layer, y = phi(x w + b) * idt + skip copies of x side by side (theory 4.1).
struct FoldedHidden {
  int in = 0, out = 0, skip = 0;
  Matrix w, b, idt;  ///< (in, out), (1, out), (1, out) or empty

  template <class F>
  void for_each(const std::string& at, F& f) const {
    f(at + ".in", in);
    f(at + ".out", out);
    f(at + ".skip", skip);
    give(f, at + ".w", w);
    give(f, at + ".b", b);
    give(f, at + ".idt", idt);
  }
};

/// `name` ends before ".matrix".
FoldedDense fold_dense(RawTensors& raw, const std::string& name);
FoldedHidden fold_hidden(RawTensors& raw, const std::string& name);
/// The adjoints, `+=` into the gradients of the raw tensors.
void unfold_dense(const FoldedDense& gradient, const std::string& name, Weights& to);
void unfold_hidden(const FoldedHidden& gradient, const std::string& name, Weights& to);
/// The hidden layer on rows x.
Matrix evaluate(const FoldedHidden& layer, const FoldedActivation& act, const Matrix& x);
/// The gradient of x, given `dy`, that of the layer's output on rows x; those of w, b and idt are put into `gradient`.
Matrix backward(const FoldedHidden& layer, const FoldedActivation& act, const Matrix& x, const Matrix& dy, FoldedHidden& gradient);

}  // namespace dpa2
