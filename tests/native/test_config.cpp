// The configuration: every option arrives, and every inconsistent one is refused with a message that names it.
#include <functional>
#include <string>

#include "check.hpp"
#include "error.hpp"
#include "sample.hpp"
#include "schema/weights.hpp"

namespace {

using namespace dpa2;

void test_values() {
  const std::string text = sample::config().dump();
  const Config c = parse_config(text);
  CHECK(c.json == text && c.ntypes() == 2 && c.type_map[1] == "H" && c.precision == "float64");
  CHECK(c.pair_exclude_types == (std::vector<std::pair<int, int>>{{0, 1}}));
  CHECK(c.exclude_types == (std::vector<std::pair<int, int>>{{1, 1}}));
  CHECK(c.atom_exclude_types == std::vector<int>{1} && c.min_nbor_dist == 0.9);
  CHECK(c.smooth && c.concat_output_tebd && c.add_tebd_to_repinit_out && !c.use_econf_tebd && c.use_tebd_bias);
  CHECK(c.repinit.rcut == 6.0 && c.repinit.nsel == 120 && c.repinit.neuron == (std::vector<int>{3, 6, 12}) && c.repinit.strip);
  CHECK(c.repinit.three_body_sel == 40 && c.repinit.three_body_rcut_smth == 3.5 && c.repinit.activation.kind == Activation::tanh);
  CHECK(c.repformer.activation.kind == Activation::silut && c.repformer.activation.threshold == 2.5);
  CHECK(c.repformer.update_style == UpdateStyle::res_residual && c.repformer.update_h2 && !c.repformer.g1_out_conv);
  CHECK(c.repformer.attn2_nhead == 3 && c.repformer.attn1_hidden == 3 && c.repformer.ln_eps == 1e-5);
  CHECK(c.fitting.neuron == (std::vector<int>{6, 6}) && c.fitting.has_atom_ener && c.fitting.default_fparam->at(1) == -1.0);
  CHECK(c.descriptor_dim() == 18 && c.repinit_dim() == 12 * 4 + 4 && c.tebd_input() == 2);

  for (const char* name : {"silut", "custom_silu"}) {
    Json j = sample::config();
    j["descriptor"]["repformer"]["activation_function"] = name;
    CHECK(parse_config(j.dump()).repformer.activation.threshold == 3.0);
  }
  Json j = sample::config();
  j["fitting_net"]["atom_ener"] = Json::array({nullptr, nullptr});
  j["fitting_net"]["activation_function"] = "None";
  CHECK(!parse_config(j.dump()).fitting.has_atom_ener && parse_config(j.dump()).fitting.activation.kind == Activation::linear);
  j["fitting_net"]["neuron"] = Json::array();  // no hidden layers: linear in the descriptor
  CHECK(parse_config(j.dump()).fitting.neuron.empty());
}

void refuse(Status status, const char* part, const std::function<void(Json&)>& change) {
  Json j = sample::config();
  change(j);
  CHECK_THROWS(parse_config(j.dump()), status, part);
}

void test_refused() {
  const Status bad = Status::model_file, unknown = Status::unsupported;
  const auto repinit = [](Json& j) -> Json& { return j["descriptor"]["repinit"]; };
  const auto repformer = [](Json& j) -> Json& { return j["descriptor"]["repformer"]; };
  refuse(bad, "descriptor.repinit.rcut is missing", [&](Json& j) { repinit(j).erase("rcut"); });
  refuse(bad, "type_map is missing", [](Json& j) { j.erase("type_map"); });
  refuse(bad, "descriptor.repinit.rcut is 'six'", [&](Json& j) { repinit(j)["rcut"] = "six"; });
  refuse(bad, "descriptor.repinit.rcut is -6", [&](Json& j) { repinit(j)["rcut"] = -6.0; });
  refuse(bad, "descriptor.repinit.rcut is 1e+09", [&](Json& j) { repinit(j)["rcut"] = 1e9; });
  refuse(bad, "descriptor.repinit.nsel is 0", [&](Json& j) { repinit(j)["nsel"] = 0; });
  refuse(bad, "descriptor.repinit.nsel is 1.5", [&](Json& j) { repinit(j)["nsel"] = 1.5; });
  refuse(bad, "descriptor.repinit.nsel is 1e+300", [&](Json& j) { repinit(j)["nsel"] = 1e300; });
  refuse(bad, "descriptor.repinit.nsel is true", [&](Json& j) { repinit(j)["nsel"] = true; });
  refuse(bad, "descriptor.repinit.neuron", [&](Json& j) { repinit(j)["neuron"] = Json::array(); });
  refuse(bad, "descriptor.repinit.neuron is -4", [&](Json& j) { repinit(j)["neuron"] = {4, -4}; });
  refuse(bad, "descriptor.repinit.neuron is 99999999", [&](Json& j) { repinit(j)["neuron"] = {99999999}; });
  refuse(bad, "descriptor.repinit.neuron is null, expected a list", [&](Json& j) { repinit(j)["neuron"] = nullptr; });
  refuse(bad, "descriptor.smooth is 1", [](Json& j) { j["descriptor"]["smooth"] = 1; });
  refuse(bad, "descriptor.repformer is a list", [](Json& j) { j["descriptor"]["repformer"] = Json::array(); });
  refuse(bad, "repinit has rcut_smth 6", [&](Json& j) { repinit(j)["rcut_smth"] = 6.0; });
  refuse(bad, "repformer has rcut_smth -0.5", [&](Json& j) { repformer(j)["rcut_smth"] = -0.5; });
  refuse(bad, "must be below those of repinit", [&](Json& j) { repformer(j)["rcut"] = 6.0; });
  refuse(bad, "must be below those of repinit", [&](Json& j) { repformer(j)["nsel"] = 120; });
  refuse(bad, "has the smaller nsel 30", [&](Json& j) {
    repinit(j)["three_body_rcut"] = 5.0;
    repinit(j)["three_body_sel"] = 30;
  });
  refuse(bad, "repinit.axis_neuron 13", [&](Json& j) { repinit(j)["axis_neuron"] = 13; });
  refuse(bad, "repformer.axis_neuron 6", [&](Json& j) { repformer(j)["axis_neuron"] = 6; });
  refuse(bad, "nothing enters linear1", [&](Json& j) {
    for (const char* key : {"update_g1_has_conv", "update_g1_has_drrd", "update_g1_has_grrg"}) repformer(j)[key] = false;
  });
  refuse(bad, "unreasonably large", [&](Json& j) {
    repinit(j)["neuron"] = {1000000};
    repinit(j)["axis_neuron"] = 1000000;
  });
  // What a small file could make the preparation of a model compute and keep.
  refuse(bad, "the table of pairs of 600 types is unreasonably large: 360000 times 100", [&](Json& j) {
    j["type_map"] = Json::array();
    for (int t = 0; t < 600; ++t) j["type_map"].push_back("T" + std::to_string(t));
    repinit(j)["neuron"] = {100};
  });
  refuse(bad, "segments must have 1 to 10000 entries", [&](Json& j) {
    j["compression"]["repinit"] = {{"lower", 0.0}, {"step", 1.0}, {"segments", Json::array()}};
    for (int k = 0; k < 10001; ++k) j["compression"]["repinit"]["segments"].push_back({4000000, 4000000});
  });
  refuse(bad, "the map of the pair attention is unreasonably large: 500000 times 100", [&](Json& j) {
    repformer(j)["g2_dim"] = 100;
    repformer(j)["attn2_nhead"] = 5000;
  });
  refuse(bad, "unreasonably large", [&](Json& j) { repformer(j)["attn2_nhead"] = repformer(j)["attn2_hidden"] = 1000000; });
  refuse(bad, "descriptor.repformer.nlayers is 0", [&](Json& j) { repformer(j)["nlayers"] = 0; });
  refuse(bad, "descriptor.repformer.ln_eps is 0", [&](Json& j) { repformer(j)["ln_eps"] = 0; });
  refuse(unknown, "descriptor.repformer.activation_function is 'selu'", [&](Json& j) { repformer(j)["activation_function"] = "selu"; });
  refuse(unknown, "'tanh:2'", [&](Json& j) { repformer(j)["activation_function"] = "tanh:2"; });
  for (const char* name : {"silut:", "silut:x", "silut:1x", "silut:nan", "silut:1e999"})
    refuse(bad, "expected a number behind the colon", [&](Json& j) { repformer(j)["activation_function"] = name; });
  refuse(unknown, "descriptor.repformer.update_style is 'res_new'", [&](Json& j) { repformer(j)["update_style"] = "res_new"; });
  refuse(unknown, "descriptor.repinit.tebd_input_mode", [&](Json& j) { repinit(j)["tebd_input_mode"] = "other"; });
  refuse(unknown, "descriptor.type is 'dpa3'; supported is dpa2", [](Json& j) { j["descriptor"]["type"] = "dpa3"; });
  refuse(unknown, "fitting_net.type is 'denoise'; supported are ener, dipole, polar, dos, property, population",
         [](Json& j) { j["fitting_net"]["type"] = "denoise"; });
  refuse(bad, "fitting_net.atom_ener is set, but the network gives no energies", [](Json& j) { j["fitting_net"]["type"] = "dipole"; });
  refuse(bad, "hessian_mode", [](Json& j) { j["hessian_mode"] = 1; });
  refuse(bad, "hessian_mode is set, and only models of energies", [](Json& j) {
    j["hessian_mode"] = true;
    j["fitting_net"]["atom_ener"] = Json::array();
    j["fitting_net"]["type"] = "dipole";
  });
  refuse(unknown, "format version 2", [](Json& j) { j["format_version"] = 2; });
  refuse(unknown, "descriptor.precision", [](Json& j) { j["descriptor"]["precision"] = "float128"; });
  refuse(unknown, "precision is 'half'; supported are float64, float32", [](Json& j) { j["precision"] = "half"; });
  refuse(unknown, "descriptor.repformer.new_option is unknown", [&](Json& j) { repformer(j)["new_option"] = true; });
  refuse(unknown, "spin is unknown", [](Json& j) { j["spin"] = Json::object(); });
  refuse(bad, "type occurs twice", [](Json& j) { j["type_map"] = {"H", "H"}; });
  refuse(bad, "type_map must have", [](Json& j) { j["type_map"] = Json::array(); });
  refuse(bad, "type_map holds 1", [](Json& j) { j["type_map"] = {1}; });
  refuse(bad, "pair_exclude_types is 2", [](Json& j) { j["pair_exclude_types"] = {{0, 2}}; });
  refuse(bad, "pair_exclude_types holds a list of 3", [](Json& j) { j["pair_exclude_types"] = {{0, 1, 1}}; });
  refuse(bad, "atom_exclude_types is -1", [](Json& j) { j["atom_exclude_types"] = {-1}; });
  refuse(bad, "default_fparam has 1 entries", [](Json& j) { j["fitting_net"]["default_fparam"] = {1.0}; });
  refuse(bad, "atom_ener has 3 entries", [](Json& j) { j["fitting_net"]["atom_ener"] = {1.0, 2.0, 3.0}; });
  refuse(bad, "env_protection is -0.1", [](Json& j) { j["descriptor"]["env_protection"] = -0.1; });
  refuse(bad, "head is 3", [](Json& j) { j["head"] = 3; });

  for (const char* text : {"", "[1]", "{", "nan", "{\"a\": NaN}", "{\"a\": 1e999}", "\xff\xfe", "{} {}", "null"})
    CHECK_THROWS(parse_config(text), bad, "corrupt file");
  CHECK_THROWS(parse_config("{\"precision\": \"float64\", \"precision\": \"float32\"}"), bad, "'precision' occurs twice");
  CHECK_THROWS(parse_config("{\"a\": " + std::string(1000000, '[') + "}"), bad, "nested too deeply");
  std::string deep = "{\"a\": 1}";
  for (int k = 0; k < 100; ++k) deep = "{\"a\": " + deep + "}";
  CHECK_THROWS(parse_config(deep), bad, "nested too deeply");
}

// No single byte of the text can do harm: it is accepted or refused, never more.
void test_mutations() {
  const std::string text = sample::config().dump();
  int accepted = 0, refused = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const char c : {'0', '9', '"', '}', ' ', '-', '\0'}) {
      std::string changed = text;
      changed[at] = c;
      try {
        const Config config = parse_config(changed);
        accepted += static_cast<int>(config.descriptor_dim() > 0);
      } catch (const Error& error) {
        refused += static_cast<int>(error.status() == Status::model_file || error.status() == Status::unsupported);
      }
    }
  }
  CHECK(accepted + refused == 7 * static_cast<int>(text.size()));
  CHECK(accepted > 0 && refused > 1000);
}

void test_weights() {
  const Config c = parse_config(sample::config().dump());
  const Weights good = sample::weights(c);
  check_weights(c, good);
  const auto shape = [&](const char* name) { return good.at(name).shape; };
  using Shape = std::vector<std::int64_t>;
  CHECK(shape("descriptor.g1_shape_tranform.matrix") == (Shape{52, 10}));
  CHECK(shape("descriptor.repinit.filter_layers.networks.0.layers.1.idt") == Shape{6});
  CHECK(good.count("descriptor.repinit.filter_layers.networks.0.layers.0.idt") == 0);
  CHECK(shape("descriptor.repinit_three_body.filter_layers.networks.0.layers.0.idt") == Shape{2});
  CHECK(shape("descriptor.repinit.filter_layers_strip.networks.0.layers.0.matrix") == (Shape{16, 3}));
  CHECK(shape("descriptor.repformers.layers.0.linear1.matrix") == (Shape{5 + 20 + 40, 10}));
  CHECK(shape("descriptor.repformers.layers.0.proj_g1g2.matrix") == (Shape{10, 5}));
  CHECK(shape("descriptor.repformers.layers.0.attn2g_map.mapqk.matrix") == (Shape{5, 24}));
  CHECK(good.count("descriptor.repformers.layers.1.attn2g_map.mapqk.matrix") == 0);
  CHECK(shape("descriptor.repformers.layers.1.loc_attn.mapkv.matrix") == (Shape{10, 26}));
  CHECK(good.count("descriptor.repformers.layers.0.g2_residual.2") == 1 && good.count("descriptor.repformers.layers.0.g1_residual.3") == 0);
  CHECK(shape("fitting_net.filter_layers.networks.0.layers.0.matrix") == (Shape{18 + 2 + 1 + 3, 6}));
  CHECK(shape("fitting_net.filter_layers.networks.0.layers.2.matrix") == (Shape{6, 1}));

  for (const auto& item : good) {
    Weights changed = good;
    changed.erase(item.first);
    CHECK_THROWS(check_weights(c, changed), Status::model_file, "'" + item.first + "' is missing");
    changed = good;
    changed[item.first].shape.push_back(1);
    CHECK_THROWS(check_weights(c, changed), Status::model_file, "'" + item.first + "' has shape");
    changed = good;
    changed[item.first].data.pop_back();
    CHECK_THROWS(check_weights(c, changed), Status::model_file, "values for the shape");
    changed = good;
    changed[item.first].data.back() = std::nan("");
    CHECK_THROWS(check_weights(c, changed), Status::model_file, "not finite");
  }
  Weights changed = good;
  changed["descriptor.repinit.stddev"].data[3] = 0.0;
  CHECK_THROWS(check_weights(c, changed), Status::model_file, "'descriptor.repinit.stddev' is zero at element 3");
  changed = good;
  changed["descriptor.extra"] = {{1}, {1.0}};
  CHECK_THROWS(check_weights(c, changed), Status::model_file, "'descriptor.extra' is not used");

  Json j = sample::config();  // equal widths need no transform
  j["descriptor"]["repformer"]["g1_dim"] = 52;
  const Config equal = parse_config(j.dump());
  CHECK(sample::weights(equal).count("descriptor.g1_shape_tranform.matrix") == 0);
}

Json compressed() {
  Json j = sample::config();
  j["compression"] = {{"max_error", 1e-8},
                      {"repinit", {{"lower", -1.0}, {"step", 0.5}, {"segments", {{4, 1}, {3, 2}}}}},
                      {"three_body", {{"lower", -2}, {"step", 0.125}, {"segments", {{32, 1}}}}}};
  return j;
}

void test_tables() {
  const Config c = parse_config(compressed().dump());
  CHECK(c.repinit_table && c.repinit_table->intervals() == 7 && c.repinit_table->cells() == 10 && c.repinit_table->step == 0.5);
  CHECK(c.three_body_table && c.three_body_table->intervals() == 32 && c.three_body_table->lower == -2.0);
  const Weights good = sample::weights(c);
  check_weights(c, good);
  using Shape = std::vector<std::int64_t>;
  CHECK(good.at("descriptor.repinit.table").shape == (Shape{1, 7, 6, 12}));
  CHECK(good.at("descriptor.repinit_three_body.table").shape == (Shape{1, 32, 6, 4}));
  Weights changed = good;
  changed["descriptor.repinit.table"].data[17] = HUGE_VAL;
  CHECK_THROWS(check_weights(c, changed), Status::model_file, "'descriptor.repinit.table' is not finite at element 17");
  CHECK_THROWS(check_weights(parse_config(sample::config().dump()), good), Status::model_file, "is not used");

  Json j = compressed();  // one curve per combination of types
  j["descriptor"]["repinit"]["tebd_input_mode"] = "concat";
  CHECK(sample::weights(parse_config(j.dump())).at("descriptor.repinit.table").shape == (Shape{4, 7, 6, 12}));
  j["descriptor"]["repinit"]["type_one_side"] = true;
  CHECK(sample::weights(parse_config(j.dump())).at("descriptor.repinit.table").shape == (Shape{2, 7, 6, 12}));
  CHECK(sample::weights(parse_config(j.dump())).at("descriptor.repinit_three_body.table").shape == (Shape{4, 32, 6, 4}));
  for (const char* key : {"compression", "max_error", "repinit", "three_body"}) {
    j = compressed();
    (std::string(key) == "compression" ? j : j["compression"])[key] = nullptr;
    CHECK(parse_config(j.dump()).repinit_table.has_value() == (std::string(key) != "compression" && std::string(key) != "repinit"));
  }

  const auto refuse_table = [](const std::string& text, const std::string& key, const Json& value) {
    Json changed_json = compressed();
    changed_json["compression"]["repinit"][key] = value;
    CHECK_THROWS(parse_config(changed_json.dump()), Status::model_file, text);
  };
  refuse_table("compression.repinit.step is 0", "step", 0.0);
  refuse_table("compression.repinit.step is -1", "step", -1.0);
  refuse_table("too small or too large", "step", 1e-12);
  refuse_table("compression.repinit.step", "step", 1e308);
  refuse_table("too small or too large", "lower", 1e30);
  refuse_table("compression.repinit.lower", "lower", "0");
  refuse_table("segments must have 1 to 10000 entries", "segments", Json::array());
  refuse_table("expected lists of 2", "segments", {{1, 2, 3}});
  refuse_table("segments", "segments", {{0, 1}});
  refuse_table("segments", "segments", {{1, -1}});
  refuse_table("more than", "segments", {{1000001, 1}});
  refuse_table("more than", "segments", {{4000000, 4000000}});
  j = compressed();
  j["compression"]["repinit"]["more"] = 1;
  CHECK_THROWS(parse_config(j.dump()), Status::unsupported, "compression.repinit.more is unknown");
  j = compressed();
  j["compression"]["g2"] = 1;
  CHECK_THROWS(parse_config(j.dump()), Status::unsupported, "compression.g2 is unknown");
  j = compressed();
  j["compression"]["max_error"] = 0;
  CHECK_THROWS(parse_config(j.dump()), Status::model_file, "compression.max_error is 0");
  j = compressed();
  j["descriptor"]["repinit"]["use_three_body"] = false;
  CHECK_THROWS(parse_config(j.dump()), Status::model_file, "a block that the model does not have");
}

}  // namespace

int main() {
  test_tables();
  test_values();
  test_refused();
  test_mutations();
  test_weights();
  return check::finish();
}
