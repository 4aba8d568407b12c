// What Python asks of the core beside evaluations: embedding curves, the last hidden layer, reduced lattices.
#pragma once

#include <pybind11/pybind11.h>

namespace dpa2::python {

void register_probe(pybind11::module_& m);

}  // namespace dpa2::python
