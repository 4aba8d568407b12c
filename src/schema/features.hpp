// Which terms a layer of the repformer has: the one answer for the shapes of weights, for folding them and for both passes.
#pragma once

#include "schema/config.hpp"

namespace dpa2 {

struct LayerFeatures {
  bool last = false;  ///< the last layer updates neither g2 nor h2
  bool self = false;  ///< g1: the self MLP; without it linear1 sees g1
  bool conv = false;  ///< g1: the convolution, in front of linear1 or, with out_conv, a member of its own
  bool out_conv = false;
  bool grrg = false, drrd = false;  ///< g1: the symmetrised moments of g2 and of the neighbours' g1
  bool local_attention = false;     ///< g1
  bool g1g1 = false;                ///< g2: the product of both ends' g1
  bool pair_attention = false;      ///< g2
  bool update_h2 = false;           ///< h2

  /// g2 and h2 share the map of attention between edges.
  bool pair_map() const noexcept { return pair_attention || update_h2; }
  /// The number of updates U_k of g1, g2 and h2.
  int members_g1() const noexcept { return 1 + self + out_conv + local_attention; }
  int members_g2() const noexcept { return last ? 0 : 1 + g1g1 + pair_attention; }
  int members_h2() const noexcept { return update_h2 ? 1 : 0; }
};

inline LayerFeatures layer_features(const RepformerConfig& r, int layer) {
  LayerFeatures f;
  f.last = layer == r.nlayers - 1;
  f.self = r.g1_out_mlp;
  f.conv = r.update_g1_has_conv;
  f.out_conv = f.conv && r.g1_out_conv;
  f.grrg = r.update_g1_has_grrg;
  f.drrd = r.update_g1_has_drrd;
  f.local_attention = r.update_g1_has_attn;
  f.g1g1 = !f.last && r.update_g2_has_g1g1;
  f.pair_attention = !f.last && r.update_g2_has_attn;
  f.update_h2 = !f.last && r.update_h2;
  return f;
}

}  // namespace dpa2
