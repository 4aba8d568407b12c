#include "schema/weights.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>
#include <utility>

#include "error.hpp"
#include "math/pair_table.hpp"
#include "math/quintic.hpp"
#include "math/skip.hpp"
#include "schema/features.hpp"
#include "schema/json.hpp"

namespace dpa2 {
namespace {

constexpr double max_elements = 1073741824.0;

using Shape = std::vector<std::int64_t>;

/// Collects the weights of one block after the other; a block is named by its prefix in the files.
class Schema {
 public:
  /// `prefix` is that of a part of a combination.
  explicit Schema(const Config& config, const std::string& prefix = "") : c_(config) {
    if (c_.table) {
      const std::int64_t nt = c_.ntypes();
      add(prefix + "tab_data", {nt, nt, c_.table->nspline, math::pair_table_terms}, WeightRole::table);
    } else if (c_.type == Combination::none) {
      single_ = c_.descriptor_precision != "float64";
      if (c_.descriptors.empty()) descriptor(prefix + "descriptor");
      for (const Config& part : c_.descriptors) append(of_descriptor(part, prefix + "descriptor"));
      single_ = c_.fitting.precision != "float64";
      fitting(prefix + "fitting_net");
      single_ = false;
    }
    for (std::size_t k = 0; k < c_.models.size(); ++k) { append(Schema(c_.models[k], "models." + std::to_string(k) + ".").weights); }
    if (c_.type == Combination::spin) return;
    const std::int64_t values = c_.type == Combination::none && !c_.table ? c_.fitting.values() : 1;
    add(prefix + "out_bias", {1, c_.ntypes(), values}, WeightRole::statistic);
    add(prefix + "out_std", {1, c_.ntypes(), values}, WeightRole::statistic);
  }
  /// Of a descriptor in a hybrid one; `prefix` is that of the hybrid's.
  static ExpectedWeights of_descriptor(const Config& config, const std::string& prefix) {
    Schema schema(config, Nothing());
    schema.single_ = config.descriptor_precision != "float64";
    const std::string own = prefix + config.at;
    if (config.descriptor_type == "se_e2_a")
      schema.se_e2_a(own);
    else if (config.descriptor_type == "dpa1")
      schema.dpa1(own);
    else
      schema.descriptor(own);
    return std::move(schema.weights);
  }
  ExpectedWeights weights;

 private:
  struct Nothing {};
  Schema(const Config& config, Nothing) : c_(config) {}
  void add(std::string name, Shape shape, WeightRole role = WeightRole::parameter) {
    weights.push_back({std::move(name), std::move(shape), role, single_});
  }
  void append(ExpectedWeights part) { std::move(part.begin(), part.end(), std::back_inserter(weights)); }
  void add_double(std::string name, Shape shape, WeightRole role) { weights.push_back({std::move(name), std::move(shape), role, false}); }

  void matrix(const std::string& name, std::int64_t in, std::int64_t out) { add(name + ".matrix", {in, out}); }
  void linear(const std::string& name, std::int64_t in, std::int64_t out) {
    matrix(name, in, out);
    add(name + ".bias", {out});
  }

  // Hidden layers; a learned step size exists only where a skip does.
  std::int64_t net(const std::string& prefix, std::int64_t in, const std::vector<int>& widths, bool resnet_dt, int number = 0) {
    for (std::size_t l = 0; l < widths.size(); ++l) {
      const std::string name = prefix + ".networks." + std::to_string(number) + ".layers." + std::to_string(l);
      const std::int64_t out = widths[l];
      linear(name, in, out);
      if (resnet_dt && math::skip_copies(in, out) > 0) add(name + ".idt", {out});
      in = out;
    }
    return in;
  }

  void environment(const std::string& block) {
    add(block + ".mean", {c_.ntypes(), 4}, WeightRole::environment_mean);
    add(block + ".stddev", {c_.ntypes(), 4}, WeightRole::environment_stddev);
  }

  void embedding(const std::string& block, const std::vector<int>& widths, std::int64_t types_in) {
    const RepinitConfig& ri = c_.repinit;
    environment(block);
    net(block + ".filter_layers", ri.strip ? 1 : 1 + types_in, widths, ri.resnet_dt);
    if (ri.strip) net(block + ".filter_layers_strip", types_in, widths, ri.resnet_dt);
  }

  // Of a compressed model: piecewise quintic polynomials, one curve per combination of types that the network sees.
  void table(const std::string& block, const std::optional<TableConfig>& t, std::int64_t combinations, const std::vector<int>& widths) {
    if (t)
      add_double(block + ".table", {c_.repinit.strip ? 1 : combinations, t->intervals(), quintic_terms, widths.back()}, WeightRole::table);
  }

  void type_embedding(const std::string& prefix) {
    const std::int64_t tebd = c_.repinit.tebd_dim;
    if (c_.use_econf_tebd) add(prefix + ".econf_tebd", {c_.ntypes(), c_.tebd_input()}, WeightRole::constant);
    const std::string types = prefix + ".type_embedding.embedding.embedding_net.layers.0";
    matrix(types, c_.tebd_input(), tebd);
    if (c_.use_tebd_bias) add(types + ".bias", {tebd});
  }

  void se_e2_a(const std::string& prefix) {
    const int nt = c_.ntypes();
    environment(prefix + ".sea");
    for (int k = 0; k < (c_.repinit.type_one_side ? nt : nt * nt); ++k)
      net(prefix + ".sea.filter_layers", 1, c_.repinit.neuron, c_.repinit.resnet_dt, k);
  }

  void dpa1(const std::string& prefix) {
    type_embedding(prefix);
    embedding(prefix + ".se_atten", c_.repinit.neuron, std::int64_t{c_.repinit.tebd_dim} * (c_.repinit.type_one_side ? 1 : 2));
  }

  void descriptor(const std::string& prefix) {
    const RepinitConfig& ri = c_.repinit;
    const RepformerConfig& rf = c_.repformer;
    const std::int64_t tebd = ri.tebd_dim, nt = c_.ntypes();
    type_embedding(prefix);
    const std::string repinit = prefix + ".repinit", three = prefix + ".repinit_three_body";
    embedding(repinit, ri.neuron, ri.type_one_side ? tebd : 2 * tebd);
    table(repinit, c_.repinit_table, ri.type_one_side ? nt : nt * nt, ri.neuron);
    if (ri.use_three_body) {
      embedding(three, ri.three_body_neuron, 2 * tebd);
      table(three, c_.three_body_table, nt * nt, ri.three_body_neuron);
    }
    if (c_.repinit_dim() != rf.g1_dim) matrix(prefix + ".g1_shape_tranform", c_.repinit_dim(), rf.g1_dim);
    if (c_.add_tebd_to_repinit_out) matrix(prefix + ".tebd_transform", tebd, rf.g1_dim);
    const std::string block = prefix + ".repformers";
    environment(block);
    linear(block + ".g2_embd", 1, rf.g2_dim);
    for (int l = 0; l < rf.nlayers; ++l) layer(block + ".layers." + std::to_string(l), layer_features(rf, l));
  }

  void layer(const std::string& name, const LayerFeatures& has) {
    const RepformerConfig& rf = c_.repformer;
    const std::int64_t n1 = rf.g1_dim, n2 = rf.g2_dim, axis = rf.axis_neuron;
    std::int64_t width = 0;
    if (!has.self) width += n1;
    if (has.conv && !has.out_conv) width += n2;
    if (has.grrg) width += axis * n2;
    if (has.drrd) width += axis * n1;
    linear(name + ".linear1", width, n1);
    if (has.self) linear(name + ".g1_self_mlp", n1, n1);
    if (has.conv) matrix(name + ".proj_g1g2", has.out_conv ? n2 : n1, has.out_conv ? n1 : n2);
    if (has.local_attention) {
      const std::int64_t nd = rf.attn1_hidden, nh = rf.attn1_nhead;
      matrix(name + ".loc_attn.mapq", n1, nd * nh);
      matrix(name + ".loc_attn.mapkv", n1, (nd + n1) * nh);
      linear(name + ".loc_attn.head_map", n1 * nh, n1);
    }
    if (!has.last) linear(name + ".linear2", n2, n2);
    if (has.g1g1) matrix(name + ".proj_g1g1g2", n1, n2);
    pair_attention(name, has);
    if (rf.update_style == UpdateStyle::res_residual) {
      residual(name + ".g1_residual.", has.members_g1(), n1);
      residual(name + ".g2_residual.", has.members_g2(), n2);
      residual(name + ".h2_residual.", has.members_h2(), 1);
    }
  }

  void pair_attention(const std::string& name, const LayerFeatures& has) {
    const RepformerConfig& rf = c_.repformer;
    const std::int64_t n2 = rf.g2_dim, nd = rf.attn2_hidden, nh = rf.attn2_nhead;
    if (has.pair_map()) matrix(name + ".attn2g_map.mapqk", n2, 2 * nd * nh);
    if (has.pair_attention) {
      matrix(name + ".attn2_mh_apply.mapv", n2, n2 * nh);
      linear(name + ".attn2_mh_apply.head_map", n2 * nh, n2);
      add(name + ".attn2_lm.matrix", {n2});
      add(name + ".attn2_lm.bias", {n2});
    }
    if (has.update_h2) matrix(name + ".attn2_ev_apply.head_map", nh, 1);
  }

  void residual(const std::string& prefix, int members, std::int64_t width) {
    for (int k = 0; k < members; ++k) add(prefix + std::to_string(k), {width});
  }

  void fitting(const std::string& prefix) {
    const FittingConfig& f = c_.fitting;
    const std::int64_t nf = f.numb_fparam, na = f.numb_aparam, nc = f.dim_case_embd;
    const auto normalisation = [&](const std::string& name, std::int64_t n) {
      if (n == 0) return;
      add(prefix + "." + name + "_avg", {n}, WeightRole::statistic);
      add(prefix + "." + name + "_inv_std", {n}, WeightRole::statistic);
    };
    normalisation("fparam", nf);
    normalisation("aparam", na);
    if (f.default_fparam) add(prefix + ".default_fparam_tensor", {nf}, WeightRole::constant);
    if (nc > 0) add(prefix + ".case_embd", {nc}, WeightRole::constant);
    std::int64_t width = c_.descriptor_dim() + nf + nc + (f.use_aparam_as_mask ? 0 : na);
    width = net(prefix + ".filter_layers", width, f.neuron, f.resnet_dt);
    linear(prefix + ".filter_layers.networks.0.layers." + std::to_string(f.neuron.size()), width, f.width(c_.g2_dim()));
    add_double(prefix + ".bias_atom_e", {c_.ntypes(), f.width(c_.g2_dim())}, WeightRole::statistic);
  }

  const Config& c_;
  bool single_ = false;
};

std::string shape_text(const Shape& shape) {
  std::string out = "(";
  for (std::size_t k = 0; k < shape.size(); ++k) out += (k > 0 ? ", " : "") + std::to_string(shape[k]);
  return out + (shape.size() == 1 ? ",)" : ")");
}

double elements(const Shape& shape) {
  double n = 1.0;
  for (const std::int64_t k : shape) n *= static_cast<double>(k);
  return n;
}

}  // namespace

ExpectedWeights expected_weights(const Config& config) {
  ExpectedWeights weights = Schema(config).weights;
  double total = 0.0;
  for (const ExpectedWeight& weight : weights) total += elements(weight.shape);
  if (total > max_elements) throw model_file_error("the configuration asks for an unreasonable number of weights: ", total);
  return weights;
}

void check_shapes(const ExpectedWeights& expected, const std::map<std::string, Shape>& found) {
  std::set<std::string> names;
  for (const ExpectedWeight& weight : expected) {
    names.insert(weight.name);
    const auto tensor = found.find(weight.name);
    if (tensor == found.end())
      throw model_file_error("the weight '", weight.name, "' is missing; expected shape ", shape_text(weight.shape));
    if (tensor->second != weight.shape)
      throw model_file_error("the weight '", weight.name, "' has shape ", shape_text(tensor->second), ", expected ",
                             shape_text(weight.shape));
  }
  for (const auto& item : found)
    if (names.count(item.first) == 0) throw model_file_error("the weight '", printable(item.first), "' is not used with these options");
}

template <class T>
void check_values(const ExpectedWeight& weight, const T* values, std::size_t n) {
  const bool divisor = weight.role == WeightRole::environment_stddev;
  for (std::size_t k = 0; k < n; ++k) {
    if (!std::isfinite(values[k])) throw model_file_error("the weight '", weight.name, "' is not finite at element ", k);
    if (divisor && values[k] == T(0)) throw model_file_error("the weight '", weight.name, "' is zero at element ", k);
  }
}

template void check_values(const ExpectedWeight&, const double*, std::size_t);
template void check_values(const ExpectedWeight&, const float*, std::size_t);

void check_weights(const Config& config, const Weights& weights, bool values) {
  const ExpectedWeights expected = expected_weights(config);
  std::map<std::string, Shape> shapes;
  for (const auto& [name, tensor] : weights) shapes.emplace(name, tensor.shape);
  check_shapes(expected, shapes);
  for (const ExpectedWeight& weight : expected) {
    const std::vector<double>& data = weights.at(weight.name).data;
    if (static_cast<double>(data.size()) != elements(weight.shape))
      throw model_file_error("the weight '", weight.name, "' has ", data.size(), " values for the shape ", shape_text(weight.shape));
    if (values) check_values(weight, data.data(), data.size());
  }
}

}  // namespace dpa2
