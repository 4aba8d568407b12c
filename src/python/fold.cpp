#include "python/fold.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "error.hpp"
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

/// Puts arrays into the tensors of a model that has just been folded, in place of its own.
class Fill {
 public:
  explicit Fill(const py::dict& arrays) : arrays_(arrays) {}

  // for_each shows what it visits as constant, but the model belongs to the caller, who may change it.
  void operator()(const std::string& name, const Matrix& m) {
    Matrix& place = const_cast<Matrix&>(m);
    if (!arrays_.contains(name)) {
      place = Matrix();
      return;
    }
    const auto array = py::array_t<double, py::array::c_style | py::array::forcecast>::ensure(arrays_[py::str(name)]);
    if (!array) throw py::error_already_set();
    if (array.ndim() != 2 || array.shape(0) != m.rows || array.shape(1) != m.cols)
      throw invalid_input("the gradient of '", name, "' has the shape of another tensor, expected (", m.rows, ", ", m.cols, ")");
    place.a.assign(array.data(), array.data() + array.size());
    ++filled_;
  }
  void operator()(const std::string&, const Tensor&) const {}
  void operator()(const std::string&, double) const {}

  /// How many arrays there was a place for.
  std::size_t filled() const { return filled_; }

 private:
  const py::dict& arrays_;
  std::size_t filled_ = 0;
};

/// The gradient of every parameter, given that of folded tensors under their names; those that are not given are zero.
py::dict unfolded(const std::string& config_json, const py::dict& arrays, const py::dict& gradient) {
  const Config config = parse_config(config_json);
  const Weights weights = make_weights(arrays);
  check_weights(config, weights);
  Folded f = fold(config, weights);
  Fill fill(gradient);
  f.for_each(fill);
  if (fill.filled() != gradient.size()) throw invalid_input("there is a gradient of a tensor that the folded model does not have");
  py::dict result;
  for (const auto& [name, tensor] : unfold(config, weights, f)) result[py::str(name)] = array_of(tensor);
  return result;
}

}  // namespace

void register_fold(py::module_& m) {
  m.def("folded", &folded, py::arg("config_json"), py::arg("weights"));
  m.def("unfolded", &unfolded, py::arg("config_json"), py::arg("weights"), py::arg("gradient"));
}

}  // namespace dpa2::python
