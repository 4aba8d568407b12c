#include "python/gpu.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "error.hpp"
#include "model/device.hpp"
#include "model/model.hpp"
#include "python/lock.hpp"
#include "python/remarks.hpp"
#include "python/weights.hpp"

namespace py = pybind11;

namespace dpa2::python {

namespace {

/// A Python object that any thread may let go of, with the interpreter's lock or without it.
std::shared_ptr<py::object> kept(py::object object) {
  return {new py::object(std::move(object)), [](py::object* last) {
            if (Py_IsInitialized() == 0) return;  // the process ends, and the object with it
            const py::gil_scoped_acquire lock;
            delete last;
          }};
}

/// Calls a hook of Python. Errors of dpa2 and of memory become the core's, so that it can answer them; others stay what they are.
template <class F>
auto hook(F f) {
  const py::gil_scoped_acquire lock;
  try {
    return f();
  } catch (py::error_already_set& e) {
    const py::module_ errors = py::module_::import("dpa2.errors");
    const auto is = [&](const char* name) { return e.matches(errors.attr(name)); };
    const std::string words = py::cast<std::string>(py::str(e.value()));
    if (e.matches(PyExc_MemoryError)) throw out_of_memory(words);
    if (is("UnsupportedModelError")) throw unsupported(words);
    if (is("InputError")) throw invalid_input(words);
    throw;
  }
}

gpu::Hooks make_hooks(const py::object& python) {
  gpu::Hooks hooks;
  if (python.is_none()) return hooks;
  const std::shared_ptr<py::object> object = kept(python);
  hooks.function = [object](const std::string& source, const std::string& name, const gpu::Defines& defines) {
    return hook([&] { return reinterpret_cast<void*>(object->attr("function")(source, name, defines).cast<std::uintptr_t>()); });
  };
  hooks.memory = [object](std::size_t bytes) {
    return hook([&] {
      py::object owner = object->attr("memory")(bytes);
      void* const at = reinterpret_cast<void*>(owner.attr("ptr").cast<std::uintptr_t>());
      return gpu::Memory{at, kept(std::move(owner))};
    });
  };
  return hooks;
}

/// The arrays of a call by name: NumPy arrays, or addresses of the device as numbers.
class Arrays {
 public:
  Arrays(const py::dict& arrays, bool on_device) : arrays_(arrays), on_device_(on_device) {}

  /// Null where there is none. `count` numbers of this type, one after the other.
  template <class T>
  T* find(const char* name, std::int64_t count, bool of_host = false) const {
    if (!arrays_.contains(name)) return nullptr;
    const py::object value = arrays_[name];
    if (value.is_none()) return nullptr;
    if (on_device_ && !of_host) return reinterpret_cast<T*>(value.cast<std::uintptr_t>());
    if (!py::isinstance<py::array_t<T, py::array::c_style>>(value) || py::cast<py::array>(value).size() != count)
      throw internal_error("the array ", name, " is not one of ", count, " numbers of its type without gaps");
    return const_cast<T*>(static_cast<const T*>(py::cast<py::array>(value).data()));
  }

 private:
  const py::dict& arrays_;
  bool on_device_;
};

/// Of every part of a model: (constants, in, out, slab, [(name, bytes), ...]), as MemoryUse has them.
std::vector<py::tuple> memory_of(const Model& model, std::int64_t natoms, double neighbors, int atomic, bool gradient) {
  if (atomic < 0 || atomic > 2) throw invalid_input("atomic must be 0, 1 or 2");
  std::vector<gpu::MemoryUse> found;
  without_lock([&] { found = model.gpu_memory(natoms, neighbors, gradient, static_cast<AtomVirial>(atomic)); });
  std::vector<py::tuple> all;
  for (const gpu::MemoryUse& use : found) {
    py::list pieces;
    for (const gpu::MemoryUse::Piece& piece : use.pieces) pieces.append(py::make_tuple(piece.name, piece.bytes));
    all.push_back(py::make_tuple(use.constants, use.in, use.out, use.slab, std::move(pieces)));
  }
  return all;
}

/// What a model takes on a GPU, where there may be none.
class NativeGpuPlan {
 public:
  NativeGpuPlan(const std::string& config_json, const py::dict& weights, const std::string& precision, bool checked) {
    Config config = parse_config(config_json);
    Weights given = make_weights(weights);
    gpu::Hooks hooks;
    hooks.plan_only = true;
    without_lock([&] { model_ = std::make_unique<Model>(std::move(config), std::move(given), precision, 0.0, checked, "cuda", hooks); });
  }
  std::vector<py::tuple> memory(std::int64_t natoms, double neighbors, int atomic, bool gradient) const {
    return memory_of(*model_, natoms, neighbors, atomic, gradient);
  }
  std::vector<std::tuple<std::string, std::string, gpu::Defines>> kernels() const {
    std::vector<std::tuple<std::string, std::string, gpu::Defines>> all;
    for (gpu::NeededKernel& kernel : model_->gpu_kernels()) all.emplace_back(kernel.source, kernel.name, kernel.defines);
    return all;
  }

 private:
  std::unique_ptr<Model> model_;
};

class NativeGpuModel {
 public:
  NativeGpuModel(const std::string& config_json, const py::dict& weights, const std::string& precision, bool checked,
                 const std::string& device, const py::object& hooks) {
    Config config = parse_config(config_json);
    Weights given = make_weights(weights);
    gpu::Hooks calls = make_hooks(hooks);
    without_lock([&] {
      model_ = std::make_unique<Model>(std::move(config), std::move(given), precision, 0.0, checked, device, std::move(calls));
      if (model_->engines().empty()) throw internal_error("a model on ", device, " is none on a GPU");
    });
  }

  int device() const { return model_->engines().front()->device(); }
  std::int64_t bytes() const { return sum<std::int64_t>(&gpu::Engine::bytes); }
  int launches() const { return sum<int>(&gpu::Engine::launches); }
  std::vector<std::string> warnings() const { return model_->warnings(); }
  int descriptor_dim() const { return model_->config().descriptor_dim(); }
  std::vector<py::tuple> memory(std::int64_t natoms, double neighbors, int atomic, bool gradient) const {
    return memory_of(*model_, natoms, neighbors, atomic, gradient);
  }

  /// Fills `outputs`, by the names of the model's outputs; `inputs` has weights of some under the same names. With a stream all arrays but
  /// the boxes are addresses of the device, and results are queued on it; without one they are NumPy arrays, and the remarks of every frame
  /// are returned. With `vjp` force and virial are the gradient's.
  std::vector<py::tuple> evaluate(int frames, int natoms, const std::array<bool, 3>& pbc, const py::dict& inputs, const py::dict& outputs,
                                  int atomic, bool vjp, const std::optional<std::uintptr_t>& stream) const {
    const dpa2::Parameters parameters = model_->config().parameters();
    const std::vector<OutputSpec>& specs = model_->outputs();
    const Arrays in(inputs, stream.has_value()), to(outputs, stream.has_value());
    const std::int64_t f = frames, n = f * natoms;
    const auto size_of = [&](const OutputSpec& spec) { return std::int64_t{spec.size()} * (spec.per_atom ? n : f); };
    gpu::Input input;
    input.frames = frames;
    input.atoms = natoms;
    input.on_device = stream.has_value();
    input.stream = reinterpret_cast<void*>(stream.value_or(0));
    input.coords = in.find<double>("coords", 3 * n);
    input.types = in.find<int>("types", n);
    input.boxes = in.find<double>("boxes", 9 * f, true);
    input.pbc = pbc;
    input.fparam = in.find<double>("fparam", f * parameters.fparam);
    input.aparam = in.find<double>("aparam", n * parameters.aparam);
    Outputs asked;
    for (const OutputSpec& spec : specs) {
      if (vjp && !spec.of.empty()) continue;  // shapes are those of one gradient
      asked.set(spec.name, to.find<double>(spec.name.c_str(), size_of(spec)));
    }
    if (vjp) {
      const std::string& of_head = atom_output(specs).name;
      for (const OutputSpec& spec : specs) {
        const double* const seed = in.find<double>(spec.name.c_str(), size_of(spec));
        if (spec.name == of_head) input.seed_head = seed;
        if (spec.name == "descriptor") input.seed_descriptor = seed;
        if (spec.name == "rot_mat") input.seed_rot_mat = seed;
      }
      asked.set("force", to.find<double>("force", 3 * n));
      asked.set("virial", to.find<double>("virial", 9 * f));
    }
    gpu::Request request;
    request.vjp = vjp;
    request.values = !vjp && asked.array(atom_output(specs).name) != nullptr;
    request.forces = asked.array("force") != nullptr;
    request.atom_virial = atomic == 1 && request.forces;
    request.deepmd_virial = atomic == 2 && request.forces;
    request.descriptor = asked.array("descriptor") != nullptr;
    request.rot_mat = asked.array("rot_mat") != nullptr;
    std::vector<Remarks> remarks;
    without_lock([&] { model_->evaluate_frames(input, request, gpu_output(request, specs, asked), stream ? nullptr : &remarks); });
    return to_tuples(remarks);
  }

  /// Engine::check: whether all results stand, and the remarks of the last one's frames.
  std::pair<bool, std::vector<py::tuple>> check() const {
    bool stands = true;
    std::vector<Remarks> remarks;
    without_lock([&] {
      for (gpu::Engine* const engine : model_->engines()) stands = engine->check(&remarks) && stands;
    });
    return {stands, to_tuples(remarks)};
  }

 private:
  template <class N>
  N sum(N (gpu::Engine::*number)() const) const {
    N all = 0;
    for (const gpu::Engine* const engine : model_->engines()) all += (engine->*number)();
    return all;
  }
  static std::vector<py::tuple> to_tuples(const std::vector<Remarks>& remarks) {
    std::vector<py::tuple> list;
    for (const Remarks& one : remarks) list.push_back(to_tuple(one));
    return list;
  }

  std::unique_ptr<Model> model_;
};

}  // namespace

void register_gpu(py::module_& m) {
  const auto memory_of_model = [](auto& type, auto method) {
    type.def("memory", method, py::arg("natoms"), py::arg("neighbors"), py::arg("atomic"), py::arg("gradient") = true);
  };
  py::class_<NativeGpuPlan> plan(m, "NativeGpuPlan");
  plan.def(py::init<const std::string&, const py::dict&, const std::string&, bool>(), py::arg("config_json"), py::arg("weights"),
           py::arg("precision"), py::arg("checked"));
  memory_of_model(plan, &NativeGpuPlan::memory);
  plan.def("kernels", &NativeGpuPlan::kernels);
  py::class_<NativeGpuModel> model(m, "NativeGpuModel");
  memory_of_model(model, &NativeGpuModel::memory);
  model
      .def(py::init<const std::string&, const py::dict&, const std::string&, bool, const std::string&, const py::object&>(),
           py::arg("config_json"), py::arg("weights"), py::arg("precision"), py::arg("checked"), py::arg("device"),
           py::arg("hooks").none(true))
      .def_property_readonly("device", &NativeGpuModel::device)
      .def_property_readonly("bytes", &NativeGpuModel::bytes)
      .def_property_readonly("launches", &NativeGpuModel::launches)
      .def_property_readonly("warnings", &NativeGpuModel::warnings)
      .def_property_readonly("descriptor_dim", &NativeGpuModel::descriptor_dim)
      .def("evaluate", &NativeGpuModel::evaluate, py::arg("frames"), py::arg("natoms"), py::arg("pbc"), py::arg("inputs"),
           py::arg("outputs"), py::arg("atomic") = 0, py::arg("vjp") = false, py::arg("stream") = py::none())
      .def("check", &NativeGpuModel::check);
}

}  // namespace dpa2::python
