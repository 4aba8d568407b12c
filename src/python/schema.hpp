// The schema of configuration and weights as Python asks for it.
#pragma once

#include <pybind11/pybind11.h>

namespace dpa2::python {

void register_schema(pybind11::module_& m);

}  // namespace dpa2::python
