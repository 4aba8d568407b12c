// A small model for the tests of configuration, weights and files, and the native file of a model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "schema/json.hpp"
#include "schema/weights.hpp"

namespace sample {

inline dpa2::Json config() {
  return dpa2::Json::parse(R"({
    "format_version": 1, "type_map": ["O", "H"], "precision": "float64",
    "pair_exclude_types": [[0, 1]], "atom_exclude_types": [1], "min_nbor_dist": 0.9, "head": null,
    "descriptor": {
      "type": "dpa2", "precision": "float64", "smooth": true, "exclude_types": [[1, 1]], "env_protection": 0.0,
      "concat_output_tebd": true, "add_tebd_to_repinit_out": true, "use_econf_tebd": false, "use_tebd_bias": true,
      "repinit": {
        "rcut": 6.0, "rcut_smth": 0.5, "nsel": 120, "neuron": [3, 6, 12], "axis_neuron": 4, "tebd_dim": 8,
        "tebd_input_mode": "strip", "activation_function": "tanh", "resnet_dt": true, "type_one_side": false,
        "use_three_body": true, "three_body_neuron": [2, 4], "three_body_rcut": 4.0, "three_body_rcut_smth": 3.5,
        "three_body_sel": 40},
      "repformer": {
        "rcut": 4.0, "rcut_smth": 3.5, "nsel": 40, "nlayers": 2, "g1_dim": 10, "g2_dim": 5, "axis_neuron": 4,
        "direct_dist": false, "update_g1_has_conv": true, "update_g1_has_drrd": true, "update_g1_has_grrg": true,
        "update_g1_has_attn": true, "update_g2_has_g1g1": true, "update_g2_has_attn": true, "update_h2": true,
        "attn1_hidden": 3, "attn1_nhead": 2, "attn2_hidden": 4, "attn2_nhead": 3, "attn2_has_gate": true,
        "activation_function": "SiLUT:2.5", "update_style": "res_residual", "use_sqrt_nnei": true,
        "g1_out_conv": false, "g1_out_mlp": true, "ln_eps": 1e-5}},
    "fitting_net": {
      "type": "ener", "neuron": [6, 6], "activation_function": "tanh", "resnet_dt": true, "numb_fparam": 2,
      "numb_aparam": 1, "default_fparam": [0.5, -1], "dim_case_embd": 3, "use_aparam_as_mask": false,
      "atom_ener": [null, -2.5], "precision": "float64"}
  })");
}

inline dpa2::Weights weights(const dpa2::Config& config) {
  dpa2::Weights out;
  double value = 0.25;
  for (const dpa2::ExpectedWeight& weight : dpa2::expected_weights(config)) {
    dpa2::Tensor& tensor = out[weight.name];
    tensor.shape = weight.shape;
    std::size_t count = 1;
    for (const std::int64_t n : weight.shape) count *= static_cast<std::size_t>(n);
    for (std::size_t k = 0; k < count; ++k) tensor.data.push_back(value += 0.125);  // exact in float32 as well
  }
  return out;
}

/// The length of the header as a file starts with it.
inline std::string length_prefix(std::uint64_t n) {
  std::string out;
  for (int k = 0; k < 8; ++k) out += static_cast<char>(static_cast<unsigned char>(n >> (8 * k)));
  return out;
}

/// The two parts of a native file.
struct Content {
  dpa2::Json header;
  std::string data;

  [[nodiscard]] std::string bytes() const {
    const std::string text = header.dump();
    return length_prefix(text.size()) + text + data;
  }
};

inline Content content(const dpa2::Weights& weights, const std::string& config, bool single) {
  Content c;
  c.header["__metadata__"] = {{"format", "dpa2"}, {"format_version", "1"}, {"config", config}};
  for (const auto& [name, tensor] : weights) {
    const std::size_t begin = c.data.size();
    for (const double value : tensor.data) {
      char bytes[8];
      const float narrow = static_cast<float>(value);
      if (single)
        std::memcpy(bytes, &narrow, 4);
      else
        std::memcpy(bytes, &value, 8);
      c.data.append(bytes, single ? 4 : 8);
    }
    c.header[name] = {{"dtype", single ? "F32" : "F64"}, {"shape", tensor.shape}, {"data_offsets", {begin, c.data.size()}}};
  }
  return c;
}

}  // namespace sample
