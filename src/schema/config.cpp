#include "schema/config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "error.hpp"
#include "schema/features.hpp"
#include "schema/hybrid.hpp"
#include "schema/json.hpp"
#include "schema/options.hpp"
#include "schema/reader.hpp"

namespace dpa2 {
namespace {

constexpr std::int64_t max_product = 100'000'000;  // of two widths that make one dimension

void check_table(const JsonObject& o, const TableConfig& c) {
  if (c.cells() > max_steps || c.intervals() > max_intervals)
    throw inconsistent(o.path("segments"), " has more than ", max_intervals, " intervals or ", max_steps, " steps");
  const double upper = c.lower + c.step * static_cast<double>(c.cells());
  if (!std::isfinite(upper) || !(c.step > 1e-10 * std::max(std::abs(c.lower), std::abs(upper))))
    throw inconsistent(o.path("step"), " is ", c.step, ", too small or too large for a table from ", c.lower);
}

void read_compression(Config& c, JsonObject o) {
  const Reader reader(c);
  reader.read(o, compression_options(), c);
  const auto table = [&](const char* key) {
    std::optional<TableConfig> out;
    if (!o.has(key)) return out;
    JsonObject grid = o.object(key);
    reader.read(grid, table_options(), out.emplace());
    grid.finish();
    check_table(grid, *out);
    return out;
  };
  c.repinit_table = table("repinit");
  if (o.has("three_body") && !c.repinit.use_three_body)
    throw inconsistent(o.path("three_body"), " is a table of a block that the model does not have");
  c.three_body_table = table("three_body");
  o.finish();
}

void check_fitting(FittingConfig& c, const JsonObject& o, int ntypes, int n2) {
  if (c.type == FittingType::polar && c.scale.size() != static_cast<std::size_t>(ntypes))
    throw inconsistent(o.path("scale"), " has ", c.scale.size(), " entries, but there are ", ntypes, " types");
  if (c.type == FittingType::property && c.property_name.empty()) throw inconsistent(o.path("property_name"), " is empty");
  if (c.has_atom_ener && c.type != FittingType::ener && c.type != FittingType::property)
    throw inconsistent(o.path("atom_ener"), " is set, but the network gives no energies");
  if (c.width(n2) * ntypes > max_folded) throw inconsistent(o.path("type"), " asks for an unreasonably wide output, ", c.width(n2));
  if (c.default_fparam && c.default_fparam->size() != static_cast<std::size_t>(c.numb_fparam))
    throw inconsistent(o.path("default_fparam"), " has ", c.default_fparam->size(), " entries, but numb_fparam is ", c.numb_fparam);
  if (c.atom_ener.size() > static_cast<std::size_t>(ntypes))
    throw inconsistent(o.path("atom_ener"), " has ", c.atom_ener.size(), " entries, but there are ", ntypes, " types");
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
  const LayerFeatures has = layer_features(rf, 0);
  if (has.self && !(has.conv && !has.out_conv) && !has.grrg && !has.drrd) throw inconsistent("nothing enters linear1 of the repformer");
  const auto product = [](const char* what, std::int64_t a, std::int64_t b, std::int64_t most = max_product) {
    if (a > most / b) throw inconsistent(what, " is unreasonably large: ", a, " times ", b);
  };
  product("the width of repinit", ri.neuron.back(), ri.axis_neuron);
  product("the symmetrised width of the repformer", rf.axis_neuron, std::int64_t{rf.g1_dim} + rf.g2_dim);
  product("the width of the local attention", std::int64_t{rf.attn1_hidden} + rf.g1_dim, rf.attn1_nhead);
  product("the width of the pair attention", std::int64_t{2} * rf.attn2_hidden + rf.g2_dim, rf.attn2_nhead);
  int widest = std::max(2 * ri.tebd_dim + 1, *std::max_element(ri.neuron.begin(), ri.neuron.end()));
  if (ri.use_three_body) widest = std::max(widest, *std::max_element(ri.three_body_neuron.begin(), ri.three_body_neuron.end()));
  product(text("the table of pairs of ", c.ntypes(), " types").c_str(), std::int64_t{c.ntypes()} * c.ntypes(), widest, max_folded);
  if (has.pair_map()) product("the map of the pair attention", std::int64_t{rf.g2_dim} * rf.attn2_nhead, rf.g2_dim, max_folded);
}

/// A descriptor and the fitting network on it; the types are known.
void read_network(Config& c, JsonObject& o) {
  const Reader reader(c);
  JsonObject d = o.object("descriptor");
  const bool hybrid = is_hybrid(d);
  if (hybrid)
    read_hybrid(c, d);
  else
    read_dpa2(c, d);

  JsonObject fitting = o.object("fitting_net");
  reader.read(fitting, fitting_options(), c.fitting);
  reader.read(fitting, fitting_options(c.fitting.type), c.fitting);
  fitting.finish();
  for (const std::optional<double>& e : c.fitting.atom_ener) c.fitting.has_atom_ener = c.fitting.has_atom_ener || e.has_value();
  check_fitting(c.fitting, fitting, c.ntypes(), c.g2_dim());
  if (o.has("compression")) {
    if (hybrid) throw unsupported(o.path("compression"), " is there, and hybrid descriptors have no tables in place of their networks");
    read_compression(c, o.object("compression"));
  }
  if (!hybrid) check_dpa2(c);
}

void check_types(const Config& c, const JsonObject& o) {
  if (std::set<std::string>(c.type_map.begin(), c.type_map.end()).size() != c.type_map.size())
    throw inconsistent("a type occurs twice in ", o.path("type_map"));
}

int type_in(const Config& part, const std::string& name) {
  return static_cast<int>(std::find(part.type_map.begin(), part.type_map.end(), name) - part.type_map.begin());
}

/// A part of a combination: an energy model, or a pair table.
Config read_part(JsonObject o) {
  Config c;
  const Reader reader(c);
  reader.read(o, type_options(), c);
  check_types(c, o);
  if (o.has("type")) {
    if (o.word("type") != pair_table_name)
      throw unsupported(o.path("type"), " is '", printable(o.word("type")), "'; supported is ", pair_table_name);
    PairTableConfig& table = c.table.emplace();
    reader.read(o, pair_table_options(), table);
    if (!(table.rmin + table.step * table.nspline < 1e6))
      throw inconsistent(o.path("step"), " is ", table.step, ", the table would not end");
  } else {
    read_network(c, o);
    if (c.fitting.type != FittingType::ener)
      throw inconsistent(o.path("fitting_net"), " is of type '", fitting_name(c.fitting.type), "', and only energies can be put together");
  }
  o.finish();
  return c;
}

/// The lists of parts are cut one from the other, from the farthest to the nearest: each has no more than those before it.
void share_lists(Config& c) {
  const auto reach = [](const Config& part) { return std::pair(part.rcut(), part.nsel()); };
  for (Config& part : c.models) {
    int kept = part.nsel();
    for (const Config& other : c.models)
      if (reach(other) >= reach(part)) kept = std::min(kept, other.nsel());
    if (kept < part.nsel() && part.hybrid())
      throw unsupported("models[", &part - c.models.data(), "] has a hybrid descriptor whose list of ", part.nsel(),
                        " neighbours is cut to ", kept, " by that of another model: deepmd-kit itself cannot evaluate this");
    if (kept < part.nsel()) part.kept = kept;
    for (const auto& [a, b] : c.pair_exclude_types)
      part.pair_exclude_types.emplace_back(type_in(part, c.type_map[static_cast<std::size_t>(a)]),
                                           type_in(part, c.type_map[static_cast<std::size_t>(b)]));
  }
}

void check_combination(const Config& c) {
  const Config* first = nullptr;
  const Parameters all = c.parameters();
  for (std::size_t k = 0; k < c.models.size(); ++k) {
    const Config& part = c.models[k];
    for (const std::string& name : c.type_map)
      if (std::find(part.type_map.begin(), part.type_map.end(), name) == part.type_map.end())
        throw inconsistent("models[", k, "] does not have the type '", printable(name), "'");
    if (part.table) continue;
    if (first == nullptr) first = &part;
    const FittingConfig& f = part.fitting;
    const auto agree = [](int a, int b) { return a == b || a == 0 || b == 0; };  // a network without parameters does not look at them
    if (!agree(f.numb_fparam, all.fparam) || !agree(f.numb_aparam, all.aparam))
      throw inconsistent("models[", k, "] has ", f.numb_fparam, " frame and ", f.numb_aparam, " atomic parameters, another one ",
                         all.fparam, " and ", all.aparam);
  }
  if (first == nullptr) throw unsupported("none of the models has a descriptor");
}

/// A virtual atom has the type of its atom + ntypes. Those of types without spins stand on their atoms, and nobody sees them; what is
/// excluded of the model is excluded of its network, whose virtual atoms have no energies.
void add_virtual_types(Config& c) {
  Config& network = c.models[0];
  network.first_virtual = c.ntypes();
  network.pair_exclude_types = c.pair_exclude_types;
  network.atom_exclude_types = c.atom_exclude_types;
  for (int type = 0; type < c.ntypes(); ++type) {
    network.atom_exclude_types.push_back(c.ntypes() + type);
    for (int other = 0; !c.has_spin(type) && other < network.ntypes(); ++other)
      network.pair_exclude_types.emplace_back(c.ntypes() + type, other);
  }
}

void check_spin(const Config& c, const JsonObject& o) {
  if (c.models.size() != 1 || c.models[0].table) throw inconsistent(o.path("models"), " must be one network");
  const Config& network = c.models[0];
  const std::size_t ntypes = c.type_map.size();
  bool doubled = network.type_map.size() == 2 * ntypes;
  for (std::size_t t = 0; doubled && t < ntypes; ++t)
    doubled = network.type_map[t] == c.type_map[t] && network.type_map[ntypes + t] == c.type_map[t] + "_spin";
  if (!doubled) throw inconsistent("the network of a spin model must have its types, and each again with _spin behind its name");
  if (std::set<int>(c.use_spin.begin(), c.use_spin.end()).size() != c.use_spin.size())
    throw inconsistent("a type occurs twice in ", o.path("use_spin"));
  if (c.virtual_scale.size() != ntypes)
    throw inconsistent(o.path("virtual_scale"), " has ", c.virtual_scale.size(), " entries, but there are ", ntypes, " types");
  if (network.hybrid()) throw unsupported("a spin model of a hybrid descriptor (descriptor.type 'hybrid') is not supported");
  if (!(network.env_protection > 0)) throw inconsistent("env_protection of a spin model must be above 0: virtual atoms stand on atoms");
}

void read_combination(Config& c, JsonObject& o) {
  const Reader reader(c);
  const std::string& type = o.word("type");
  const auto is = [&](Combination t) { return type == combination_name(t); };
  if (!is(Combination::linear) && !is(Combination::zbl) && !is(Combination::spin))
    throw unsupported(o.path("type"), " is '", printable(type), "'; supported are ", combination_name(Combination::linear), ", ",
                      combination_name(Combination::zbl), " and ", combination_name(Combination::spin));
  for (JsonObject& part : o.objects("models")) {
    if (c.models.size() == max_models) throw inconsistent(o.path("models"), " must have 1 to ", max_models, " entries");
    c.models.push_back(read_part(part));
  }
  c.type = is(Combination::zbl) ? Combination::zbl : is(Combination::spin) ? Combination::spin : Combination::linear;
  if (c.type == Combination::linear) {
    reader.read(o, linear_options(), c);
    if (c.weights.size() != c.models.size())
      throw inconsistent(o.path("weights"), " has ", c.weights.size(), " entries, but there are ", c.models.size(), " models");
  } else if (c.type == Combination::spin) {
    reader.read(o, spin_options(), c);
    check_spin(c, o);
  } else {
    reader.read(o, zbl_options(), c);
    if (!(c.sw_rmin < c.sw_rmax)) throw inconsistent("sw_rmax is ", c.sw_rmax, ", expected more than sw_rmin, ", c.sw_rmin);
    if (c.models.size() != 2 || c.models[0].table || !c.models[1].table)
      throw inconsistent(o.path("models"), " must be a network and a pair table");
    if (c.models[0].type_map != c.type_map || c.models[1].type_map != c.type_map)
      throw unsupported("the network and the table of a zbl model must have its types in its order");
    if (c.models[0].hybrid()) throw unsupported("a zbl model of a hybrid descriptor (descriptor.type 'hybrid') is not supported");
    const PairTableConfig& table = *c.models[1].table;
    if (table.rcut != c.models[0].repinit.rcut || table.nsel != c.models[0].repinit.nsel)
      throw inconsistent("the pair table has rcut ", table.rcut, " and sel ", table.nsel, ", the network ", c.models[0].repinit.rcut,
                         " and ", c.models[0].repinit.nsel);
  }
  check_combination(c);
  if (c.type == Combination::linear) share_lists(c);
  if (c.type == Combination::spin) add_virtual_types(c);
}

}  // namespace

void read_dpa2(Config& c, JsonObject& d) {
  const Reader reader(c);
  reader.read(d, descriptor_options(), c);
  JsonObject repinit = d.object("repinit"), repformer = d.object("repformer");
  reader.read(repinit, repinit_options(), c.repinit);
  repinit.finish();
  reader.read(repformer, repformer_options(), c.repformer);
  repformer.finish();
  d.finish();
}

void check_dpa2(const Config& c) {
  check_lists(c.repinit, c.repformer);
  check_widths(c);
}

std::int64_t FittingConfig::width(int n2) const {
  switch (type) {
    case FittingType::dipole:
      return n2;
    case FittingType::polar:
      return fit_diag ? std::int64_t{n2} : std::int64_t{n2} * n2;
    case FittingType::ener:
    case FittingType::dos:
    case FittingType::property:
    case FittingType::population:
      break;
  }
  return values();
}

int FittingConfig::values() const {
  switch (type) {
    case FittingType::ener:
      return 1;
    case FittingType::dipole:
      return 3;
    case FittingType::polar:
      return 9;
    case FittingType::dos:
      return numb_dos;
    case FittingType::property:
      return task_dim;
    case FittingType::population:
      return 2;
  }
  throw internal_error("a fitting network of an unknown type");
}

Parameters Config::parameters() const {
  Parameters all;
  const auto add = [&](const Config& network) {
    const FittingConfig& f = network.fitting;
    all.fparam = std::max(all.fparam, f.numb_fparam);
    all.aparam = std::max(all.aparam, f.numb_aparam);
    if (f.numb_fparam > 0 && !f.default_fparam) all.default_fparam = false;
    if (f.numb_aparam > 0 && !f.use_aparam_as_mask) all.aparam_needed = true;
  };
  if (type == Combination::none && !table) add(*this);
  for (const Config& part : models)
    if (!part.table) add(part);
  if (all.fparam == 0) all.default_fparam = false;
  return all;
}

const Config& Config::base() const {
  if (type == Combination::none) return *this;
  return *std::find_if(models.begin(), models.end(), [](const Config& part) { return !part.table; });
}

bool Config::has_spin(int of_type) const { return std::find(use_spin.begin(), use_spin.end(), of_type) != use_spin.end(); }

double Config::rcut() const {
  if (table) return table->rcut;
  const std::vector<Config>& parts = type == Combination::none ? descriptors : models;
  double most = parts.empty() ? repinit.rcut : 0;
  for (const Config& part : parts) most = std::max(most, part.rcut());
  return most;
}

int Config::nsel() const {
  if (table) return table->nsel;
  const std::vector<Config>& parts = type == Combination::none ? descriptors : models;
  int most = parts.empty() ? repinit.nsel : 0;
  for (const Config& part : parts) most = std::max(most, part.nsel());
  return most;
}

int Config::g2_dim() const {
  const Config& c = base();
  if (c.descriptors.empty()) return c.descriptor_type == "dpa2" ? c.repformer.g2_dim : c.repinit.neuron.back();
  int sum = 0;
  for (const Config& part : c.descriptors) sum += part.g2_dim();
  return sum;
}

int Config::descriptor_dim() const {
  const Config& c = base();
  if (c.descriptors.empty()) {
    const int types = c.concat_output_tebd && c.descriptor_type != "se_e2_a" ? c.repinit.tebd_dim : 0;
    return (c.descriptor_type == "dpa2" ? c.repformer.g1_dim : c.repinit_dim()) + types;
  }
  int sum = 0;
  for (const Config& part : c.descriptors) sum += part.descriptor_dim();
  return sum;
}

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
  const int version = o.integer("format_version", 1, 1'000'000);
  if (version > format_version) throw unsupported("the model has format version ", version, "; this library reads up to ", format_version);

  Config c;
  const Reader reader(c);
  c.json = json;
  reader.read(o, model_options(), c);
  check_types(c, o);
  if (o.has("type"))
    read_combination(c, o);
  else
    read_network(c, o);
  if (c.hessian_mode && (c.type != Combination::none || c.fitting.type != FittingType::ener))
    throw inconsistent(o.path("hessian_mode"), " is set, and only models of energies, made of one network, have Hessians as outputs");
  o.finish();
  return c;
}

}  // namespace dpa2
