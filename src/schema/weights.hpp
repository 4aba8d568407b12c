// The weights of a model under their canonical names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "schema/config.hpp"

namespace dpa2 {

/// A dense array, row-major. float32 files are widened, which is exact.
struct Tensor {
  std::vector<std::int64_t> shape;
  std::vector<double> data;
};

using Weights = std::map<std::string, Tensor>;

/// What a weight is to those who read, check or train it.
enum class WeightRole {
  parameter,           ///< trained
  environment_mean,    ///< of the environment matrix in the training data: deepmd-kit's files may hold a row per neighbour slot
  environment_stddev,  ///< divided by: never zero
  statistic,           ///< other statistics of the training data
  constant,            ///< follows from the configuration and the types
  table,               ///< of a compressed model, where it stands in for a network, or of pairs
};

/// A weight as the configuration asks for it.
struct ExpectedWeight {
  std::string name;  ///< as in deepmd-kit's files, spelling included
  std::vector<std::int64_t> shape;
  WeightRole role = WeightRole::parameter;
  bool single = false;  ///< deepmd-kit keeps it in float32, for its block has no more
};

using ExpectedWeights = std::vector<ExpectedWeight>;

/// Every weight that a model with this configuration has, in the order of the evaluation.
ExpectedWeights expected_weights(const Config& config);

/// Throws model_file_error, naming the tensor, unless names and shapes are exactly the expected ones.
void check_shapes(const ExpectedWeights& expected, const std::map<std::string, std::vector<std::int64_t>>& found);

/// Throws model_file_error, naming the tensor, unless its values are finite, and can be divided by where they are.
template <class T>
void check_values(const ExpectedWeight& weight, const T* values, std::size_t n);

/// Throws model_file_error, naming the tensor, unless the weights are exactly those that the configuration asks for: names, shapes
/// and, unless somebody has seen to them, values.
void check_weights(const Config& config, const Weights& weights, bool values = true);

}  // namespace dpa2
