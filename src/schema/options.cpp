#include "schema/options.hpp"

#include <algorithm>
#include <initializer_list>
#include <type_traits>

namespace dpa2 {
namespace {

constexpr double max_size = max_neighbours;  // of a width or a list
constexpr double max_rcut = 1e4;             // angstrom
constexpr std::size_t max_types = 10'000, max_layers = 100, max_exclusions = 100'000, max_segments = 10'000;

Values any() { return {}; }

Values from(double lowest, double highest) {
  Values v;
  v.lowest = lowest;
  v.highest = highest;
  return v;
}

Values size() { return from(1, max_size); }
Values count() { return from(0, max_size); }

Values at_least(double lowest) {
  Values v;
  v.lowest = lowest;
  return v;
}

Values positive() {
  Values v;
  v.positive = true;
  return v;
}

Values length() {
  Values v = positive();
  v.highest = max_rcut;
  return v;
}

Values entries(std::size_t fewest, std::size_t most, Values v = {}) {
  v.fewest = fewest;
  v.most = most;
  return v;
}

Values list() { return entries(0, max_types); }
Values widths(std::size_t fewest = 1) { return entries(fewest, max_layers, size()); }

Values one_of(std::vector<const char*> choices) {
  Values v;
  v.choices = std::move(choices);
  return v;
}

Values of_types() {
  Values v = entries(0, max_exclusions);
  v.types = true;
  return v;
}

Values block_precision() { return one_of({"float64", "float32", "float16", "bfloat16"}); }

// ----------------------------------------------------------------------------------------------- as plain structures

Json plain(bool value, const Values& v) { return v.choices.empty() ? Json(value) : Json(v.choices[value ? 1 : 0]); }
Json plain(UpdateStyle value, const Values& v) { return v.choices[static_cast<std::size_t>(value)]; }
Json plain(FittingType value, const Values&) { return fitting_name(value); }
Json plain(const ActivationConfig& value, const Values&) {
  const auto& known = activations();
  return std::find_if(known.begin(), known.end(), [&](const NamedActivation& a) { return a.kind == value.kind; })->name;
}
template <class T>
Json plain(const T& value, const Values&) {
  return value;
}
template <class T>
Json plain(const std::optional<T>& value, const Values& v) {
  return value ? plain(*value, v) : Json();
}
Json plain(const std::vector<std::optional<double>>& values, const Values& v) {
  Json list = Json::array();
  for (const std::optional<double>& value : values) list.push_back(plain(value, v));
  return list;
}

const char* kind(const bool*, const Values& v) { return v.choices.empty() ? "boolean" : "choice"; }
const char* kind(const int*, const Values&) { return "integer"; }
const char* kind(const double*, const Values&) { return "number"; }
const char* kind(const std::string*, const Values& v) { return v.choices.empty() ? "text" : "choice"; }
const char* kind(const UpdateStyle*, const Values&) { return "choice"; }
const char* kind(const FittingType*, const Values&) { return "choice"; }
const char* kind(const ActivationConfig*, const Values&) { return "activation"; }
const char* kind(const std::vector<int>*, const Values&) { return "integers"; }
const char* kind(const std::vector<double>*, const Values&) { return "numbers"; }
const char* kind(const std::vector<std::string>*, const Values&) { return "texts"; }
const char* kind(const std::vector<std::pair<int, int>>*, const Values&) { return "pairs"; }
const char* kind(const std::vector<std::optional<double>>*, const Values&) { return "holes"; }
template <class T>
const char* kind(const std::optional<T>*, const Values& v) {
  return kind(static_cast<const T*>(nullptr), v);
}

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

template <class Section>
Json plain_section(const Options<Section>& options) {
  const Section defaults;
  Json list = Json::array();
  for (const Option<Section>& option : options) {
    const Values& v = option.values;
    Json one;
    one["key"] = option.key;
    std::visit(
        [&](auto member) {
          using T = std::decay_t<decltype(defaults.*member)>;
          one["kind"] = kind(static_cast<const T*>(nullptr), v);
          one["null"] = IsOptional<T>::value;
          if (option.presence == Presence::has_default) one["default"] = plain(defaults.*member, v);
        },
        option.member);
    one["presence"] = option.presence == Presence::required ? "required" : option.presence == Presence::optional ? "optional" : "default";
    if (v.lowest) one["lowest"] = *v.lowest;
    if (v.highest) one["highest"] = *v.highest;
    one["positive"] = v.positive;
    one["types"] = v.types;
    one["fewest"] = v.fewest;
    one["most"] = v.most;
    one["choices"] = Json::array();
    for (const char* choice : v.choices) one["choices"].push_back(choice);
    list.push_back(std::move(one));
  }
  return list;
}

}  // namespace

const std::vector<NamedActivation>& activations() {
  static const std::vector<NamedActivation> table{
      {"tanh", Activation::tanh},         {"relu", Activation::relu},         {"relu6", Activation::relu6},
      {"sigmoid", Activation::sigmoid},   {"softplus", Activation::softplus}, {"gelu", Activation::gelu},
      {"gelu_tf", Activation::gelu},      {"silu", Activation::silu},         {"silut", Activation::silut},
      {"custom_silu", Activation::silut}, {"linear", Activation::linear},     {"none", Activation::linear}};
  return table;
}

const std::vector<const char*>& fitting_names() {
  static const std::vector<const char*> names{"ener", "dipole", "polar", "dos", "property", "population"};
  return names;
}

const char* fitting_name(FittingType type) noexcept { return fitting_names()[static_cast<std::size_t>(type)]; }

const char* combination_name(Combination type) noexcept {
  switch (type) {
    case Combination::linear:
      return "linear_ener";
    case Combination::zbl:
      return "zbl";
    case Combination::spin:
      return "spin";
    case Combination::none:
      break;
  }
  return "standard";
}

const Options<Config>& model_options() {
  using C = Config;
  static const Options<C> table{
      {"type_map", &C::type_map, entries(1, max_types), Presence::required},  // first: the indices of types below depend on it
      {"precision", &C::precision, one_of({"float64", "float32"}), Presence::required},
      {"pair_exclude_types", &C::pair_exclude_types, of_types()},
      {"atom_exclude_types", &C::atom_exclude_types, of_types()},
      {"min_nbor_dist", &C::min_nbor_dist, any()},
      {"head", &C::head, any()},
      {"hessian_mode", &C::hessian_mode, any(), Presence::optional},
  };
  return table;
}

const Options<Config>& type_options() {
  static const Options<Config> table{model_options().front()};
  return table;
}

const Options<Config>& descriptor_options() {
  using C = Config;
  static const Options<C> table{
      {"type", &C::descriptor_type, one_of({"dpa2"})},
      {"precision", &C::descriptor_precision, block_precision()},
      {"smooth", &C::smooth, any()},
      {"exclude_types", &C::exclude_types, of_types()},
      {"env_protection", &C::env_protection, at_least(0)},
      {"concat_output_tebd", &C::concat_output_tebd, any()},
      {"add_tebd_to_repinit_out", &C::add_tebd_to_repinit_out, any()},
      {"use_econf_tebd", &C::use_econf_tebd, any()},
      {"use_tebd_bias", &C::use_tebd_bias, any()},
  };
  return table;
}

const Options<Config>& se_options() {
  using C = Config;
  static const Options<C> table{
      {"precision", &C::descriptor_precision, block_precision()},
      {"exclude_types", &C::exclude_types, of_types()},
      {"env_protection", &C::env_protection, at_least(0)},
  };
  return table;
}

namespace {

/// What the blocks of se_e2_a and dpa1 have in common, and what one has of its own.
template <class C>
Options<C> block_options(Options<C> own) {
  Options<C> table{
      {"rcut", &C::rcut, length(), Presence::required},
      {"rcut_smth", &C::rcut_smth, any(), Presence::required},
      {"neuron", &C::neuron, widths()},
      {"axis_neuron", &C::axis_neuron, size()},
      {"activation_function", &C::activation, any()},
      {"resnet_dt", &C::resnet_dt, any()},
      {"type_one_side", &C::type_one_side, any()},
  };
  table.insert(table.end(), own.begin(), own.end());
  return table;
}

}  // namespace

const Options<SeE2aConfig>& se_e2_a_options() {
  using C = SeE2aConfig;
  static const Options<C> table = block_options<C>({{"sel", &C::sel, entries(1, max_types, count()), Presence::required}});
  return table;
}

const Options<Config>& dpa1_options() {
  using C = Config;
  static const Options<C> table{
      {"smooth_type_embedding", &C::smooth, any()},
      {"concat_output_tebd", &C::concat_output_tebd, any()},
      {"use_econf_tebd", &C::use_econf_tebd, any()},
      {"use_tebd_bias", &C::use_tebd_bias, any()},
  };
  return table;
}

const Options<Dpa1Config>& dpa1_block_options() {
  using C = Dpa1Config;
  static const Options<C> table = block_options<C>({
      {"sel", &C::nsel, size(), Presence::required},
      {"tebd_dim", &C::tebd_dim, size()},
      {"tebd_input_mode", &C::strip, one_of({"concat", "strip"})},
      {"attn_layer", &C::attn_layer, from(0, 0), Presence::required},
  });
  return table;
}

const Options<RepinitConfig>& repinit_options() {
  using C = RepinitConfig;
  static const Options<C> table{
      {"rcut", &C::rcut, length(), Presence::required},
      {"rcut_smth", &C::rcut_smth, any(), Presence::required},
      {"nsel", &C::nsel, size(), Presence::required},
      {"neuron", &C::neuron, widths()},
      {"axis_neuron", &C::axis_neuron, size()},
      {"tebd_dim", &C::tebd_dim, size()},
      {"tebd_input_mode", &C::strip, one_of({"concat", "strip"})},
      {"activation_function", &C::activation, any()},
      {"resnet_dt", &C::resnet_dt, any()},
      {"type_one_side", &C::type_one_side, any()},
      {"use_three_body", &C::use_three_body, any()},
      {"three_body_neuron", &C::three_body_neuron, widths()},
      {"three_body_rcut", &C::three_body_rcut, length()},
      {"three_body_rcut_smth", &C::three_body_rcut_smth, any()},
      {"three_body_sel", &C::three_body_sel, size()},
  };
  return table;
}

const Options<RepformerConfig>& repformer_options() {
  using C = RepformerConfig;
  static const Options<C> table{
      {"rcut", &C::rcut, length(), Presence::required},
      {"rcut_smth", &C::rcut_smth, any(), Presence::required},
      {"nsel", &C::nsel, size(), Presence::required},
      {"nlayers", &C::nlayers, from(1, 1000)},
      {"g1_dim", &C::g1_dim, size()},
      {"g2_dim", &C::g2_dim, size()},
      {"axis_neuron", &C::axis_neuron, size()},
      {"direct_dist", &C::direct_dist, any()},
      {"update_g1_has_conv", &C::update_g1_has_conv, any()},
      {"update_g1_has_drrd", &C::update_g1_has_drrd, any()},
      {"update_g1_has_grrg", &C::update_g1_has_grrg, any()},
      {"update_g1_has_attn", &C::update_g1_has_attn, any()},
      {"update_g2_has_g1g1", &C::update_g2_has_g1g1, any()},
      {"update_g2_has_attn", &C::update_g2_has_attn, any()},
      {"update_h2", &C::update_h2, any()},
      {"attn1_hidden", &C::attn1_hidden, size()},
      {"attn1_nhead", &C::attn1_nhead, size()},
      {"attn2_hidden", &C::attn2_hidden, size()},
      {"attn2_nhead", &C::attn2_nhead, size()},
      {"attn2_has_gate", &C::attn2_has_gate, any()},
      {"activation_function", &C::activation, any()},
      {"update_style", &C::update_style, one_of({"res_avg", "res_incr", "res_residual"})},
      {"use_sqrt_nnei", &C::use_sqrt_nnei, any()},
      {"g1_out_conv", &C::g1_out_conv, any()},
      {"g1_out_mlp", &C::g1_out_mlp, any()},
      {"ln_eps", &C::ln_eps, positive()},
  };
  return table;
}

const Options<FittingConfig>& fitting_options() {
  using C = FittingConfig;
  static const Options<C> table{
      {"type", &C::type, one_of(fitting_names())},
      {"neuron", &C::neuron, widths(0)},  // without hidden layers the net is linear in its input
      {"activation_function", &C::activation, any()},
      {"resnet_dt", &C::resnet_dt, any()},
      {"numb_fparam", &C::numb_fparam, count()},
      {"numb_aparam", &C::numb_aparam, count()},
      {"default_fparam", &C::default_fparam, list()},
      {"dim_case_embd", &C::dim_case_embd, count()},
      {"use_aparam_as_mask", &C::use_aparam_as_mask, any()},
      {"atom_ener", &C::atom_ener, list()},
      {"precision", &C::precision, block_precision()},
  };
  return table;
}

const Options<FittingConfig>& fitting_options(FittingType type) {
  using C = FittingConfig;
  static const Options<C> none,
      polar{{"fit_diag", &C::fit_diag, any()}, {"shift_diag", &C::shift_diag, any()}, {"scale", &C::scale, list(), Presence::required}},
      dos{{"numb_dos", &C::numb_dos, size()}},
      property{{"property_name", &C::property_name, any(), Presence::required},
               {"task_dim", &C::task_dim, size()},
               {"intensive", &C::intensive, any()},
               {"distinguish_types", &C::distinguish_types, any()}};
  switch (type) {
    case FittingType::polar:
      return polar;
    case FittingType::dos:
      return dos;
    case FittingType::property:
      return property;
    case FittingType::ener:
    case FittingType::dipole:
    case FittingType::population:
      break;
  }
  return none;
}

const Options<Config>& linear_options() {
  static const Options<Config> table{{"weights", &Config::weights, entries(1, max_models), Presence::required}};
  return table;
}

const Options<Config>& zbl_options() {
  using C = Config;
  static const Options<C> table{{"sw_rmin", &C::sw_rmin, any(), Presence::required},
                                {"sw_rmax", &C::sw_rmax, any(), Presence::required},
                                {"smin_alpha", &C::smin_alpha, positive()}};
  return table;
}

const Options<Config>& spin_options() {
  using C = Config;
  static const Options<C> table{{"use_spin", &C::use_spin, of_types(), Presence::required},
                                {"virtual_scale", &C::virtual_scale, entries(1, max_types), Presence::required}};
  return table;
}

const Options<PairTableConfig>& pair_table_options() {
  using C = PairTableConfig;
  static const Options<C> table{
      {"rcut", &C::rcut, length(), Presence::required},     {"sel", &C::nsel, size(), Presence::required},
      {"rmin", &C::rmin, at_least(0), Presence::required},  {"step", &C::step, positive(), Presence::required},
      {"nspline", &C::nspline, size(), Presence::required},
  };
  return table;
}

const Options<Config>& compression_options() {
  static const Options<Config> table{{"max_error", &Config::max_error, positive(), Presence::optional}};
  return table;
}

const Options<TableConfig>& table_options() {
  using C = TableConfig;
  static const Options<C> table{
      {"lower", &C::lower, any(), Presence::required},
      {"step", &C::step, positive(), Presence::required},
      {"segments", &C::segments, entries(1, max_segments, from(1, static_cast<double>(max_steps))), Presence::required},
  };
  return table;
}

Json config_schema() {
  Json schema;
  schema["format_version"] = format_version;
  for (const NamedActivation& a : activations()) schema["activations"][a.name] = a.kind == Activation::silut;
  schema["table"] = {{"intervals", max_intervals}, {"steps", max_steps}};
  Json& sections = schema["sections"];
  sections["model"] = plain_section(model_options());
  sections["descriptor"] = plain_section(descriptor_options());
  sections["repinit"] = plain_section(repinit_options());
  sections["repformer"] = plain_section(repformer_options());
  const auto joined = [](std::initializer_list<Json> lists) {
    Json all = Json::array();
    for (const Json& list : lists) all.insert(all.end(), list.begin(), list.end());
    return all;
  };
  sections["se_e2_a"] = joined({plain_section(se_options()), plain_section(se_e2_a_options())});
  sections["dpa1"] = joined({plain_section(se_options()), plain_section(dpa1_options()), plain_section(dpa1_block_options())});
  sections["fitting_net"] = plain_section(fitting_options());
  for (const FittingType type : {FittingType::polar, FittingType::dos, FittingType::property})
    sections[std::string("fitting_net.") + fitting_name(type)] = plain_section(fitting_options(type));
  sections[combination_name(Combination::linear)] = plain_section(linear_options());
  sections[combination_name(Combination::zbl)] = plain_section(zbl_options());
  sections[combination_name(Combination::spin)] = plain_section(spin_options());
  sections[pair_table_name] = plain_section(pair_table_options());
  sections["compression"] = plain_section(compression_options());
  sections["table"] = plain_section(table_options());
  return schema;
}

}  // namespace dpa2
