#include "fold/layer.hpp"

namespace dpa2 {

namespace {

std::string layer_name(int number) { return "descriptor.repformers.layers." + std::to_string(number) + "."; }

}  // namespace

FoldedLayer fold_layer(const RepformerConfig& config, RawTensors& raw, int number) {
  const std::string name = layer_name(number);
  FoldedLayer f;
  const LayerFeatures has = f.has = layer_features(config, number);
  if (has.self) f.self = fold_dense(raw, name + "g1_self_mlp");
  if (has.conv) f.conv = raw.matrix(name + "proj_g1g2.matrix");
  f.linear1 = fold_linear1(config, raw, name, has);
  if (has.local_attention) f.local_attention = fold_local_attention(config, raw, name);
  if (!has.last) f.linear2 = fold_dense(raw, name + "linear2");
  if (has.g1g1) f.g1g1 = raw.matrix(name + "proj_g1g1g2.matrix");
  if (has.pair_map()) f.pair_attention = fold_pair_attention(config, raw, name, has);
  f.g1 = fold_residual(config.update_style, raw, name + "g1_residual", members_g1(has), config.g1_dim);
  f.g2 = fold_residual(config.update_style, raw, name + "g2_residual", members_g2(has), config.g2_dim);
  f.h2 = fold_residual(config.update_style, raw, name + "h2_residual", members_h2(has), 1);
  return f;
}

void unfold_layer(const RepformerConfig& config, RawTensors& raw, int number, const FoldedLayer& gradient, Weights& to) {
  const std::string name = layer_name(number);
  const LayerFeatures has = layer_features(config, number);
  unfold_dense(gradient.self, name + "g1_self_mlp", to);
  add(to, name + "proj_g1g2.matrix", gradient.conv);
  unfold_linear1(config, name, has, gradient.linear1, to);
  if (gradient.local_attention) unfold_local_attention(config, raw, name, *gradient.local_attention, to);
  unfold_dense(gradient.linear2, name + "linear2", to);
  add(to, name + "proj_g1g1g2.matrix", gradient.g1g1);
  if (gradient.pair_attention) unfold_pair_attention(config, raw, name, has, *gradient.pair_attention, to);
  unfold_residual(config.update_style, name + "g1_residual", members_g1(has), gradient.g1, to);
  unfold_residual(config.update_style, name + "g2_residual", members_g2(has), gradient.g2, to);
  unfold_residual(config.update_style, name + "h2_residual", members_h2(has), gradient.h2, to);
}

}  // namespace dpa2
