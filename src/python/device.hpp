// Arrays in the memory of a GPU, and what CuPy needs to compile kernels.
#pragma once

#include <pybind11/pybind11.h>

namespace dpa2::python {

void register_device(pybind11::module_& m);

}  // namespace dpa2::python
