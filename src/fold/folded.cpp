#include "fold/folded.hpp"

#include <cstdint>
#include <string>
#include <utility>

#include "error.hpp"
#include "fold/type_embedding.hpp"
#include "math/attention.hpp"

namespace dpa2 {

FoldedDescriptor fold_descriptor(const Config& config, RawTensors& raw) {
  FoldedDescriptor f;
  if (config.descriptor_type == "se_e2_a") {
    f.repinit = fold_se_e2_a(config, raw);
    return f;
  }
  f.tebd = fold_type_embedding(config, raw);
  f.repinit = fold_repinit(config, raw, f.tebd);
  if (config.descriptor_type != "dpa2") return f;
  if (config.repinit.use_three_body) f.three_body = fold_three_body(config, raw, f.tebd);
  f.entry = fold_entry(config, raw, f.tebd);
  f.act = fold_activation(config.repformer.activation);
  f.attention_shift = config.smooth ? math::attention_shift : 0.0;
  f.g2_embed = fold_g2_embed(config, raw);
  for (int l = 0; l < config.repformer.nlayers; ++l) f.layers.push_back(fold_layer(config.repformer, raw, l));
  return f;
}

void unfold_descriptor(const Config& config, RawTensors& raw, const FoldedDescriptor& gradient, Weights& to) {
  const Matrix tebd = fold_type_embedding(config, raw);
  // The fitting network may see the type embedding, and so do most of the blocks.
  Matrix tebd_gradient(tebd.rows, tebd.cols);
  if (given(gradient.tebd, tebd.rows, tebd.cols, "the type embedding")) add(tebd_gradient, gradient.tebd);
  unfold_repinit(config, raw, tebd, gradient.repinit, to, tebd_gradient);
  if (gradient.three_body) unfold_three_body(config, raw, tebd, *gradient.three_body, to, tebd_gradient);
  unfold_entry(raw, tebd, gradient.entry, to, tebd_gradient);
  unfold_g2_embed(gradient.g2_embed, to);
  for (std::size_t l = 0; l < gradient.layers.size(); ++l) unfold_layer(config.repformer, raw, static_cast<int>(l), gradient.layers[l], to);
  unfold_type_embedding(config, raw, tebd_gradient, to);
}

namespace {

/// Of the names of a part of a combination.
std::string part_prefix(std::size_t part) { return "models." + std::to_string(part) + "."; }

Tensor zeros(std::vector<std::int64_t> shape) {
  std::size_t size = 1;
  for (const std::int64_t n : shape) size *= static_cast<std::size_t>(n);
  return {std::move(shape), std::vector<double>(size)};
}

/// Takes those out whose names begin with `prefix`, and puts `by` in its place.
Weights take(Weights& weights, const std::string& prefix, const std::string& by) {
  Weights out;
  for (auto at = weights.lower_bound(prefix); at != weights.end() && at->first.compare(0, prefix.size(), prefix) == 0;
       at = weights.erase(at))
    out.emplace(by + at->first.substr(prefix.size()), std::move(at->second));
  return out;
}

}  // namespace

Weights take_part(Weights& weights, std::size_t part) { return take(weights, part_prefix(part), ""); }

Weights take_descriptor(Weights& weights, const Config& descriptor) {
  const std::string prefix = "descriptor" + descriptor.at + ".";
  Weights out;
  for (const char* block : {"sea.", "se_atten."})
    if (descriptor.descriptor_type != "dpa2") out.merge(take(weights, prefix + block, "descriptor.repinit."));
  out.merge(take(weights, prefix, "descriptor."));
  return out;
}

Folded fold(const Config& config, Weights weights) {
  if (config.type == Combination::linear || config.type == Combination::spin)
    throw internal_error("a model that is made of others is folded part by part");
  Folded f;
  if (config.type == Combination::zbl) {
    f = fold(config.models[0], take_part(weights, 0));
    f.table = fold(config.models[1], take_part(weights, 1)).table;
    RawTensors raw(std::move(weights));
    f.share = fold_share(config, raw);
    return f;
  }
  for (const Config& part : config.descriptors) {
    RawTensors own(take_descriptor(weights, part));
    f.descriptors.push_back(fold_descriptor(part, own));
  }
  RawTensors raw(std::move(weights));
  f.network = !config.table;
  if (config.table) {
    f.table = fold_pair_table(config, raw);
    return f;
  }
  if (!config.hybrid()) f.descriptor = fold_descriptor(config, raw);
  f.fitting = fold_fitting(config.fitting, raw);
  f.head = fold_head(config, raw);
  return f;
}

Weights unfold(const Config& config, const Weights& raw, const Folded& gradient) {
  if (config.type == Combination::linear || config.type == Combination::spin)
    throw internal_error("the gradient of a model that is made of others is unfolded part by part");
  if (config.hybrid()) throw internal_error("the gradient of a hybrid descriptor");
  Weights to;
  if (config.type == Combination::zbl) {
    Weights whole = raw;
    for (auto& [name, tensor] : unfold(config.models[0], take_part(whole, 0), gradient))
      to.emplace(part_prefix(0) + name, std::move(tensor));
    return to;
  }
  for (ExpectedWeight& weight : expected_weights(config))
    if (weight.role == WeightRole::parameter) to.emplace(std::move(weight.name), zeros(std::move(weight.shape)));
  if (config.table) return to;
  RawTensors values = RawTensors::of(raw);
  unfold_descriptor(config, values, gradient.descriptor, to);
  unfold_fitting(config.fitting, gradient.fitting, to);
  return to;
}

}  // namespace dpa2
