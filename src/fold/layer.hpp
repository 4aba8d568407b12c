// A layer of the repformer: its operations, folded one by one.
#pragma once

#include <optional>
#include <string>

#include "fold/dense.hpp"
#include "fold/linear1.hpp"
#include "fold/local_attention.hpp"
#include "fold/pair_attention.hpp"
#include "fold/residual.hpp"

namespace dpa2 {

/// What the options leave out is empty.
struct FoldedLayer {
  LayerFeatures has;
  FoldedDense self;
  Matrix conv;  ///< (n2, n1) where the convolution is a member of its own, else (n1, n2)
  FoldedLinear1 linear1;
  std::optional<FoldedLocalAttention> local_attention;
  FoldedDense linear2;
  Matrix g1g1;  ///< (n1, n2)
  std::optional<FoldedPairAttention> pair_attention;
  FoldedResidual g1, g2, h2;

  template <class F>
  void for_each(const std::string& at, F& f) const {
    self.for_each(at + ".self", f);
    give(f, at + ".conv.w", conv);
    linear1.for_each(at + ".linear1", f);
    if (local_attention) local_attention->for_each(at + ".local_attention", f);
    linear2.for_each(at + ".linear2", f);
    give(f, at + ".g1g1.w", g1g1);
    if (pair_attention) pair_attention->for_each(at + ".pair_attention", f);
    g1.for_each(at + ".g1_residual", f);
    g2.for_each(at + ".g2_residual", f);
    h2.for_each(at + ".h2_residual", f);
  }
};

FoldedLayer fold_layer(const RepformerConfig& config, RawTensors& raw, int number);
/// The adjoint, `+=`.
void unfold_layer(const RepformerConfig& config, RawTensors& raw, int number, const FoldedLayer& gradient, Weights& to);

}  // namespace dpa2
