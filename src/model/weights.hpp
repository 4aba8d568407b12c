// The weights of a model under their canonical names.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/config.hpp"

namespace dpa2 {

/// A dense array, row-major. float32 files are widened, which is exact.
struct Tensor {
  std::vector<std::int64_t> shape;
  std::vector<double> data;
};

using Weights = std::map<std::string, Tensor>;
using Shapes = std::vector<std::pair<std::string, std::vector<std::int64_t>>>;

/// Name and shape of every weight that a model with this configuration has, in the order of the evaluation.
/// `descriptor.g1_shape_tranform.matrix` (spelled as in the files) is absent where the two widths agree.
Shapes expected_weights(const Config& config);

/// Throws model_file_error, naming the tensor, unless names and shapes are exactly those that the configuration asks for.
void check_shapes(const Config& config, const std::map<std::string, std::vector<std::int64_t>>& found);

/// Throws model_file_error, naming the tensor, unless the weights are exactly those that the configuration asks for, in the
/// shapes it asks for, finite, and with standard deviations that can be divided by.
void check_weights(const Config& config, const Weights& weights);

}  // namespace dpa2
