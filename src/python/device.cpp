#include "python/device.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "error.hpp"
#include "gpu/device.hpp"
#include "gpu/kernel_package.hpp"
#include "gpu/nvrtc.hpp"
#include "python/dlpack.hpp"
#include "python/lock.hpp"

namespace py = pybind11;

namespace dpa2::python {

namespace {

using gpu::Device;
using Extents = std::vector<std::int64_t>;

std::int64_t count(const Extents& shape) {
  std::int64_t n = 1;
  for (const std::int64_t extent : shape) n *= extent;
  return n;
}

/// An array without gaps in the memory of a GPU, where no library of arrays is: other libraries take it by DLPack. Its work is on the
/// legacy default stream.
class DeviceArray {
 public:
  DeviceArray(std::shared_ptr<const Device> device, void* at, std::shared_ptr<void> owner, Extents shape, dlpack::DataType type)
      : device_(std::move(device)), at_(at), owner_(std::move(owner)), shape_(std::move(shape)), type_(type) {}

  static dlpack::DataType type_of(const std::string& name) {
    for (const dlpack::DataType type : {dlpack::DataType{dlpack::float_code, 64, 1}, dlpack::DataType{dlpack::int_code, 32, 1},
                                        dlpack::DataType{dlpack::float_code, 32, 1}, dlpack::DataType{dlpack::int_code, 64, 1}})
      if (name_of(type) == name) return type;
    throw invalid_input("an array of the device cannot have elements of type ", name);
  }
  static std::string name_of(const dlpack::DataType& type) {
    const char* kind = type.code == dlpack::float_code  ? "float"
                       : type.code == dlpack::int_code  ? "int"
                       : type.code == dlpack::uint_code ? "uint"
                                                        : "";
    return *kind == '\0' || type.lanes != 1 ? "numbers of another kind" : text(kind, static_cast<int>(type.bits));
  }

  static DeviceArray empty(int number, const Extents& shape, const std::string& dtype) {
    std::shared_ptr<const Device> device = Device::open(number);
    const dlpack::DataType type = type_of(dtype);
    const Device::Use use(*device);
    gpu::Memory memory = gpu::allocate(device, static_cast<std::size_t>(count(shape)) * type.bits / 8);
    return {std::move(device), memory.at, std::move(memory.owner), shape, type};
  }

  /// A copy of an array of the host.
  static DeviceArray copy_of(int number, const py::array& array) {
    const std::string dtype = py::cast<std::string>(py::str(array.dtype()));
    if ((array.flags() & py::array::c_style) == 0) throw internal_error("an array with gaps is not copied to the device");
    DeviceArray made = empty(number, Extents(array.shape(), array.shape() + array.ndim()), dtype);
    const void* const from = array.data();
    if (made.bytes() > 0)
      without_lock([&] {
        const Device::Use use(*made.device_);
        gpu::check(gpu::driver().copy_in(gpu::address(made.at_), from, made.bytes(), nullptr), "copying an array to the device");
        gpu::check(gpu::driver().stream_wait(nullptr), "copying an array to the device");  // the host may change what it has
      });
    return made;
  }

  /// Takes over what an array's __dlpack__ gave.
  static DeviceArray taken(const py::capsule& capsule) {
    if (std::string(capsule.name()) != "dltensor") throw invalid_input("it was handed over already, or is no tensor of DLPack");
    auto* const given = capsule.get_pointer<dlpack::ManagedTensor>();
    const dlpack::Tensor& t = given->tensor;
    const Extents shape(t.shape, t.shape + t.ndim);
    if (t.device.type != dlpack::cuda && t.device.type != dlpack::cuda_managed)
      throw invalid_input("it is not in the memory of a CUDA device");
    std::int64_t stride = 1;
    for (int axis = t.ndim - 1; axis >= 0 && t.strides != nullptr; --axis) {
      if (shape[static_cast<std::size_t>(axis)] != 1 && t.strides[axis] != stride && count(shape) > 0)
        throw invalid_input("it has gaps or another order of its axes: pass a contiguous copy");
      stride *= shape[static_cast<std::size_t>(axis)];
    }
    std::shared_ptr<const Device> device = Device::open(t.device.id);
    if (PyCapsule_SetName(capsule.ptr(), "used_dltensor") != 0) throw py::error_already_set();
    std::shared_ptr<void> owner(given, [](dlpack::ManagedTensor* last) {
      if (last->deleter == nullptr || Py_IsInitialized() == 0) return;
      const py::gil_scoped_acquire lock;  // what it frees may be Python's
      last->deleter(last);
    });
    return {std::move(device), static_cast<char*>(t.data) + t.byte_offset, std::move(owner), shape, t.dtype};
  }

  [[nodiscard]] std::uintptr_t pointer() const { return reinterpret_cast<std::uintptr_t>(at_); }
  [[nodiscard]] int device() const { return device_->number(); }
  [[nodiscard]] const Extents& shape() const { return shape_; }
  [[nodiscard]] std::string dtype() const { return name_of(type_); }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(count(shape_)) * type_.bits / 8; }

  /// The same memory.
  [[nodiscard]] DeviceArray reshape(const Extents& shape) const {
    if (count(shape) != count(shape_)) throw invalid_input("an array of ", count(shape_), " numbers cannot have a shape of ", count(shape));
    return {device_, at_, owner_, shape, type_};
  }

  /// (n, ...): n copies of it.
  [[nodiscard]] DeviceArray repeated(std::int64_t n) const {
    Extents shape{n};
    shape.insert(shape.end(), shape_.begin(), shape_.end());
    DeviceArray made = empty(device(), shape, dtype());
    const Device::Use use(*device_);
    for (std::int64_t k = 0; k < n && bytes() > 0; ++k)
      gpu::check(
          gpu::driver().copy_within(gpu::address(made.at_) + static_cast<gpu::Address>(k) * bytes(), gpu::address(at_), bytes(), nullptr),
          "copying an array");
    return made;
  }

  /// A copy of the host, when all work before it is done.
  [[nodiscard]] py::array numpy() const {
    py::array made(py::dtype(dtype()), std::vector<py::ssize_t>(shape_.begin(), shape_.end()));
    void* const to = made.mutable_data();
    if (bytes() > 0)
      without_lock([&] {
        const Device::Use use(*device_);
        gpu::check(gpu::driver().copy_out(to, gpu::address(at_), bytes(), nullptr), "copying an array to the host");
        gpu::check(gpu::driver().stream_wait(nullptr), "copying an array to the host");
      });
    return made;
  }

  /// For the consumer's stream: None, or a number as the array API has it.
  [[nodiscard]] py::capsule dlpack(const std::optional<std::int64_t>& stream) const {
    const std::int64_t consumer = stream.value_or(1);
    if (consumer > 1) {
      const Device::Use use(*device_);
      gpu::Event done(device_);
      done.record(nullptr);
      done.block(gpu::pointer(static_cast<gpu::Address>(consumer)));
    }
    struct Held {
      dlpack::ManagedTensor managed{};
      Extents shape;
      std::shared_ptr<void> owner;
    };
    auto held = std::make_unique<Held>();
    held->shape = shape_;
    held->owner = owner_;
    held->managed.tensor = {at_, {dlpack::cuda, device()}, static_cast<std::int32_t>(shape_.size()), type_, held->shape.data(), nullptr, 0};
    held->managed.context = held.get();
    held->managed.deleter = [](dlpack::ManagedTensor* m) { delete static_cast<Held*>(m->context); };
    py::capsule capsule(&held->managed, "dltensor", [](PyObject* object) {
      if (PyCapsule_IsValid(object, "dltensor") == 0) return;  // the consumer has it
      auto* const m = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(object, "dltensor"));
      m->deleter(m);
    });
    held.release();  // NOLINT: the capsule has it
    return capsule;
  }

  [[nodiscard]] py::dict interface() const {
    py::dict d;
    d["shape"] = py::tuple(py::cast(shape_));
    d["typestr"] = py::dtype(dtype()).attr("str");
    d["data"] = py::make_tuple(pointer(), false);
    d["strides"] = py::none();
    d["version"] = 3;
    d["stream"] = 1;
    return d;
  }

 private:
  std::shared_ptr<const Device> device_;
  void* at_;
  std::shared_ptr<void> owner_;
  Extents shape_;
  dlpack::DataType type_;
};

/// The package of this installation: its path, the version of the compiler, [(architecture, source, defines, whether it is of the sources
/// that are there)], and why there is none.
py::tuple kernel_package() {
  const std::string folder = gpu::source_folder();
  const gpu::FoundPackage found = gpu::find_package(folder);
  py::list images;
  if (found.package == nullptr) return py::make_tuple("", "", images, found.why);
  for (const gpu::KernelPackage::Entry& e : found.package->entries()) {
    const bool fresh = gpu::kernel_key(folder, e.source, e.defines, e.architecture) == e.key;
    images.append(py::make_tuple(e.architecture, e.source, e.defines, fresh));
  }
  return py::make_tuple(found.package->path(), found.package->compiler(), images, "");
}

/// One of its images, by its place in that list.
py::bytes packaged_image(std::size_t index) {
  const gpu::FoundPackage found = gpu::find_package(gpu::source_folder());
  if (found.package == nullptr || index >= found.package->entries().size()) throw invalid_input("there is no such image");
  return found.package->read(found.package->entries()[index]).bytes;
}

}  // namespace

void register_device(py::module_& m) {
  py::class_<DeviceArray>(m, "DeviceArray")
      .def_static("empty", &DeviceArray::empty, py::arg("device"), py::arg("shape"), py::arg("dtype"))
      .def_static("copy_of", &DeviceArray::copy_of, py::arg("device"), py::arg("array"))
      .def_static("taken", &DeviceArray::taken, py::arg("capsule"))
      .def_property_readonly("ptr", &DeviceArray::pointer)
      .def_property_readonly("device", &DeviceArray::device)
      .def_property_readonly("shape", [](const DeviceArray& a) { return py::tuple(py::cast(a.shape())); })
      .def_property_readonly("ndim", [](const DeviceArray& a) { return a.shape().size(); })
      .def_property_readonly("dtype", [](const DeviceArray& a) { return py::dtype(a.dtype()); })
      .def("reshape",
           [](const DeviceArray& a, const py::args& shape) {
             const bool whole = shape.size() == 1 && py::isinstance<py::sequence>(shape[0]);
             return a.reshape(py::cast<Extents>(whole ? py::object(shape[0]) : py::object(shape)));
           })
      .def("repeated", &DeviceArray::repeated, py::arg("n"))
      .def("numpy", &DeviceArray::numpy)
      .def("__dlpack_device__", [](const DeviceArray& a) { return py::make_tuple(dlpack::cuda, a.device()); })
      .def(
          "__dlpack__", [](const DeviceArray& a, const std::optional<std::int64_t>& stream, const py::kwargs&) { return a.dlpack(stream); },
          py::arg("stream") = py::none())
      .def_property_readonly("__cuda_array_interface__", &DeviceArray::interface);
  m.def("kernel_folder", &gpu::source_folder);
  m.def("kernel_package", &kernel_package);
  m.def("packaged_image", &packaged_image);
  m.def("kernel_options", &gpu::compile_options, py::arg("defines"), py::arg("folder"));
}

}  // namespace dpa2::python
