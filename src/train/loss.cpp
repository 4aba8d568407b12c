#include "train/loss.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "error.hpp"
#include "heads/kinds.hpp"
#include "train/batch_loss.hpp"

namespace dpa2::train {

LossModel loss_model(const Config& config, const Weights& weights) {
  LossModel model;
  model.kind = config.fitting.type;
  model.property = config.fitting.property_name;
  const std::vector<OutputSpec> outputs = head_outputs(config);
  const OutputSpec& atoms = atom_output(outputs);
  model.width = atoms.size();
  model.reduction = Reduction::none;
  for (const OutputSpec& spec : outputs)
    if (spec.of == atoms.name && !spec.derivative()) model.reduction = spec.reduction;
  const auto first_type = [&](const char* name) {
    const auto found = weights.find(name);
    if (found == weights.end()) throw internal_error("a property without ", name);
    return std::vector<double>(found->second.data.begin(), found->second.data.begin() + model.width);
  };
  if (model.kind == FittingType::property) {
    model.bias = first_type("out_bias");
    model.deviation = first_type("out_std");
  }
  return model;
}

BatchLoss::BatchLoss(Section& section, const LossModel& model) : model_(model), starter_(section.number_or_null("starter_learning_rate")) {
  if (starter_ && !(*starter_ > 0.0)) throw invalid_input("loss.starter_learning_rate is ", *starter_, ", expected a positive number");
}

void BatchLoss::begin(const LossBatch& batch) {
  if (batch.counted.empty()) throw invalid_input("the batch has no frames");
  if (!(batch.learning_rate >= 0.0 && std::isfinite(batch.learning_rate)))
    throw invalid_input("the learning rate is ", batch.learning_rate, ", expected a number that is not negative");
  batch_ = batch;
  const double counted = std::accumulate(batch.counted.begin(), batch.counted.end(), 0.0);
  all_atoms_ = std::max(counted, 1.0);
  mean_atoms_ = counted / frames();
  fraction_ = starter_ ? batch.learning_rate / *starter_ : 1.0;
  for (const LabelSpec& label : labels())
    if (label.required && !found(label.label)) throw invalid_input("the batch has no ", label.name, ", which the loss compares with");
  reset();
}

void BatchLoss::need_atoms(const std::string& what) const {
  for (std::size_t f = 0; f < batch_.counted.size(); ++f)
    if (batch_.counted[f] <= 0)
      throw invalid_input("frame ", f, " has no atom that counts: there is no ", what, " per atom; leave the frame out");
}

std::vector<double> summed(const LossFrame& frame, int width) {
  std::vector<double> out(static_cast<std::size_t>(width));
  for (int i = 0; i < frame.natoms; ++i)
    if (frame.counted[i])
      for (int k = 0; k < width; ++k) out[static_cast<std::size_t>(k)] += frame.atoms[static_cast<std::ptrdiff_t>(i) * width + k];
  return out;
}

void add_to_atoms(const LossFrame& frame, const std::vector<double>& slope, const LossSeeds& seeds) {
  if (seeds.atoms == nullptr) return;
  const auto width = static_cast<std::ptrdiff_t>(slope.size());
  for (std::ptrdiff_t i = 0; i < frame.natoms; ++i)
    if (frame.counted[i])
      for (std::ptrdiff_t k = 0; k < width; ++k) seeds.atoms[i * width + k] += slope[static_cast<std::size_t>(k)];
}

std::unique_ptr<Loss> make_loss(std::string_view text, const LossModel& model) {
  Section section(text);
  const std::string type =
      section.word("type", "ener", {"ener", "ener_hess", "tensor", "dos", "property", "population", "ener_spin", "dens", "denoise"});
  if (type == "ener_spin" || type == "dens" || type == "denoise")
    throw unsupported("losses of type '", type, "' belong to models that dpa2 does not have");
  const auto is = [&](FittingType kind, const char* name, const char* of) {
    if (type == name && model.kind != kind)
      throw invalid_input("a loss of type '", type, "' is for ", of, "; give loss.type that of this model");
    return type == name;
  };
  std::unique_ptr<Loss> loss;
  if (type == "tensor") {
    if (model.kind != FittingType::dipole && model.kind != FittingType::polar)
      throw invalid_input("a loss of type 'tensor' is for dipoles and polarizabilities; give loss.type that of this model");
    loss = tensor_loss(section, model);
  } else if (is(FittingType::dos, "dos", "densities of states")) {
    loss = dos_loss(section, model);
  } else if (is(FittingType::property, "property", "properties")) {
    loss = property_loss(section, model);
  } else if (is(FittingType::population, "population", "populations")) {
    loss = population_loss(section, model);
  } else if (is(FittingType::ener, "ener", "energies") || is(FittingType::ener, "ener_hess", "energies")) {
    loss = energy_loss(section, model);
  }
  section.finish();
  return loss;
}

}  // namespace dpa2::train
