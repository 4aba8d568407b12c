#include "python/train.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "error.hpp"
#include "python/lock.hpp"
#include "python/weights.hpp"
#include "train/trainer.hpp"

namespace py = pybind11;

namespace dpa2::python {
namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Ints = py::array_t<int, py::array::c_style | py::array::forcecast>;

const double* checked(const std::optional<Doubles>& array, py::ssize_t size, const char* what) {
  if (!array) return nullptr;
  if (array->size() != size) throw invalid_input(what, " must have ", size, " numbers, not ", array->size());
  return array->data();
}

class NativeTrainer {
 public:
  NativeTrainer(const std::string& config_json, const py::dict& weights, const std::string& precision, int threads) {
    Config config = parse_config(config_json);
    Weights arrays = make_weights(weights);
    without_lock([&] {
      loss_model_ = train::loss_model(config, arrays);
      trainer_ = std::make_unique<train::Trainer>(std::move(config), std::move(arrays), precision, threads);
    });
  }

  void assign(const py::dict& weights) {
    const Weights values = make_weights(weights);
    without_lock([&] {
      const std::lock_guard<std::mutex> lock(mutex_);
      trainer_->assign(values);
    });
  }

  py::tuple gradient(const Doubles& coords, const Ints& types, const std::optional<Doubles>& boxes, const std::optional<Doubles>& fparam,
                     const std::optional<Doubles>& aparam, const std::string& loss_json, double lr,
                     const std::map<std::string, Doubles>& labels) {
    if (coords.ndim() != 3 || coords.shape(2) != 3) throw invalid_input("coords must have shape (nframes, natoms, 3)");
    if (types.ndim() != 2 || types.shape(0) != coords.shape(0) || types.shape(1) != coords.shape(1))
      throw invalid_input("types must have shape (nframes, natoms)");
    const Parameters parameters = trainer_->config().parameters();
    const py::ssize_t frames = coords.shape(0), atoms = coords.shape(1);
    train::Batch batch;
    batch.nframes = static_cast<int>(frames);
    batch.natoms = static_cast<int>(atoms);
    batch.coords = coords.data();
    batch.types = types.data();
    batch.boxes = checked(boxes, 9 * frames, "boxes");
    batch.fparam = checked(fparam, frames * parameters.fparam, "fparam");
    batch.aparam = checked(aparam, frames * atoms * parameters.aparam, "aparam");
    const std::unique_ptr<train::Loss> loss = train::make_loss(loss_json, loss_model_);
    for (const train::LabelSpec& spec : loss->labels()) {
      const auto found = labels.find(spec.name);
      if (found == labels.end()) continue;
      batch.labels[static_cast<std::size_t>(spec.label)] =
          checked(found->second, frames * spec.width * (spec.per_atom ? atoms : 1), spec.name.c_str());
    }
    train::LossGradient result;
    without_lock([&] {
      const std::lock_guard<std::mutex> lock(mutex_);  // one call at a time
      result = trainer_->gradient(batch, *loss, lr);
    });
    py::dict gradient, parts;
    for (const auto& [name, value] : result.parts) parts[py::str(name)] = value;
    for (const auto& [name, tensor] : result.gradient) {
      const std::vector<py::ssize_t> shape(tensor.shape.begin(), tensor.shape.end());
      py::array_t<double> array(shape);
      std::copy(tensor.data.begin(), tensor.data.end(), array.mutable_data());
      gradient[py::str(name)] = array;
    }
    return py::make_tuple(result.value, parts, gradient);
  }

  std::size_t bytes() { return trainer_->bytes(); }

 private:
  std::mutex mutex_;
  train::LossModel loss_model_;
  std::unique_ptr<train::Trainer> trainer_;
};

}  // namespace

void register_train(py::module_& m) {
  py::class_<NativeTrainer>(m, "Trainer")
      .def(py::init<const std::string&, const py::dict&, const std::string&, int>(), py::arg("config_json"), py::arg("weights"),
           py::arg("precision"), py::arg("threads"))
      .def("assign", &NativeTrainer::assign, py::arg("weights"))
      .def("gradient", &NativeTrainer::gradient, py::arg("coords"), py::arg("types"), py::arg("boxes"), py::arg("fparam"),
           py::arg("aparam"), py::arg("loss_json"), py::arg("lr"), py::arg("labels"))
      .def("bytes", &NativeTrainer::bytes);
}

}  // namespace dpa2::python
