#include "python/probe.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "error.hpp"
#include "model/probe.hpp"
#include "neighbors/build.hpp"
#include "neighbors/lattice.hpp"
#include "python/lock.hpp"
#include "python/weights.hpp"

namespace py = pybind11;

namespace dpa2::python {

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Ints = py::array_t<int, py::array::c_style | py::array::forcecast>;

void require(bool ok, const char* what) {
  if (!ok) throw invalid_input(what);
}

py::array_t<double> evaluate(const EmbeddingCurves& curves, int curve, const Doubles& s) {
  const py::ssize_t n = s.size();
  py::array_t<double> out({py::ssize_t{3}, n, static_cast<py::ssize_t>(curves.channels())});
  without_lock([&] { curves.evaluate(curve, n, s.data(), out.mutable_data()); });
  return out;
}

py::array_t<double> hidden(const std::string& config_json, const py::dict& arrays, const Doubles& descriptor,
                           const std::optional<Doubles>& fparam, const std::optional<Doubles>& aparam) {
  const Config config = parse_config(config_json);
  const Weights weights = make_weights(arrays);
  require(descriptor.ndim() == 3 && descriptor.shape(2) == config.descriptor_dim(),
          "descriptor must have shape (nframes, natoms, descriptor_dim)");
  const py::ssize_t nframes = descriptor.shape(0), natoms = descriptor.shape(1);
  const FittingConfig& f = config.fitting;
  const auto checked = [](const std::optional<Doubles>& given, py::ssize_t size, const char* what) {
    if (size == 0) return static_cast<const double*>(nullptr);
    require(given && given->size() == size, what);
    return given->data();
  };
  const double* frame = checked(fparam, nframes * f.numb_fparam, "fparam has the wrong size");
  const double* atoms = checked(aparam, f.use_aparam_as_mask ? 0 : nframes * natoms * f.numb_aparam, "aparam has the wrong size");
  std::vector<double> y;
  without_lock([&] { y = last_hidden(config, weights, nframes, natoms, descriptor.data(), frame, atoms); });
  const py::ssize_t width =
      f.neuron.empty() ? static_cast<py::ssize_t>(y.size()) / std::max(nframes * natoms, py::ssize_t{1}) : f.neuron.back();
  py::array_t<double> out({nframes, natoms, width});
  std::copy(y.begin(), y.end(), out.mutable_data());
  return out;
}

/// rows (3, 3), inverse (3, 3), distances between opposite faces (3) and transform (3, 3) of dpa2::ReducedLattice.
py::tuple reduced_lattice(const std::optional<Doubles>& box, const std::array<bool, 3>& pbc) {
  require(!box || (box->ndim() == 2 && box->shape(0) == 3 && box->shape(1) == 3), "box must have shape (3, 3)");
  const ReducedLattice lattice = reduced(Box(box ? box->data() : nullptr, pbc));
  py::array_t<double> rows({3, 3}), inverse({3, 3}), distance(3);
  py::array_t<std::int64_t> transform({3, 3});
  for (std::size_t a = 0; a < 3; ++a) {
    std::copy_n(lattice.box.rows()[a].data(), 3, rows.mutable_data() + 3 * a);
    std::copy_n(lattice.box.inverse()[a].data(), 3, inverse.mutable_data() + 3 * a);
    std::copy_n(lattice.transform[a].data(), 3, transform.mutable_data() + 3 * a);
  }
  std::copy_n(lattice.box.face_distance().data(), 3, distance.mutable_data());
  return py::make_tuple(rows, inverse, distance, transform);
}

void checked_atoms(const Doubles& coords, const Ints& types, int ntypes) {
  require(coords.ndim() == 2 && coords.shape(1) == 3, "coords must have shape (natoms, 3)");
  require(types.ndim() == 1 && types.shape(0) == coords.shape(0), "types must have shape (natoms,)");
  check_atoms(coords.data(), types.data(), static_cast<int>(coords.shape(0)), ntypes, nullptr);
}

}  // namespace

void register_probe(py::module_& m) {
  py::class_<EmbeddingCurves>(m, "EmbeddingCurves")
      .def(py::init([](const std::string& config_json, const py::dict& weights, bool three_body) {
             return EmbeddingCurves(parse_config(config_json), make_weights(weights), three_body);
           }),
           py::arg("config_json"), py::arg("weights"), py::arg("three_body"))
      .def_property_readonly("count", &EmbeddingCurves::count)
      .def_property_readonly("channels", &EmbeddingCurves::channels)
      .def("evaluate", &evaluate, py::arg("curve"), py::arg("s"));
  m.def("last_hidden", &hidden, py::arg("config_json"), py::arg("weights"), py::arg("descriptor"), py::arg("fparam").none(true),
        py::arg("aparam").none(true));
  m.def("reduced_lattice", &reduced_lattice, py::arg("box").none(true), py::arg("pbc"));
  m.def("check_atoms", &checked_atoms, py::arg("coords"), py::arg("types"), py::arg("ntypes"));
  m.def("distance_tolerance", []() { return distance_tolerance; });
}

}  // namespace dpa2::python
