#include "heads/kinds.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "error.hpp"
#include "heads/spectrum.hpp"
#include "heads/tensor.hpp"

namespace dpa2 {

namespace {

using Specs = std::vector<OutputSpec>;

OutputSpec of_atoms(const std::string& name, const std::string& unit, std::vector<int> shape) {
  return {name, unit, std::move(shape), true, Reduction::none, "", false};
}

/// A value of the frame that is made of those of the atoms.
OutputSpec reduced(const std::string& name, Reduction reduction, const OutputSpec& atoms) {
  return {name, atoms.unit, atoms.shape, false, reduction, atoms.name, false};
}

/// Minus the derivatives of a value of the frame, of each of its numbers if there are several.
void add_derivatives(Specs& specs, const std::string& of, const std::string& force_unit, const std::string& unit, int quantities) {
  const auto shape = [&](int n) { return quantities > 1 ? std::vector<int>{quantities, n} : std::vector<int>{n}; };
  specs.push_back({"force", force_unit, shape(3), true, Reduction::none, of, true});
  specs.push_back({"virial", unit, shape(9), false, Reduction::none, of, false});
  specs.push_back({"atom_virial", unit, shape(9), true, Reduction::none, of, true});
}

FittingType type_of(const Config& config) noexcept { return config.type == Combination::none ? config.fitting.type : FittingType::ener; }

}  // namespace

const char* model_kind(const Config& config) noexcept {
  if (config.type == Combination::spin) return "spin";
  switch (type_of(config)) {
    case FittingType::ener:
      return "energy";
    case FittingType::dipole:
      return "dipole";
    case FittingType::polar:
      return "polar";
    case FittingType::dos:
      return "dos";
    case FittingType::property:
      return "property";
    case FittingType::population:
      return "population";
  }
  return "";
}

std::vector<OutputSpec> head_outputs(const Config& config) {
  const FittingConfig& fitting = config.fitting;
  Specs specs;
  const auto with_sum = [&](const std::string& name, Reduction reduction, const OutputSpec& atoms) {
    specs = {reduced(name, reduction, atoms), atoms};
  };
  // Dipoles, polarizabilities and properties are in the units of the data that the model was trained on.
  switch (type_of(config)) {
    case FittingType::ener:
      with_sum("energy", Reduction::sum, of_atoms("atom_energy", "eV", {1}));
      add_derivatives(specs, "energy", "eV/angstrom", "eV", 1);
      if (config.type == Combination::spin)  // spins are in the unit of the data that the model was trained on
        specs.insert(specs.begin() + 3, {"force_mag", "eV per unit of spin", {3}, true, Reduction::none, "energy", true});
      break;
    case FittingType::dipole:
      with_sum("global_dipole", Reduction::sum, of_atoms("dipole", "", {3}));
      add_derivatives(specs, "global_dipole", "1/angstrom", "", 3);
      break;
    case FittingType::polar:
      with_sum("global_polar", Reduction::sum, of_atoms("polar", "", {3, 3}));
      break;
    case FittingType::dos:
      with_sum("dos", Reduction::sum, of_atoms("atom_dos", "1/eV", {fitting.numb_dos}));
      break;
    case FittingType::property:
      with_sum(fitting.property_name, fitting.intensive ? Reduction::mean : Reduction::sum,
               of_atoms("atom_" + fitting.property_name, "", {fitting.task_dim}));
      break;
    case FittingType::population:
      specs = {of_atoms("population", "", {2})};
      break;
  }
  return specs;
}

const OutputSpec& atom_output(const std::vector<OutputSpec>& outputs) {
  const auto found = std::find_if(outputs.begin(), outputs.end(), [](const OutputSpec& s) { return s.per_atom && s.of.empty(); });
  if (found == outputs.end()) throw internal_error("a model without an output of atoms");
  return *found;
}

int quantities_with_forces(const std::vector<OutputSpec>& outputs) {
  const auto found = std::find_if(outputs.begin(), outputs.end(), [](const OutputSpec& s) { return s.name == "force" && s.derivative(); });
  return found == outputs.end() ? 0 : found->size() / 3;
}

template <class T>
std::unique_ptr<Head<T>> make_head(const Config& config, const Prepared<T>& model) {
  switch (config.fitting.type) {
    case FittingType::dipole:
      return std::make_unique<TensorHead<T>>(model, std::make_unique<DipoleContraction>(model.n2_real));
    case FittingType::polar:
      return std::make_unique<TensorHead<T>>(model, std::make_unique<PolarContraction>(model.n2_real, config.fitting.fit_diag));
    case FittingType::ener:
    case FittingType::dos:
    case FittingType::property:
    case FittingType::population:
      break;
  }
  return std::make_unique<SpectrumHead<T>>(model);
}

template std::unique_ptr<Head<double>> make_head(const Config&, const Prepared<double>&);
template std::unique_ptr<Head<float>> make_head(const Config&, const Prepared<float>&);

}  // namespace dpa2
