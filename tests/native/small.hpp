// A small model with random weights and a small periodic system, for the tests of evaluations in parts.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "sample.hpp"
#include "schema/config.hpp"
#include "schema/weights.hpp"

namespace small {

using namespace dpa2;

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Random weights of the size that a trained model has, so that nothing saturates.
inline Weights random_weights(const Config& config, unsigned seed, bool means) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> unit(-1.0, 1.0);
  Weights out;
  for (const ExpectedWeight& weight : expected_weights(config)) {
    Tensor& tensor = out[weight.name];
    tensor.shape = weight.shape;
    std::int64_t count = 1;
    for (const std::int64_t n : weight.shape) count *= n;
    const auto ends = [&full = weight.name](const std::string& end) {
      return full.size() >= end.size() && full.compare(full.size() - end.size(), end.size(), end) == 0;
    };
    for (std::int64_t k = 0; k < count; ++k) {
      double value = unit(random);
      if (weight.role == WeightRole::environment_stddev) value = 0.6 + 0.2 * value;
      if (weight.role == WeightRole::environment_mean) value *= means ? 0.3 : 0.0;
      if (ends(".matrix")) value *= 1.5 / std::sqrt(static_cast<double>(weight.shape[0]));
      if (ends("idt")) value = 0.5 + 0.1 * value;
      tensor.data.push_back(value);
    }
  }
  check_weights(config, out);
  return out;
}

/// The sample model without exclusions and with short cutoffs.
inline Json small_config() {
  Json j = sample::config();
  for (const char* key : {"pair_exclude_types", "atom_exclude_types"}) j[key] = Json::array();
  j["descriptor"]["exclude_types"] = Json::array();
  Json& a = j["descriptor"]["repinit"];
  a["rcut"] = 4.0;
  a["rcut_smth"] = 1.0;
  a["nsel"] = 80;
  a["three_body_rcut"] = 3.5;
  a["three_body_rcut_smth"] = 1.0;
  a["three_body_sel"] = 60;
  Json& b = j["descriptor"]["repformer"];
  b["rcut"] = 3.0;
  b["rcut_smth"] = 1.0;
  b["nsel"] = 40;
  b["nlayers"] = 3;
  b["activation_function"] = "tanh";
  return j;
}

struct System {
  std::vector<double> x, aparam;
  std::vector<int> types;
  std::array<double, 9> box{6.5, 0.0, 0.0, 0.7, 6.0, 0.0, -0.4, 0.9, 7.0};

  int n() const { return static_cast<int>(types.size()); }
  /// Random atoms in the cell that keep their distance, some of them virtual.
  System(int count, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> unit(0.0, 1.0);
    while (n() < count) {
      double f[3], v[3] = {0, 0, 0};
      for (double& c : f) c = unit(random);
      for (std::size_t a = 0; a < 3; ++a)
        for (std::size_t c = 0; c < 3; ++c) v[c] += f[a] * box[3 * a + c];
      if (nearest(v) < 1.0) continue;
      x.insert(x.end(), v, v + 3);
      aparam.push_back(unit(random));
      types.push_back(n() % 11 == 7 ? -1 : n() % 3 == 0 ? 0 : 1);
    }
  }
  std::array<double, 3> shift(int a, int b, int c) const {
    std::array<double, 3> s{};
    for (std::size_t k = 0; k < 3; ++k) s[k] = a * box[k] + b * box[3 + k] + c * box[6 + k];
    return s;
  }
  template <class F>
  static void for_images(F f) {
    for (int a = -2; a <= 2; ++a)
      for (int b = -2; b <= 2; ++b)
        for (int c = -2; c <= 2; ++c) f(a, b, c);
  }

 private:
  double nearest(const double* v) const {
    double least = 1e30;
    for_images([&](int a, int b, int c) {
      const std::array<double, 3> s = shift(a, b, c);
      for (std::size_t i = 0; i < x.size(); i += 3)
        least = std::min(least, std::hypot(x[i] + s[0] - v[0], x[i + 1] + s[1] - v[1], x[i + 2] + s[2] - v[2]));
    });
    return least;
  }
};

}  // namespace small
