#include "python/weights.hpp"

#include <pybind11/numpy.h>

#include <string>

namespace py = pybind11;

namespace dpa2::python {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

Weights make_weights(const py::dict& arrays) {
  Weights weights;
  for (const auto& item : arrays) {
    const std::string name = py::cast<std::string>(item.first);
    const Doubles array = Doubles::ensure(item.second);
    if (!array) throw py::error_already_set();
    Tensor& t = weights[name];
    for (py::ssize_t k = 0; k < array.ndim(); ++k) t.shape.push_back(array.shape(k));
    t.data.assign(array.data(), array.data() + array.size());
  }
  return weights;
}

}  // namespace dpa2::python
