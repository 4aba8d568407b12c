// One vector per element of the type map (theory 3).
#pragma once

#include "fold/matrix.hpp"

namespace dpa2 {

/// (ntypes, tebd_dim): one-hot types, or electron configurations, through a linear layer with a skip.
Matrix fold_type_embedding(const Config& config, RawTensors& raw);
/// The adjoint, `+=`: of the layer's matrix and bias. The types themselves are constants.
void unfold_type_embedding(const Config& config, RawTensors& raw, const Matrix& gradient, Weights& to);

}  // namespace dpa2
