#include "model/weights.hpp"

#include <cmath>
#include <set>
#include <string_view>

#include "error.hpp"
#include "math/skip.hpp"
#include "model/json.hpp"

namespace dpa2 {
namespace {

constexpr double max_elements = 1073741824.0;

using Shape = std::vector<std::int64_t>;

class Layout {
 public:
  explicit Layout(const Config& config) : c_(config) {
    entry();
    block_statistics("descriptor.repformers");
    linear("descriptor.repformers.g2_embd", 1, c_.repformer.g2_dim);
    for (int l = 0; l < c_.repformer.nlayers; ++l) layer(l);
    fitting();
    add("out_bias", {1, c_.ntypes(), 1});
    add("out_std", {1, c_.ntypes(), 1});
    tables();
  }
  Shapes shapes;

 private:
  void add(std::string name, Shape shape) { shapes.emplace_back(std::move(name), std::move(shape)); }

  void linear(const std::string& name, std::int64_t in, std::int64_t out, bool bias = true) {
    add(name + ".matrix", {in, out});
    if (bias) add(name + ".bias", {out});
  }

  // Hidden layers; a learned step size exists only where a skip does.
  std::int64_t net(const std::string& prefix, std::int64_t in, const std::vector<int>& widths, bool resnet_dt) {
    for (std::size_t l = 0; l < widths.size(); ++l) {
      const std::string name = prefix + ".networks.0.layers." + std::to_string(l);
      const std::int64_t out = widths[l];
      linear(name, in, out);
      if (resnet_dt && math::skip_copies(in, out) != 0) add(name + ".idt", {out});
      in = out;
    }
    return in;
  }

  void block_statistics(const std::string& block) {
    add(block + ".mean", {c_.ntypes(), 4});
    add(block + ".stddev", {c_.ntypes(), 4});
  }

  void embedding(const std::string& block, const std::vector<int>& widths, std::int64_t types_in) {
    const RepinitConfig& ri = c_.repinit;
    block_statistics(block);
    net(block + ".filter_layers", ri.strip ? 1 : 1 + types_in, widths, ri.resnet_dt);
    if (ri.strip) net(block + ".filter_layers_strip", types_in, widths, ri.resnet_dt);
  }

  void entry() {
    const RepinitConfig& ri = c_.repinit;
    const std::int64_t tebd = ri.tebd_dim;
    linear("descriptor.type_embedding.embedding.embedding_net.layers.0", c_.tebd_input(), tebd, c_.use_tebd_bias);
    if (c_.use_econf_tebd) add("descriptor.econf_tebd", {c_.ntypes(), c_.tebd_input()});
    embedding("descriptor.repinit", ri.neuron, ri.type_one_side ? tebd : 2 * tebd);
    if (ri.use_three_body) embedding("descriptor.repinit_three_body", ri.three_body_neuron, 2 * tebd);
    const std::int64_t width = c_.repinit_dim(), g1 = c_.repformer.g1_dim;
    if (width != g1) add("descriptor.g1_shape_tranform.matrix", {width, g1});
    if (c_.add_tebd_to_repinit_out) add("descriptor.tebd_transform.matrix", {tebd, g1});
  }

  void layer(int l) {
    const RepformerConfig& rf = c_.repformer;
    const std::string name = "descriptor.repformers.layers." + std::to_string(l);
    const bool last = l == rf.nlayers - 1;
    const std::int64_t n1 = rf.g1_dim, n2 = rf.g2_dim, axis = rf.axis_neuron;
    std::int64_t width = 0;
    if (!rf.g1_out_mlp) width += n1;
    if (rf.update_g1_has_conv && !rf.g1_out_conv) width += n2;
    if (rf.update_g1_has_grrg) width += axis * n2;
    if (rf.update_g1_has_drrd) width += axis * n1;
    linear(name + ".linear1", width, n1);
    int members1 = 1, members2 = 0, members_h = 0;
    if (rf.g1_out_mlp) {
      linear(name + ".g1_self_mlp", n1, n1);
      ++members1;
    }
    if (rf.update_g1_has_conv) {
      linear(name + ".proj_g1g2", rf.g1_out_conv ? n2 : n1, rf.g1_out_conv ? n1 : n2, false);
      members1 += static_cast<int>(rf.g1_out_conv);
    }
    if (rf.update_g1_has_attn) {
      const std::int64_t nd = rf.attn1_hidden, nh = rf.attn1_nhead;
      linear(name + ".loc_attn.mapq", n1, nd * nh, false);
      linear(name + ".loc_attn.mapkv", n1, (nd + n1) * nh, false);
      linear(name + ".loc_attn.head_map", n1 * nh, n1);
      ++members1;
    }
    if (!last) {
      linear(name + ".linear2", n2, n2);
      members2 = 1 + static_cast<int>(rf.update_g2_has_g1g1) + static_cast<int>(rf.update_g2_has_attn);
      members_h = static_cast<int>(rf.update_h2);
      if (rf.update_g2_has_g1g1) linear(name + ".proj_g1g1g2", n1, n2, false);
      pair_attention(name);
    }
    if (rf.update_style == UpdateStyle::res_residual) {
      residual(name + ".g1_residual.", members1, n1);
      residual(name + ".g2_residual.", members2, n2);
      residual(name + ".h2_residual.", members_h, 1);
    }
  }

  void pair_attention(const std::string& name) {
    const RepformerConfig& rf = c_.repformer;
    const std::int64_t n2 = rf.g2_dim, nd = rf.attn2_hidden, nh = rf.attn2_nhead;
    if (rf.update_g2_has_attn || rf.update_h2) linear(name + ".attn2g_map.mapqk", n2, 2 * nd * nh, false);
    if (rf.update_g2_has_attn) {
      linear(name + ".attn2_mh_apply.mapv", n2, n2 * nh, false);
      linear(name + ".attn2_mh_apply.head_map", n2 * nh, n2);
      add(name + ".attn2_lm.matrix", {n2});
      add(name + ".attn2_lm.bias", {n2});
    }
    if (rf.update_h2) linear(name + ".attn2_ev_apply.head_map", nh, 1, false);
  }

  void residual(const std::string& prefix, int members, std::int64_t width) {
    for (int k = 0; k < members; ++k) add(prefix + std::to_string(k), {width});
  }

  void fitting() {
    const FittingConfig& f = c_.fitting;
    const std::int64_t nf = f.numb_fparam, na = f.numb_aparam, nc = f.dim_case_embd;
    std::int64_t width = c_.descriptor_dim() + nf + nc + (f.use_aparam_as_mask ? 0 : na);
    width = net("fitting_net.filter_layers", width, f.neuron, f.resnet_dt);
    linear("fitting_net.filter_layers.networks.0.layers." + std::to_string(f.neuron.size()), width, 1);
    add("fitting_net.bias_atom_e", {c_.ntypes(), 1});
    const auto normalisation = [&](const std::string& name, std::int64_t n) {
      if (n == 0) return;
      add("fitting_net." + name + "_avg", {n});
      add("fitting_net." + name + "_inv_std", {n});
    };
    normalisation("fparam", nf);
    normalisation("aparam", na);
    if (nc > 0) add("fitting_net.case_embd", {nc});
    if (f.default_fparam) add("fitting_net.default_fparam_tensor", {nf});
  }

  // Of compressed models: piecewise quintic polynomials, one curve per combination of types that the network sees.
  void tables() {
    const RepinitConfig& ri = c_.repinit;
    const std::int64_t nt = c_.ntypes();
    const auto table = [&](const std::string& block, const TableConfig& t, std::int64_t ncurves, int channels) {
      add(block + ".table", {ncurves, t.intervals(), 6, channels});
    };
    if (c_.repinit_table) table("descriptor.repinit", *c_.repinit_table, ri.strip ? 1 : ri.type_one_side ? nt : nt * nt, ri.neuron.back());
    if (c_.three_body_table) table("descriptor.repinit_three_body", *c_.three_body_table, ri.strip ? 1 : nt * nt, ri.three_body_neuron.back());
  }

  const Config& c_;
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

bool ends_with(std::string_view name, std::string_view end) {
  return name.size() >= end.size() && name.substr(name.size() - end.size()) == end;
}

}  // namespace

Shapes expected_weights(const Config& config) { return Layout(config).shapes; }

void check_shapes(const Config& config, const std::map<std::string, Shape>& found) {
  const Shapes expected = expected_weights(config);
  double total = 0.0;
  for (const auto& item : expected) total += elements(item.second);
  if (total > max_elements) throw model_file_error("the configuration asks for an unreasonable number of weights: ", total);

  std::set<std::string> names;
  for (const auto& [name, shape] : expected) {
    names.insert(name);
    const auto tensor = found.find(name);
    if (tensor == found.end()) throw model_file_error("the weight '", name, "' is missing; expected shape ", shape_text(shape));
    if (tensor->second != shape)
      throw model_file_error("the weight '", name, "' has shape ", shape_text(tensor->second), ", expected ", shape_text(shape));
  }
  for (const auto& item : found)
    if (names.count(item.first) == 0)
      throw model_file_error("the weight '", printable(item.first), "' is not used with these options");
}

void check_weights(const Config& config, const Weights& weights) {
  std::map<std::string, Shape> shapes;
  for (const auto& [name, tensor] : weights) shapes.emplace(name, tensor.shape);
  check_shapes(config, shapes);
  for (const auto& [name, tensor] : weights) {
    if (static_cast<double>(tensor.data.size()) != elements(tensor.shape))
      throw model_file_error("the weight '", name, "' has ", tensor.data.size(), " values for the shape ", shape_text(tensor.shape));
    const bool divisor = ends_with(name, ".stddev");
    for (std::size_t k = 0; k < tensor.data.size(); ++k) {
      if (!std::isfinite(tensor.data[k])) throw model_file_error("the weight '", name, "' is not finite at element ", k);
      if (divisor && tensor.data[k] == 0.0) throw model_file_error("the weight '", name, "' is zero at element ", k);
    }
  }
}

}  // namespace dpa2
