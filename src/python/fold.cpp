#include "python/fold.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "fold/folded.hpp"
#include "python/weights.hpp"

namespace py = pybind11;

namespace dpa2::python {

namespace {

py::array array_of(const Matrix& m) { return py::array_t<double>(std::vector<py::ssize_t>{m.rows, m.cols}, m.a.data()); }

py::array array_of(const Tensor& t) { return py::array_t<double>(std::vector<py::ssize_t>(t.shape.begin(), t.shape.end()), t.data.data()); }

py::array array_of(double x) { return py::array_t<double>(std::vector<py::ssize_t>{}, &x); }

/// Every folded tensor under its name (fold/folded.hpp), and the embedding of padded slots, which the CPU does without.
py::dict folded(const std::string& config_json, const py::dict& arrays) {
  const Config config = parse_config(config_json);
  Weights weights = make_weights(arrays);
  check_weights(config, weights);
  const Folded f = fold(config, std::move(weights));
  py::dict result;
  f.for_each([&](const std::string& name, const auto& value) { result[py::str(name)] = array_of(value); });
  const Matrix pad = fold_padded_embedding(config, f.descriptor.repinit);
  if (!pad.empty()) result["repinit.pad_embedding"] = array_of(pad);
  return result;
}

}  // namespace

void register_fold(py::module_& m) { m.def("folded", &folded, py::arg("config_json"), py::arg("weights")); }

}  // namespace dpa2::python
