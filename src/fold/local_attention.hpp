// Attention of a centre over its neighbours: query with key, value with head map (theory 8.10, S7).
#pragma once

#include <string>

#include "fold/matrix.hpp"

namespace dpa2 {

struct FoldedLocalAttention {
  Matrix query;  ///< (n1, nh n1) block h = Wq_h Wk_h^T / sqrt(nd), side by side
  Matrix value;  ///< (nh n1, n1) block h = Wv_h Wo_h, one below the other
  Matrix b;      ///< (1, n1)

  template <class F>
  void for_each(const std::string& at, F& f) const {
    give(f, at + ".query", query);
    give(f, at + ".value", value);
    give(f, at + ".b", b);
  }
};

/// `layer` is the prefix of the layer's weights.
FoldedLocalAttention fold_local_attention(const RepformerConfig& config, RawTensors& raw, const std::string& layer);
/// The adjoint, `+=`.
void unfold_local_attention(const RepformerConfig& config, RawTensors& raw, const std::string& layer, const FoldedLocalAttention& gradient,
                            Weights& to);

}  // namespace dpa2
