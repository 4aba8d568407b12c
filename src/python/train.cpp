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

/// The arrays of a batch, which are held, as the core takes them.
class HeldBatch {
 public:
  void set(const Doubles& coords, const Ints& types, const std::optional<Doubles>& boxes, const std::optional<Doubles>& fparam,
           const std::optional<Doubles>& aparam, const std::map<std::string, Doubles>& labels, const train::Loss& loss,
           const Parameters& parameters) {
    if (coords.ndim() != 3 || coords.shape(2) != 3) throw invalid_input("coords must have shape (nframes, natoms, 3)");
    if (types.ndim() != 2 || types.shape(0) != coords.shape(0) || types.shape(1) != coords.shape(1))
      throw invalid_input("types must have shape (nframes, natoms)");
    const py::ssize_t frames = coords.shape(0), atoms = coords.shape(1);
    batch.nframes = static_cast<int>(frames);
    batch.natoms = static_cast<int>(atoms);
    batch.coords = hold(coords).data();
    batch.types = hold(types).data();
    batch.boxes = checked(boxes, 9 * frames, "boxes");
    batch.fparam = checked(fparam, frames * parameters.fparam, "fparam");
    batch.aparam = checked(aparam, frames * atoms * parameters.aparam, "aparam");
    for (const train::LabelSpec& spec : loss.labels()) {
      const auto found = labels.find(spec.name);
      if (found == labels.end()) continue;
      batch.labels[static_cast<std::size_t>(spec.label)] =
          checked(found->second, frames * spec.width * (spec.per_atom ? atoms : 1), spec.name.c_str());
    }
  }

  train::Batch batch;

 private:
  template <class Array>
  const Array& hold(const Array& array) {
    held_.push_back(array);
    return array;
  }
  const double* checked(const std::optional<Doubles>& array, py::ssize_t size, const char* what) {
    if (!array) return nullptr;
    if (array->size() != size) throw invalid_input(what, " must have ", size, " numbers, not ", array->size());
    return hold(*array).data();
  }

  std::vector<py::array> held_;
};

py::dict dict_of(const std::vector<std::pair<std::string, double>>& parts) {
  py::dict out;
  for (const auto& [name, value] : parts) out[py::str(name)] = value;
  return out;
}

py::dict dict_of(const Weights& weights) {
  py::dict out;
  for (const auto& [name, tensor] : weights) {
    const std::vector<py::ssize_t> shape(tensor.shape.begin(), tensor.shape.end());
    py::array_t<double> array(shape);
    std::copy(tensor.data.begin(), tensor.data.end(), array.mutable_data());
    out[py::str(name)] = array;
  }
  return out;
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
    Weights values = make_weights(weights);
    work([&](train::Trainer& trainer) { trainer.assign(std::move(values)); });
  }

  py::tuple gradient(const Doubles& coords, const Ints& types, const std::optional<Doubles>& boxes, const std::optional<Doubles>& fparam,
                     const std::optional<Doubles>& aparam, const std::string& loss_json, double lr,
                     const std::map<std::string, Doubles>& labels) {
    const std::unique_ptr<train::Loss> own = loss(loss_json);
    HeldBatch held;
    held.set(coords, types, boxes, fparam, aparam, labels, *own, parameters());
    train::LossGradient result;
    work([&](train::Trainer& trainer) { result = trainer.gradient(held.batch, *own, lr); });
    return py::make_tuple(result.value, dict_of(result.parts), dict_of(result.gradient));
  }

  py::tuple value(const Doubles& coords, const Ints& types, const std::optional<Doubles>& boxes, const std::optional<Doubles>& fparam,
                  const std::optional<Doubles>& aparam, const std::string& loss_json, double lr,
                  const std::map<std::string, Doubles>& labels) {
    const std::unique_ptr<train::Loss> own = loss(loss_json);
    HeldBatch held;
    held.set(coords, types, boxes, fparam, aparam, labels, *own, parameters());
    train::LossValue result;
    work([&](train::Trainer& trainer) { result = trainer.value(held.batch, *own, lr); });
    return py::make_tuple(result.value, dict_of(result.parts));
  }

  /// Runs f(trainer) without the interpreter's lock, one call at a time.
  template <class F>
  void work(F f) {
    without_lock([&] {
      const std::lock_guard<std::mutex> lock(mutex_);
      f(*trainer_);
    });
  }

  [[nodiscard]] std::unique_ptr<train::Loss> loss(const std::string& json) const { return train::make_loss(json, loss_model_); }
  [[nodiscard]] Parameters parameters() const { return trainer_->config().parameters(); }
  std::size_t bytes() { return trainer_->bytes(); }

 private:
  std::mutex mutex_;
  train::LossModel loss_model_;
  std::unique_ptr<train::Trainer> trainer_;
};

/// The frames of a batch that are here, or none: the others are elsewhere. What joins all of them is handed out and in.
class NativePart {
 public:
  NativePart(NativeTrainer& trainer, const std::string& loss_json, double lr)
      : trainer_(trainer), loss_(trainer.loss(loss_json)), learning_rate_(lr) {}

  void set(const Doubles& coords, const Ints& types, const std::optional<Doubles>& boxes, const std::optional<Doubles>& fparam,
           const std::optional<Doubles>& aparam, const std::map<std::string, Doubles>& labels) {
    held_.set(coords, types, boxes, fparam, aparam, labels, *loss_, trainer_.parameters());
  }

  /// Atoms that count, of every frame here.
  std::vector<int> counted() {
    std::vector<int> out;
    trainer_.work([&](train::Trainer& trainer) { out = trainer.counted(held_.batch); });
    return out;
  }

  /// counted: of all frames; first: how many are before those here; labels: which all of them have.
  void begin(const std::vector<int>& counted, int first, const std::vector<std::string>& labels) {
    train::LossBatch all{learning_rate_, counted, {}};
    for (const train::LabelSpec& spec : loss_->labels()) {
      const std::size_t k = static_cast<std::size_t>(spec.label);
      all.found[k] = std::find(labels.begin(), labels.end(), spec.name) != labels.end();
      if (!all.found[k]) held_.batch.labels[k] = nullptr;
    }
    held_.batch.first = first;
    without_lock([&] { loss_->begin(all); });
  }

  /// What the frames here give to sums that the gradient depends on; to be followed by surveyed() with those of all. Mostly none.
  std::vector<double> survey() {
    if (!loss_->survey()) return {};
    if (held_.batch.nframes > 0) trainer_.work([&](train::Trainer& trainer) { trainer.look(held_.batch, *loss_); });
    return values(loss_->survey_sums());
  }
  void surveyed(const std::vector<double>& sums) { assign(loss_->survey_sums(), sums); }

  /// What the frames here give to the gradient; only for parts that have some.
  py::dict gradient() {
    Weights found;
    trainer_.work([&](train::Trainer& trainer) { found = trainer.sweep(held_.batch, *loss_); });
    return dict_of(found);
  }

  /// The same of frames of which only the loss is wanted.
  void add() {
    trainer_.work([&](train::Trainer& trainer) { trainer.add(held_.batch, *loss_); });
  }

  /// What they give to the sums of the loss.
  std::vector<double> sums() { return values(loss_->sums()); }
  /// The loss and what is displayed of it, of the batch whose sums these are.
  py::tuple result(const std::vector<double>& sums) {
    assign(loss_->sums(), sums);
    return py::make_tuple(loss_->value(), dict_of(loss_->parts()));
  }

 private:
  static std::vector<double> values(const std::vector<double*>& places) {
    std::vector<double> out;
    for (const double* place : places) out.push_back(*place);
    return out;
  }
  static void assign(const std::vector<double*>& places, const std::vector<double>& numbers) {
    if (numbers.size() != places.size()) throw invalid_input("the loss has ", places.size(), " sums, not ", numbers.size());
    for (std::size_t k = 0; k < places.size(); ++k) *places[k] = numbers[k];
  }

  NativeTrainer& trainer_;
  std::unique_ptr<train::Loss> loss_;
  double learning_rate_;
  HeldBatch held_;
};

}  // namespace

void register_train(py::module_& m) {
  py::class_<NativeTrainer>(m, "Trainer")
      .def(py::init<const std::string&, const py::dict&, const std::string&, int>(), py::arg("config_json"), py::arg("weights"),
           py::arg("precision"), py::arg("threads"))
      .def("assign", &NativeTrainer::assign, py::arg("weights"))
      .def("gradient", &NativeTrainer::gradient, py::arg("coords"), py::arg("types"), py::arg("boxes"), py::arg("fparam"),
           py::arg("aparam"), py::arg("loss_json"), py::arg("lr"), py::arg("labels"))
      .def("value", &NativeTrainer::value, py::arg("coords"), py::arg("types"), py::arg("boxes"), py::arg("fparam"), py::arg("aparam"),
           py::arg("loss_json"), py::arg("lr"), py::arg("labels"))
      .def("bytes", &NativeTrainer::bytes);
  py::class_<NativePart>(m, "TrainerPart")
      .def(py::init<NativeTrainer&, const std::string&, double>(), py::arg("trainer"), py::arg("loss_json"), py::arg("lr"),
           py::keep_alive<1, 2>())
      .def("set", &NativePart::set, py::arg("coords"), py::arg("types"), py::arg("boxes"), py::arg("fparam"), py::arg("aparam"),
           py::arg("labels"))
      .def("counted", &NativePart::counted)
      .def("begin", &NativePart::begin, py::arg("counted"), py::arg("first"), py::arg("labels"))
      .def("survey", &NativePart::survey)
      .def("surveyed", &NativePart::surveyed, py::arg("sums"))
      .def("gradient", &NativePart::gradient)
      .def("add", &NativePart::add)
      .def("sums", &NativePart::sums)
      .def("result", &NativePart::result, py::arg("sums"));
}

}  // namespace dpa2::python
