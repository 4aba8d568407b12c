#include "fold/folded.hpp"

#include <string>
#include <utility>

#include "error.hpp"
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

Weights take_part(Weights& weights, std::size_t part) {
  const std::string prefix = "models." + std::to_string(part) + ".";
  Weights out;
  for (auto at = weights.lower_bound(prefix); at != weights.end() && at->first.compare(0, prefix.size(), prefix) == 0;
       at = weights.erase(at))
    out.emplace(at->first.substr(prefix.size()), std::move(at->second));
  return out;
}

Folded fold(const Config& config, Weights weights) {
  if (config.type == Combination::linear) throw internal_error("a linear combination is folded part by part");
  Folded f;
  if (config.type == Combination::zbl) {
    f = fold(config.models[0], take_part(weights, 0));
    f.table = fold(config.models[1], take_part(weights, 1)).table;
    RawTensors raw(std::move(weights));
    f.share = fold_share(config, raw);
    return f;
  }
  RawTensors raw(std::move(weights));
  f.network = !config.table;
  if (config.table) {
    f.table = fold_pair_table(config, raw);
    return f;
  }
  f.descriptor = fold_descriptor(config, raw);
  f.fitting = fold_fitting(config.fitting, raw);
  f.head = fold_head(config, raw);
  return f;
}

}  // namespace dpa2
