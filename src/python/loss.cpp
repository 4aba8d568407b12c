#include "python/loss.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "error.hpp"
#include "python/weights.hpp"
#include "train/loss.hpp"

namespace py = pybind11;

namespace dpa2::python {

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Bools = py::array_t<bool, py::array::c_style | py::array::forcecast>;

/// The arrays of a batch's labels, each (frames, ...), by the names that a loss has for them; others are left alone. Holds them.
class LabelArrays {
 public:
  LabelArrays(const train::Loss& loss, const py::dict& labels, py::ssize_t frames, py::ssize_t natoms) {
    for (const train::LabelSpec& label : loss.labels()) {
      if (!labels.contains(label.name)) continue;
      const Doubles array = Doubles::ensure(labels[py::str(label.name)]);
      if (!array) throw py::error_already_set();
      Rows& rows = rows_[static_cast<std::size_t>(label.label)];
      rows = {array.data(), (label.per_atom ? natoms : 1) * static_cast<py::ssize_t>(label.width)};
      if (array.size() != frames * rows.width) throw invalid_input("the label ", label.name, " has the wrong size");
      held_.push_back(array);
    }
  }

  /// By Label: whether the batch has it.
  [[nodiscard]] std::array<bool, train::label_count> found() const {
    std::array<bool, train::label_count> out{};
    std::transform(rows_.begin(), rows_.end(), out.begin(), [](const Rows& rows) { return rows.data != nullptr; });
    return out;
  }

  /// Those of a frame; null where there is none.
  [[nodiscard]] std::array<const double*, train::label_count> frame(py::ssize_t f) const {
    std::array<const double*, train::label_count> out{};
    std::transform(rows_.begin(), rows_.end(), out.begin(),
                   [&](const Rows& rows) { return rows.data == nullptr ? nullptr : rows.data + f * rows.width; });
    return out;
  }

 private:
  struct Rows {
    const double* data = nullptr;
    py::ssize_t width = 0;
  };
  std::array<Rows, train::label_count> rows_;
  std::vector<py::array> held_;
};

py::dict parts_of(const train::Loss& loss) {
  py::dict out;
  for (const auto& [name, value] : loss.parts()) out[py::str(name)] = value;
  return out;
}

std::unique_ptr<train::Loss> loss_of(const std::string& config_json, const py::dict& weights, const std::string& section) {
  return train::make_loss(section, train::loss_model(parse_config(config_json), make_weights(weights)));
}

/// (name, numbers per frame or per atom, whether per atom, whether required) of the labels that a loss reads.
py::list loss_labels(const std::string& config_json, const py::dict& weights, const std::string& section) {
  py::list out;
  for (const train::LabelSpec& l : loss_of(config_json, weights, section)->labels())
    out.append(py::make_tuple(l.name, l.width, l.per_atom, l.required));
  return out;
}

/// An array that has to be there, or may not be.
const double* rows(const py::dict& arrays, const char* name, py::ssize_t size, bool needed, std::vector<py::array>& held) {
  if (!needed) return nullptr;
  if (!arrays.contains(name)) throw invalid_input("the loss needs the predicted '", name, "'");
  const Doubles array = Doubles::ensure(arrays[name]);
  if (!array) throw py::error_already_set();
  if (array.size() != size) throw invalid_input("the predicted '", name, "' has the wrong size");
  held.push_back(array);
  return array.data();
}

py::tuple loss(const std::string& config_json, const py::dict& weights, const std::string& section, double lr, const Bools& counted,
               const py::dict& predicted, const py::dict& labels) {
  const train::LossModel model = train::loss_model(parse_config(config_json), make_weights(weights));
  const std::unique_ptr<train::Loss> loss = train::make_loss(section, model);
  if (counted.ndim() != 2) throw invalid_input("counted must have shape (nframes, natoms)");
  const py::ssize_t frames = counted.shape(0), natoms = counted.shape(1);
  const LabelArrays arrays(*loss, labels, frames, natoms);
  train::LossBatch batch;
  batch.learning_rate = lr;
  batch.found = arrays.found();
  for (py::ssize_t f = 0; f < frames; ++f)
    batch.counted.push_back(static_cast<int>(std::count(counted.data() + f * natoms, counted.data() + (f + 1) * natoms, true)));
  loss->begin(batch);
  std::vector<py::array> held;
  const double* const atoms = rows(predicted, "atoms", frames * natoms * model.width, true, held);
  const double* const force = rows(predicted, "force", 3 * frames * natoms, loss->forces(), held);
  const double* const virial = rows(predicted, "virial", 9 * frames, loss->virial(), held);
  py::array_t<double> d_atoms({frames, natoms, static_cast<py::ssize_t>(model.width)}), d_force({frames, natoms, py::ssize_t{3}}),
      d_virial({frames, py::ssize_t{9}});
  const auto at = [&](py::ssize_t f) {
    train::LossFrame frame;
    frame.index = static_cast<int>(f);
    frame.natoms = static_cast<int>(natoms);
    frame.counted = counted.data() + f * natoms;
    frame.atoms = atoms + f * natoms * model.width;
    if (force != nullptr) frame.force = force + 3 * f * natoms;
    if (virial != nullptr) frame.virial = virial + 9 * f;
    frame.labels = arrays.frame(f);
    return frame;
  };
  if (loss->survey())
    for (py::ssize_t f = 0; f < frames; ++f) loss->look(at(f));
  for (py::ssize_t f = 0; f < frames; ++f) loss->add(at(f), {d_atoms.mutable_data(f), d_force.mutable_data(f), d_virial.mutable_data(f)});
  py::dict seeds;
  seeds["atoms"] = d_atoms;
  if (loss->forces()) seeds["force"] = d_force;
  if (loss->virial()) seeds["virial"] = d_virial;
  return py::make_tuple(loss->value(), parts_of(*loss), seeds);
}

}  // namespace

void register_loss(py::module_& m) {
  m.def("loss_labels", &loss_labels, py::arg("config_json"), py::arg("weights"), py::arg("section"));
  m.def("loss", &loss, py::arg("config_json"), py::arg("weights"), py::arg("section"), py::arg("lr"), py::arg("counted"),
        py::arg("predicted"), py::arg("labels"));
}

}  // namespace dpa2::python
