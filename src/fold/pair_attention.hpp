// Attention among the pairs of one centre (theory 8.5-8.7, S1-S3).
#pragma once

#include <string>

#include "fold/matrix.hpp"
#include "schema/features.hpp"

namespace dpa2 {

/// Blocks of the heads are side by side. `value`, `b`, `gain` and `shift` belong to the update of g2, `h2` to that of h2.
struct FoldedPairAttention {
  Matrix query;        ///< (n2, nh n2) block h = Wk_h Wq_h^T / sqrt(nd)
  Matrix value;        ///< (n2, nh n2) block h = Wv_h Wo_h (I - 11^T / n2) / sqrt(3): LayerNorm's mean is gone
  Matrix b;            ///< (1, n2) without its mean
  Matrix gain, shift;  ///< (1, n2) of LayerNorm
  Matrix h2;           ///< (nh, 1) weights / sqrt(3)

  template <class F>
  void for_each(const std::string& at, F& f) const {
    give(f, at + ".query", query);
    give(f, at + ".value", value);
    give(f, at + ".b", b);
    give(f, at + ".gain", gain);
    give(f, at + ".shift", shift);
    give(f, at + ".h2", h2);
  }
};

/// `layer` is the prefix of the layer's weights.
FoldedPairAttention fold_pair_attention(const RepformerConfig& config, RawTensors& raw, const std::string& layer, const LayerFeatures& has);
/// The adjoint, `+=`.
void unfold_pair_attention(const RepformerConfig& config, RawTensors& raw, const std::string& layer, const LayerFeatures& has,
                           const FoldedPairAttention& gradient, Weights& to);

}  // namespace dpa2
