// Weights from Python's dictionaries of arrays.
#pragma once

#include <pybind11/pybind11.h>

#include "schema/weights.hpp"

namespace dpa2::python {

Weights make_weights(const pybind11::dict& arrays);

}  // namespace dpa2::python
