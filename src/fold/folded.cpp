#include "fold/folded.hpp"

#include <utility>

#include "fold/type_embedding.hpp"
#include "math/attention.hpp"

namespace dpa2 {

FoldedDescriptor fold_descriptor(const Config& config, RawTensors& raw) {
  FoldedDescriptor f;
  f.tebd = fold_type_embedding(config, raw);
  f.repinit = fold_repinit(config, raw, f.tebd);
  if (config.repinit.use_three_body) f.three_body = fold_three_body(config, raw, f.tebd);
  f.entry = fold_entry(config, raw, f.tebd);
  f.act = fold_activation(config.repformer.activation);
  f.attention_shift = config.smooth ? math::attention_shift : 0.0;
  f.g2_embed = fold_g2_embed(config, raw);
  for (int l = 0; l < config.repformer.nlayers; ++l) f.layers.push_back(fold_layer(config.repformer, raw, l));
  return f;
}

Folded fold(const Config& config, Weights weights) {
  RawTensors raw(std::move(weights));
  return {fold_descriptor(config, raw), fold_fitting(config.fitting, raw), fold_head(config, raw)};
}

}  // namespace dpa2
