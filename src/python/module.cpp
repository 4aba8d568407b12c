// The Python face of the C++ core. Input is checked and converted in Python (dpa2/model.py); here only shapes are verified.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <utility>

#include "error.hpp"
#include "graph/memory.hpp"
#include "math/limits.hpp"
#include "model/model.hpp"
#include "python/device.hpp"
#include "python/fold.hpp"
#include "python/gpu.hpp"
#include "python/lock.hpp"
#include "python/loss.hpp"
#include "python/probe.hpp"
#include "python/remarks.hpp"
#include "python/schema.hpp"
#include "python/train.hpp"
#include "python/weights.hpp"
#include "schema/safetensors.hpp"
#include "threads.hpp"

namespace py = pybind11;

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Ints = py::array_t<int, py::array::c_style | py::array::forcecast>;
using dpa2::python::to_tuple;

void require(bool ok, const char* what) {
  if (!ok) throw dpa2::invalid_input(what);
}

dpa2::Box make_box(const std::optional<Doubles>& box, const std::array<bool, 3>& pbc) {
  if (!box) return dpa2::Box(nullptr, pbc);
  require(box->size() == 9, "box must have shape (3, 3)");
  return dpa2::Box(box->data(), pbc);
}

int checked_natoms(const Doubles& coords, const Ints& types) {
  require(coords.ndim() == 2 && coords.shape(1) == 3, "coords must have shape (natoms, 3)");
  require(types.ndim() == 1 && types.shape(0) == coords.shape(0), "types must have shape (natoms,)");
  return static_cast<int>(coords.shape(0));
}

class NativeModel {
 public:
  NativeModel(const std::string& config_json, const py::dict& weights, const std::string& precision, double skin, bool checked)
      : json_(config_json),
        model_(std::make_unique<dpa2::Model>(dpa2::parse_config(config_json), dpa2::python::make_weights(weights), precision, skin,
                                             checked)) {}

  static std::unique_ptr<NativeModel> from_file(const std::string& path, const std::optional<std::string>& precision, double skin) {
    dpa2::SafetensorsFile file = dpa2::read_safetensors(path);
    std::unique_ptr<NativeModel> m(new NativeModel);
    m->json_ = file.config_json;
    m->model_ = std::make_unique<dpa2::Model>(dpa2::parse_config(file.config_json), std::move(file.weights), precision.value_or(""), skin);
    return m;
  }

  const std::string& config_json() const { return json_; }
  const std::string& precision() const { return model_->precision(); }
  int descriptor_dim() const { return model_->config().descriptor_dim(); }

  std::int64_t memory_estimate(std::int64_t natoms, double neighbors, int atomic, int threads) const {
    require(atomic >= 0 && atomic <= 2, "atomic must be 0, 1 or 2");
    return model_->memory_estimate(natoms, neighbors, true, static_cast<dpa2::AtomVirial>(atomic), threads);
  }

  /// What the head computes, under the names of its outputs, and the remarks.
  py::dict evaluate(const Doubles& coords, const Ints& types, const std::optional<Doubles>& box, const std::array<bool, 3>& pbc,
                    const std::optional<Doubles>& fparam, const std::optional<Doubles>& aparam, int atomic, int threads, bool with_forces,
                    const std::optional<Doubles>& spins) const {
    dpa2::Structure s = structure(coords, types, box, pbc);
    set_parameters(s, fparam, aparam);
    set_spins(s, spins);
    require(atomic >= 0 && atomic <= 2, "atomic must be 0, 1 or 2");
    require(with_forces || atomic == 0, "the atomic virial is computed with forces only");
    py::dict result;
    dpa2::Outputs out;
    for (const dpa2::OutputSpec& spec : model_->outputs()) {
      if (dpa2::of_descriptor(spec) || (spec.derivative() && (!with_forces || (spec.name == "atom_virial" && atomic == 0)))) continue;
      std::vector<py::ssize_t> shape(spec.shape.begin(), spec.shape.end());
      if (spec.per_atom) shape.insert(shape.begin(), s.natoms);
      py::array_t<double> array(shape);
      out.set(spec.name, array.mutable_data());
      result[py::str(spec.name)] = array;
    }
    dpa2::Remarks remarks;
    dpa2::python::without_lock([&] { model_->evaluate(s, static_cast<dpa2::AtomVirial>(atomic), threads, out, remarks); });
    result["remarks"] = to_tuple(remarks);
    return result;
  }

  /// The gradient of the sum of outputs with these weights, by name, to coordinates (natoms, 3) and to strain (3, 3).
  py::tuple vjp(const Doubles& coords, const Ints& types, const std::optional<Doubles>& box, const std::array<bool, 3>& pbc,
                const std::optional<Doubles>& fparam, const std::optional<Doubles>& aparam, const std::map<std::string, Doubles>& weights,
                int threads) const {
    dpa2::Structure s = structure(coords, types, box, pbc);
    set_parameters(s, fparam, aparam);
    const py::ssize_t n = s.natoms;
    dpa2::Seeds seeds;
    require(!weights.empty(), "there are no weights");
    for (const auto& [name, rows] : weights) {
      const dpa2::OutputSpec& of_head = dpa2::atom_output(model_->outputs());
      const bool head = name == of_head.name, rotation = name == "rot_mat";
      require(head || rotation || name == "descriptor", "there are weights of an output without a gradient");
      (head ? seeds.head : rotation ? seeds.rot_mat : seeds.descriptor) = rows.data();
      const int width = head ? of_head.size() : rotation ? 3 * model_->config().g2_dim() : descriptor_dim();
      require(rows.size() == n * width, "weights have the wrong size");
    }
    py::array_t<double> gradient({n, py::ssize_t{3}}), strain({3, 3});
    double *const force = gradient.mutable_data(), *const virial = strain.mutable_data();
    dpa2::Outputs out;
    out.set("force", force);
    out.set("virial", virial);
    dpa2::Remarks remarks;
    dpa2::python::without_lock([&] {
      model_->vjp(s, seeds, threads, out, remarks);
      std::transform(force, force + 3 * n, force, std::negate<>());
      std::transform(virial, virial + 9, virial, std::negate<>());
    });
    return py::make_tuple(gradient, strain, to_tuple(remarks));
  }

  /// The Hessian of the energy times velocities (natoms, 3).
  py::tuple hessian_product(const Doubles& coords, const Ints& types, const std::optional<Doubles>& box, const std::array<bool, 3>& pbc,
                            const std::optional<Doubles>& fparam, const std::optional<Doubles>& aparam, const Doubles& velocity,
                            int threads) const {
    dpa2::Structure s = structure(coords, types, box, pbc);
    set_parameters(s, fparam, aparam);
    require(velocity.size() == 3 * static_cast<py::ssize_t>(s.natoms), "velocities must have shape (natoms, 3)");
    s.velocity = velocity.data();
    py::array_t<double> product({static_cast<py::ssize_t>(s.natoms), py::ssize_t{3}});
    double* const to = product.mutable_data();
    dpa2::Remarks remarks;
    dpa2::python::without_lock([&] { model_->hessian_product(s, threads, to, remarks); });
    return py::make_tuple(product, to_tuple(remarks));
  }

  py::tuple descriptor(const Doubles& coords, const Ints& types, const std::optional<Doubles>& box, const std::array<bool, 3>& pbc,
                       bool rot_mat, int threads, const std::optional<Doubles>& spins) const {
    dpa2::Structure s = structure(coords, types, box, pbc);
    set_spins(s, spins);
    const py::ssize_t n = s.natoms;
    py::array_t<double> desc({n, static_cast<py::ssize_t>(descriptor_dim())});
    std::optional<py::array_t<double>> rotation;
    if (rot_mat) rotation.emplace(std::vector<py::ssize_t>{n, model_->config().g2_dim(), 3});
    dpa2::Outputs out;
    out.set("descriptor", desc.mutable_data());
    if (rotation) out.set("rot_mat", rotation->mutable_data());
    dpa2::Remarks remarks;
    dpa2::python::without_lock([&] { model_->descriptor(s, threads, out, remarks); });
    return py::make_tuple(desc, rotation, to_tuple(remarks));
  }

 private:
  NativeModel() = default;

  void set_parameters(dpa2::Structure& s, const std::optional<Doubles>& fparam, const std::optional<Doubles>& aparam) const {
    const dpa2::Parameters parameters = model_->config().parameters();
    if (fparam) {
      require(fparam->size() == parameters.fparam, "fparam has the wrong size");
      if (parameters.fparam > 0) s.fparam = fparam->data();
    }
    if (aparam) {
      require(aparam->size() == static_cast<py::ssize_t>(s.natoms) * parameters.aparam, "aparam has the wrong size");
      if (parameters.aparam > 0) s.aparam = aparam->data();
    }
  }

  static void set_spins(dpa2::Structure& s, const std::optional<Doubles>& spins) {
    if (!spins) return;
    require(spins->size() == 3 * static_cast<py::ssize_t>(s.natoms), "spins must have shape (natoms, 3)");
    s.spins = spins->data();
  }

  static dpa2::Structure structure(const Doubles& coords, const Ints& types, const std::optional<Doubles>& box,
                                   const std::array<bool, 3>& pbc) {
    dpa2::Structure s;
    s.natoms = checked_natoms(coords, types);
    s.coords = coords.data();
    s.types = types.data();
    s.box = make_box(box, pbc);
    return s;
  }

  std::string json_;
  std::unique_ptr<dpa2::Model> model_;
};

template <class T>
py::array_t<T> to_array(const std::vector<T>& v, std::vector<py::ssize_t> shape) {
  py::array_t<T> a(std::move(shape));
  std::copy(v.begin(), v.end(), a.mutable_data());
  return a;
}

py::dict neighbors(const Doubles& coords, const Ints& types, const std::optional<Doubles>& box, const std::array<bool, 3>& pbc,
                   const std::string& config_json) {
  const dpa2::NeighborSettings settings = dpa2::neighbor_settings(dpa2::parse_config(config_json));
  const int n = checked_natoms(coords, types);
  const dpa2::Box cell = make_box(box, pbc);
  dpa2::Edges edges;
  dpa2::NeighborBuilder builder;
  dpa2::python::without_lock([&] { builder.build(coords.data(), types.data(), n, cell, settings, 1, edges); });
  const py::ssize_t ne = edges.nedge();
  py::dict result;
  result["start"] = to_array(edges.start, {n + 1});
  result["j"] = to_array(edges.j, {ne});
  result["d"] = to_array(edges.d, {ne, 3});
  result["r"] = to_array(edges.r, {ne});
  result["image"] = to_array(edges.image, {ne, 3});
  result["n_three"] = to_array(edges.n_three, {n});
  result["n_repformer"] = to_array(edges.n_repformer, {n});
  result["pad_repinit"] = to_array(edges.pad_repinit, {n});
  result["pad_three"] = to_array(edges.pad_three, {n});
  return result;
}

/// What dpa2.results.Output is made of, one after the other, for the outputs of a model.
py::list outputs(const std::string& config_json) {
  py::list list;
  for (const dpa2::OutputSpec& s : dpa2::model_outputs(dpa2::parse_config(config_json)))
    list.append(py::make_tuple(s.name, s.unit, py::tuple(py::cast(s.shape)), s.per_atom, dpa2::reduction_name(s.reduction), s.of));
  return list;
}

/// Raises the Python class of dpa2.errors that belongs to the status.
void raise(const dpa2::Error& e) {
  const char* name = "Error";
  switch (e.status()) {
    case dpa2::Status::invalid_input:
      name = "InputError";
      break;
    case dpa2::Status::model_file:
      name = "ModelFileError";
      break;
    case dpa2::Status::unsupported:
      name = "UnsupportedModelError";
      break;
    case dpa2::Status::out_of_memory:
      name = "OutOfMemoryError";
      break;
    default:
      break;
  }
  py::set_error(py::module_::import("dpa2.errors").attr(name), e.what());
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "The compiled core of dpa2.";
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const dpa2::Error& e) { raise(e); } catch (const std::bad_alloc&) {
      raise(dpa2::out_of_memory(dpa2::no_memory));
    } catch (const std::length_error&) {  // what a container says to a size that no memory could hold
      raise(dpa2::out_of_memory("the arrays would be larger than any memory"));
    }
  });
  py::class_<NativeModel>(m, "NativeModel")
      .def(py::init<const std::string&, const py::dict&, const std::string&, double, bool>(), py::arg("config_json"), py::arg("weights"),
           py::arg("precision"), py::arg("skin") = 0.0, py::arg("checked") = false)
      .def_static("from_file", &NativeModel::from_file, py::arg("path"), py::arg("precision") = py::none(), py::arg("skin") = 0.0)
      .def_property_readonly("config_json", &NativeModel::config_json)
      .def_property_readonly("precision", &NativeModel::precision)
      .def_property_readonly("descriptor_dim", &NativeModel::descriptor_dim)
      .def("evaluate", &NativeModel::evaluate, py::arg("coords"), py::arg("types"), py::arg("box").none(true), py::arg("pbc"),
           py::arg("fparam").none(true), py::arg("aparam").none(true), py::arg("atomic"), py::arg("threads"), py::arg("forces") = true,
           py::arg("spins").none(true) = py::none())
      .def("hessian_product", &NativeModel::hessian_product, py::arg("coords"), py::arg("types"), py::arg("box").none(true), py::arg("pbc"),
           py::arg("fparam").none(true), py::arg("aparam").none(true), py::arg("velocity"), py::arg("threads"))
      .def("vjp", &NativeModel::vjp, py::arg("coords"), py::arg("types"), py::arg("box").none(true), py::arg("pbc"),
           py::arg("fparam").none(true), py::arg("aparam").none(true), py::arg("weights"), py::arg("threads"))
      .def("descriptor", &NativeModel::descriptor, py::arg("coords"), py::arg("types"), py::arg("box").none(true), py::arg("pbc"),
           py::arg("rot_mat"), py::arg("threads"), py::arg("spins").none(true) = py::none())
      .def("memory_estimate", &NativeModel::memory_estimate, py::arg("natoms"), py::arg("neighbors"), py::arg("atomic"),
           py::arg("threads"));
  m.def("neighbors", &neighbors, py::arg("coords"), py::arg("types"), py::arg("box").none(true), py::arg("pbc"), py::arg("config_json"));
  dpa2::python::register_schema(m);
  dpa2::python::register_train(m);
  dpa2::python::register_probe(m);
  dpa2::python::register_fold(m);
  dpa2::python::register_loss(m);
  dpa2::python::register_device(m);
  dpa2::python::register_gpu(m);
  m.def(
      "kind", [](const std::string& config_json) { return std::string(dpa2::model_kind(dpa2::parse_config(config_json))); },
      py::arg("config_json"));
  m.def("outputs", &outputs, py::arg("config_json"));
  m.def("limits", []() { return py::make_tuple(dpa2::largest_length, dpa2::most_threads); });
  m.def("available_memory", []() {
    const dpa2::AvailableMemory memory = dpa2::available_memory();
    return py::make_tuple(memory.bytes, memory.limit);
  });
  m.def("isa", []() { return std::string(dpa2::isa_name()); });
  m.def("isa_levels", []() {
    std::vector<std::string> names;
    for (const char* const* n = dpa2::isa_names(); *n != nullptr; ++n) names.emplace_back(*n);
    return names;
  });
}
