// Losses of predictions: for tests, and for whoever has the predictions already.
#pragma once

#include <pybind11/pybind11.h>

namespace dpa2::python {

void register_loss(pybind11::module_& m);

}  // namespace dpa2::python
