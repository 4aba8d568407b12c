#include "python/schema.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <map>
#include <string>
#include <vector>

#include "error.hpp"
#include "schema/options.hpp"
#include "schema/weights.hpp"

namespace py = pybind11;

namespace dpa2::python {

namespace {

const char* role_name(dpa2::WeightRole role) {
  switch (role) {
    case dpa2::WeightRole::parameter:
      return "parameter";
    case dpa2::WeightRole::environment_mean:
      return "environment_mean";
    case dpa2::WeightRole::environment_stddev:
      return "environment_stddev";
    case dpa2::WeightRole::statistic:
      return "statistic";
    case dpa2::WeightRole::constant:
      return "constant";
    case dpa2::WeightRole::table:
      return "table";
  }
  throw dpa2::internal_error("a role of a weight without a name");
}

py::tuple to_tuple(const std::vector<std::int64_t>& shape) {
  py::tuple out(shape.size());
  for (std::size_t k = 0; k < shape.size(); ++k) out[k] = shape[k];
  return out;
}

py::object config_schema() { return py::module_::import("json").attr("loads")(dpa2::config_schema().dump()); }

/// What dpa2.files.schema.Weight is made of.
py::list expected_weights(const std::string& config_json) {
  py::list out;
  for (const dpa2::ExpectedWeight& w : dpa2::expected_weights(dpa2::parse_config(config_json)))
    out.append(py::make_tuple(w.name, to_tuple(w.shape), role_name(w.role), w.single ? "float32" : "float64"));
  return out;
}

template <class T>
bool checked(const dpa2::ExpectedWeight& weight, const py::array& array) {
  const bool readable = (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
  if (!readable || !py::isinstance<py::array_t<T, py::array::c_style>>(array)) return false;
  dpa2::check_values(weight, static_cast<const T*>(array.data()), static_cast<std::size_t>(array.size()));
  return true;
}

void check_weights(const std::string& config_json, const py::dict& arrays) {
  const dpa2::ExpectedWeights expected = dpa2::expected_weights(dpa2::parse_config(config_json));
  std::map<std::string, std::vector<std::int64_t>> shapes;
  std::map<std::string, py::array> found;
  for (const auto& item : arrays) {
    const auto name = py::cast<std::string>(item.first);
    const auto array = py::cast<py::array>(item.second);
    std::vector<std::int64_t>& shape = shapes[name];
    for (py::ssize_t k = 0; k < array.ndim(); ++k) shape.push_back(array.shape(k));
    found.emplace(name, array);
  }
  dpa2::check_shapes(expected, shapes);
  for (const dpa2::ExpectedWeight& weight : expected) {
    const py::array& array = found.at(weight.name);
    if (!checked<double>(weight, array) && !checked<float>(weight, array))
      throw dpa2::model_file_error("the weight '", weight.name, "' is no contiguous, aligned array of float64 or float32 numbers");
  }
}

}  // namespace

void register_schema(py::module_& m) {
  m.def("config_schema", &config_schema);
  m.def("expected_weights", &expected_weights, py::arg("config_json"));
  m.def("check_weights", &check_weights, py::arg("config_json"), py::arg("weights"));
}

}  // namespace dpa2::python
