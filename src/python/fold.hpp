// The folded tensors of a model by name, for engines that are written in Python, and the way back for gradients.
#pragma once

#include <pybind11/pybind11.h>

namespace dpa2::python {

void register_fold(pybind11::module_& m);

}  // namespace dpa2::python
