// Gradients of losses for Python.
#pragma once

#include <pybind11/pybind11.h>

namespace dpa2::python {

void register_train(pybind11::module_& m);

}  // namespace dpa2::python
