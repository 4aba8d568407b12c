#include "model/config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <locale>
#include <set>
#include <sstream>

#include "error.hpp"
#include "model/json.hpp"

namespace dpa2 {
namespace {

constexpr int format_version = 1;
constexpr int max_size = 1'000'000;        // of a width or a list
constexpr std::int64_t max_product = 100'000'000;  // of two of them that make one dimension
constexpr std::int64_t max_folded = std::int64_t{1} << 24;  // numbers of a table that is computed at load, from a file that may be small
constexpr int max_types = 10'000, max_layers = 1000, max_depth = 100;
constexpr double max_rcut = 1e4;           // angstrom
constexpr std::size_t max_segments = 10'000;
constexpr std::int64_t max_cells = 4'000'000, max_intervals = 1'000'000;  // of a table

struct NamedActivation {
  const char* name;
  Activation kind;
};
constexpr std::array<NamedActivation, 12> activations{{{"tanh", Activation::tanh},
                                                       {"relu", Activation::relu},
                                                       {"relu6", Activation::relu6},
                                                       {"sigmoid", Activation::sigmoid},
                                                       {"softplus", Activation::softplus},
                                                       {"gelu", Activation::gelu},
                                                       {"gelu_tf", Activation::gelu},
                                                       {"silu", Activation::silu},
                                                       {"silut", Activation::silut},
                                                       {"custom_silu", Activation::silut},
                                                       {"linear", Activation::linear},
                                                       {"none", Activation::linear}}};

template <class... Args>
Error inconsistent(const Args&... args) {
  return model_file_error("the configuration is inconsistent: ", args...);
}

ActivationConfig read_activation(JsonObject& o, const char* key) {
  std::string name = o.word(key);
  for (char& c : name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  const std::size_t colon = name.find(':');
  const std::string base = name.substr(0, colon);
  const auto found = std::find_if(activations.begin(), activations.end(), [&](const NamedActivation& a) { return base == a.name; });
  if (found == activations.end() || (colon != std::string::npos && found->kind != Activation::silut)) {
    std::string known;
    for (const NamedActivation& a : activations) known += (known.empty() ? "" : ", ") + std::string(a.name);
    throw unsupported(o.path(key), " is '", printable(name), "'; supported are ", known);
  }
  ActivationConfig out;
  out.kind = found->kind;
  if (colon != std::string::npos) {
    std::istringstream in(name.substr(colon + 1));
    in.imbue(std::locale::classic());  // a decimal point, whatever the caller's language
    in >> out.threshold;
    const bool complete = !in.fail() && (in >> std::ws).eof();
    if (!complete || !std::isfinite(out.threshold))
      throw inconsistent(o.path(key), " is '", printable(name), "', expected a number behind the colon");
  }
  return out;
}

std::vector<int> read_widths(JsonObject& o, const char* key, std::size_t fewest = 1) {
  std::vector<int> widths = o.integers(key, 1, max_size);
  if (widths.size() < fewest || widths.size() > max_depth)
    throw inconsistent(o.path(key), " must have ", fewest, " to ", max_depth, " layers");
  return widths;
}

double read_rcut(JsonObject& o, const char* key) {
  const double rcut = o.positive(key);
  if (rcut > max_rcut) throw inconsistent(o.path(key), " is ", rcut, " angstrom, expected at most ", max_rcut);
  return rcut;
}

std::vector<std::pair<int, int>> read_pairs(JsonObject& o, const char* key, int ntypes) {
  const std::vector<int> flat = o.tuples(key, 2, 0, ntypes - 1);
  std::vector<std::pair<int, int>> pairs;
  for (std::size_t k = 0; k < flat.size(); k += 2) pairs.emplace_back(flat[k], flat[k + 1]);
  return pairs;
}

void check_precision(JsonObject& o, const char* key) {
  const std::string& name = o.word(key);
  if (name != "float64" && name != "float32" && name != "float16" && name != "bfloat16")
    throw unsupported(o.path(key), " is '", printable(name), "'; supported are float64, float32, float16, bfloat16");
}

RepinitConfig read_repinit(JsonObject o) {
  RepinitConfig c;
  c.rcut = read_rcut(o, "rcut");
  c.rcut_smth = o.number("rcut_smth");
  c.nsel = o.integer("nsel", 1, max_size);
  c.neuron = read_widths(o, "neuron");
  c.axis_neuron = o.integer("axis_neuron", 1, max_size);
  c.tebd_dim = o.integer("tebd_dim", 1, max_size);
  const std::string& mode = o.word("tebd_input_mode");
  if (mode != "concat" && mode != "strip")
    throw unsupported(o.path("tebd_input_mode"), " is '", printable(mode), "'; supported are concat, strip");
  c.strip = mode == "strip";
  c.activation = read_activation(o, "activation_function");
  c.resnet_dt = o.boolean("resnet_dt");
  c.type_one_side = o.boolean("type_one_side");
  c.use_three_body = o.boolean("use_three_body");
  c.three_body_neuron = read_widths(o, "three_body_neuron");
  c.three_body_rcut = read_rcut(o, "three_body_rcut");
  c.three_body_rcut_smth = o.number("three_body_rcut_smth");
  c.three_body_sel = o.integer("three_body_sel", 1, max_size);
  o.finish();
  return c;
}

RepformerConfig read_repformer(JsonObject o) {
  RepformerConfig c;
  c.rcut = read_rcut(o, "rcut");
  c.rcut_smth = o.number("rcut_smth");
  c.nsel = o.integer("nsel", 1, max_size);
  c.nlayers = o.integer("nlayers", 1, max_layers);
  c.g1_dim = o.integer("g1_dim", 1, max_size);
  c.g2_dim = o.integer("g2_dim", 1, max_size);
  c.axis_neuron = o.integer("axis_neuron", 1, max_size);
  c.direct_dist = o.boolean("direct_dist");
  c.update_g1_has_conv = o.boolean("update_g1_has_conv");
  c.update_g1_has_drrd = o.boolean("update_g1_has_drrd");
  c.update_g1_has_grrg = o.boolean("update_g1_has_grrg");
  c.update_g1_has_attn = o.boolean("update_g1_has_attn");
  c.update_g2_has_g1g1 = o.boolean("update_g2_has_g1g1");
  c.update_g2_has_attn = o.boolean("update_g2_has_attn");
  c.update_h2 = o.boolean("update_h2");
  c.attn1_hidden = o.integer("attn1_hidden", 1, max_size);
  c.attn1_nhead = o.integer("attn1_nhead", 1, max_size);
  c.attn2_hidden = o.integer("attn2_hidden", 1, max_size);
  c.attn2_nhead = o.integer("attn2_nhead", 1, max_size);
  c.attn2_has_gate = o.boolean("attn2_has_gate");
  c.activation = read_activation(o, "activation_function");
  const std::string& style = o.word("update_style");
  if (style == "res_avg")
    c.update_style = UpdateStyle::res_avg;
  else if (style == "res_incr")
    c.update_style = UpdateStyle::res_incr;
  else if (style == "res_residual")
    c.update_style = UpdateStyle::res_residual;
  else
    throw unsupported(o.path("update_style"), " is '", printable(style),
                      "'; supported are res_avg, res_incr, res_residual");
  c.use_sqrt_nnei = o.boolean("use_sqrt_nnei");
  c.g1_out_conv = o.boolean("g1_out_conv");
  c.g1_out_mlp = o.boolean("g1_out_mlp");
  c.ln_eps = o.positive("ln_eps");
  o.finish();
  return c;
}

FittingConfig read_fitting(JsonObject o, int ntypes) {
  const std::string& type = o.word("type");
  if (type != "ener") throw unsupported("the fitting net is of type '", printable(type), "'; supported is ener");
  FittingConfig c;
  check_precision(o, "precision");
  c.neuron = read_widths(o, "neuron", 0);  // without hidden layers the net is linear in its input
  c.activation = read_activation(o, "activation_function");
  c.resnet_dt = o.boolean("resnet_dt");
  c.numb_fparam = o.integer("numb_fparam", 0, max_size);
  c.numb_aparam = o.integer("numb_aparam", 0, max_size);
  if (!o.is_null("default_fparam")) {
    c.default_fparam = o.numbers("default_fparam");
    if (c.default_fparam->size() != static_cast<std::size_t>(c.numb_fparam))
      throw inconsistent(o.path("default_fparam"), " has ", c.default_fparam->size(), " entries, but numb_fparam is ",
                         c.numb_fparam);
  }
  c.dim_case_embd = o.integer("dim_case_embd", 0, max_size);
  c.use_aparam_as_mask = o.boolean("use_aparam_as_mask");
  const std::vector<std::optional<double>> energies = o.holes("atom_ener");
  if (energies.size() > static_cast<std::size_t>(ntypes))
    throw inconsistent(o.path("atom_ener"), " has ", energies.size(), " entries, but there are ", ntypes, " types");
  for (const std::optional<double>& e : energies) c.has_atom_ener = c.has_atom_ener || e.has_value();
  o.finish();
  return c;
}

TableConfig read_table(JsonObject o) {
  TableConfig c;
  c.lower = o.number("lower");
  c.step = o.positive("step");
  const std::vector<int> flat = o.tuples("segments", 2, 1, static_cast<int>(max_cells));
  o.finish();
  for (std::size_t k = 0; k < flat.size(); k += 2) c.segments.emplace_back(flat[k], flat[k + 1]);
  if (c.segments.empty() || c.segments.size() > max_segments)
    throw inconsistent(o.path("segments"), " must have 1 to ", max_segments, " entries");
  if (c.cells() > max_cells || c.intervals() > max_intervals)
    throw inconsistent(o.path("segments"), " has more than ", max_intervals, " intervals or ", max_cells, " steps");
  const double upper = c.lower + c.step * static_cast<double>(c.cells());
  if (!std::isfinite(upper) || !(c.step > 1e-10 * std::max(std::abs(c.lower), std::abs(upper))))
    throw inconsistent(o.path("step"), " is ", c.step, ", too small or too large for a table from ", c.lower);
  return c;
}

void read_compression(Config& c, JsonObject o) {
  if (o.has("max_error")) (void)o.positive("max_error");
  if (o.has("repinit")) c.repinit_table = read_table(o.object("repinit"));
  if (o.has("three_body")) {
    if (!c.repinit.use_three_body) throw inconsistent(o.path("three_body"), " is a table of a block that the model does not have");
    c.three_body_table = read_table(o.object("three_body"));
  }
  o.finish();
}

void check_range(const char* block, double rcut_smth, double rcut) {
  if (!(rcut_smth >= 0.0 && rcut_smth < rcut))
    throw inconsistent(block, " has rcut_smth ", rcut_smth, " and rcut ", rcut, ", expected 0 <= rcut_smth < rcut");
}

// The three neighbour lists must be prefixes of one sorted list.
void check_lists(const RepinitConfig& ri, const RepformerConfig& rf) {
  check_range("repinit", ri.rcut_smth, ri.rcut);
  check_range("repformer", rf.rcut_smth, rf.rcut);
  if (rf.rcut >= ri.rcut || rf.nsel >= ri.nsel)
    throw inconsistent("rcut ", rf.rcut, " and nsel ", rf.nsel, " of repformer must be below those of repinit, ", ri.rcut, " and ",
                       ri.nsel);
  if (!ri.use_three_body) return;
  check_range("three-body", ri.three_body_rcut_smth, ri.three_body_rcut);
  std::array<std::pair<double, int>, 3> lists{{{rf.rcut, rf.nsel}, {ri.rcut, ri.nsel}, {ri.three_body_rcut, ri.three_body_sel}}};
  std::sort(lists.begin(), lists.end());
  for (std::size_t k = 1; k < lists.size(); ++k)
    if (lists[k].second < lists[k - 1].second)
      throw inconsistent("the neighbour list with the larger rcut ", lists[k].first, " has the smaller nsel ", lists[k].second);
}

void check_widths(const Config& c) {
  const RepinitConfig& ri = c.repinit;
  const RepformerConfig& rf = c.repformer;
  if (ri.axis_neuron > ri.neuron.back())
    throw inconsistent("repinit.axis_neuron ", ri.axis_neuron, " is above the last neuron ", ri.neuron.back());
  if (rf.axis_neuron > std::min(rf.g1_dim, rf.g2_dim))
    throw inconsistent("repformer.axis_neuron ", rf.axis_neuron, " is above g1_dim ", rf.g1_dim, " or g2_dim ", rf.g2_dim);
  if (rf.g1_out_mlp && !(rf.update_g1_has_conv && !rf.g1_out_conv) && !rf.update_g1_has_grrg && !rf.update_g1_has_drrd)
    throw inconsistent("nothing enters linear1 of the repformer");
  const auto product = [](const char* what, std::int64_t a, std::int64_t b, std::int64_t most = max_product) {
    if (a > most / b) throw inconsistent(what, " is unreasonably large: ", a, " times ", b);
  };
  product("the width of repinit", ri.neuron.back(), ri.axis_neuron);
  product("the symmetrised width of the repformer", rf.axis_neuron, std::int64_t{rf.g1_dim} + rf.g2_dim);
  product("the width of the local attention", std::int64_t{rf.attn1_hidden} + rf.g1_dim, rf.attn1_nhead);
  product("the width of the pair attention", std::int64_t{2} * rf.attn2_hidden + rf.g2_dim, rf.attn2_nhead);
  int widest = std::max(2 * ri.tebd_dim + 1, *std::max_element(ri.neuron.begin(), ri.neuron.end()));
  if (ri.use_three_body) widest = std::max(widest, *std::max_element(ri.three_body_neuron.begin(), ri.three_body_neuron.end()));
  product("the table of pairs of types", std::int64_t{c.ntypes()} * c.ntypes(), widest, max_folded);
  if (rf.update_g2_has_attn || rf.update_h2)
    product("the map of the pair attention", std::int64_t{rf.g2_dim} * rf.attn2_nhead, rf.g2_dim, max_folded);
}

}  // namespace

std::int64_t TableConfig::intervals() const {
  std::int64_t n = 0;
  for (const auto& [count, width] : segments) n += count;
  return n;
}

std::int64_t TableConfig::cells() const {
  std::int64_t n = 0;
  for (const auto& [count, width] : segments) n += std::int64_t{count} * width;
  return n;
}

Config parse_config(const std::string& json) {
  const Json root = parse_json_object(json, "the configuration");
  JsonObject o(root, "");
  const int version = o.integer("format_version", 1, max_size);
  if (version > format_version)
    throw unsupported("the model has format version ", version, "; this library reads up to ", format_version);

  Config c;
  c.json = json;
  c.type_map = o.words("type_map");
  if (c.type_map.empty() || c.type_map.size() > max_types) throw inconsistent("type_map must have 1 to ", max_types, " entries");
  if (std::set<std::string>(c.type_map.begin(), c.type_map.end()).size() != c.type_map.size())
    throw inconsistent("a type occurs twice in type_map");
  c.precision = o.word("precision");
  if (c.precision != "float64" && c.precision != "float32")
    throw inconsistent("precision is '", printable(c.precision), "', expected float64 or float32");
  c.pair_exclude_types = read_pairs(o, "pair_exclude_types", c.ntypes());
  c.atom_exclude_types = o.integers("atom_exclude_types", 0, c.ntypes() - 1);
  c.min_nbor_dist = o.optional_number("min_nbor_dist");
  if (!o.is_null("head")) (void)o.word("head");

  JsonObject d = o.object("descriptor");
  const std::string& type = d.word("type");
  if (type != "dpa2") throw unsupported("the descriptor is '", printable(type), "'; supported is dpa2");
  check_precision(d, "precision");
  c.smooth = d.boolean("smooth");
  c.exclude_types = read_pairs(d, "exclude_types", c.ntypes());
  c.env_protection = d.number("env_protection");
  if (c.env_protection < 0.0) throw inconsistent(d.path("env_protection"), " is ", c.env_protection, ", expected at least 0");
  c.concat_output_tebd = d.boolean("concat_output_tebd");
  c.add_tebd_to_repinit_out = d.boolean("add_tebd_to_repinit_out");
  c.use_econf_tebd = d.boolean("use_econf_tebd");
  c.use_tebd_bias = d.boolean("use_tebd_bias");
  c.repinit = read_repinit(d.object("repinit"));
  c.repformer = read_repformer(d.object("repformer"));
  d.finish();
  c.fitting = read_fitting(o.object("fitting_net"), c.ntypes());
  if (o.has("compression")) read_compression(c, o.object("compression"));
  o.finish();

  check_lists(c.repinit, c.repformer);
  check_widths(c);
  return c;
}

}  // namespace dpa2
