// The functions of dpa2.h that go by the names of outputs.
#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "capi/gate.hpp"

namespace {

using namespace dpa2::gate;
using dpa2::invalid_input;
using dpa2::OutputSpec;

/// The entries of a list of names, which must be there, and be there once.
void check_names(int number, const char* const* names, const void* arrays, const char* what, const char* arrays_name) {
  if (number < 1) throw invalid_input("there must be at least one of the ", what, ", not ", number);
  need(names, "names");
  need(arrays, arrays_name);
  for (int k = 0; k < number; ++k) {
    if (names[k] == nullptr) throw invalid_input("name ", k, " of the ", what, " is NULL");
    for (int l = 0; l < k; ++l)
      if (std::string_view(names[k]) == names[l]) throw invalid_input("'", names[k], "' is named twice among the ", what);
  }
}

/// Names after each other, for messages.
template <class List, class F>
std::string joined(const List& list, F name) {
  std::string text;
  for (const auto& item : list) text += (text.empty() ? "" : ", ") + std::string(name(item));
  return text;
}

const OutputSpec& spec_of(const dpa2::Model& model, const char* name) {
  const auto& specs = model.outputs();
  const auto found = std::find_if(specs.begin(), specs.end(), [&](const OutputSpec& s) { return s.name == name; });
  if (found == specs.end())
    throw invalid_input("the model has no output '", name, "'; it has ", joined(specs, [](const OutputSpec& s) { return s.name; }));
  return *found;
}

std::ptrdiff_t numbers(const OutputSpec& spec, int nlocal, int nall) {
  const std::ptrdiff_t rows = !spec.per_atom ? 1 : spec.ghosts ? nall : nlocal;
  return rows * spec.size();
}

/// What a call asks for by name.
struct Wanted {
  dpa2::Outputs out;
  bool head = false, descriptor = false;
  dpa2::AtomVirial atom_virial = dpa2::AtomVirial::none;

  Wanted(const dpa2::Model& model, int nlocal, int nall, int number, const char* const* names, double* const* arrays) {
    static double nowhere;  // for arrays without numbers: that they are wanted decides about exchanges
    check_names(number, names, arrays, "outputs", "arrays");
    for (int k = 0; k < number; ++k) {
      const OutputSpec& spec = spec_of(model, names[k]);
      if (arrays[k] == nullptr && numbers(spec, nlocal, nall) > 0) throw invalid_input("the array of the output '", names[k], "' is NULL");
      out.set(spec.name, arrays[k] == nullptr ? &nowhere : arrays[k]);
      (dpa2::of_descriptor(spec) ? descriptor : head) = true;
    }
    const bool forces = dpa2::quantities_with_forces(model.outputs()) > 0;
    if (forces && out.array("force") == nullptr && (out.array("virial") != nullptr || out.array("atom_virial") != nullptr))
      throw invalid_input("virials are computed with forces only: 'force' is not among the outputs");
    if (forces && out.array("atom_virial") != nullptr) atom_virial = dpa2::AtomVirial::edge;
  }
  /// The mean over no atoms is no number, and may be none.
  void require_finite_numbers(const dpa2::Model& model, int nlocal, int nall, const int* types) const {
    const auto somebody = [&] { return std::any_of(types, types + nlocal, [&](int type) { return model.counts(type); }); };
    for (const OutputSpec& spec : model.outputs())
      if (spec.reduction != dpa2::Reduction::mean || somebody())
        require_finite(finite(out.array(spec.name), numbers(spec, nlocal, nall)), spec.name.c_str());
  }
};

/// The weights that a call gives by name.
dpa2::Seeds seeds(const dpa2::Model& model, int nlocal, int number, const char* const* names, const double* const* weights) {
  static const double nothing = 0.0;
  dpa2::Seeds given;
  struct {
    std::string_view name;
    const double** rows;
  } const places[] = {
      {dpa2::atom_output(model.outputs()).name, &given.head}, {"descriptor", &given.descriptor}, {"rot_mat", &given.rot_mat}};
  check_names(number, names, weights, "weights", "weights");
  for (int k = 0; k < number; ++k) {
    const auto place = std::find_if(std::begin(places), std::end(places), [&](const auto& p) { return p.name == names[k]; });
    if (place == std::end(places))
      throw invalid_input("there is no gradient of '", names[k], "'; weights may be those of ",
                          joined(places, [](const auto& p) { return p.name; }));
    const int width = spec_of(model, names[k]).size();
    if (weights[k] == nullptr && nlocal > 0) throw invalid_input("the array of weights of '", names[k], "' is NULL");
    if (!finite(weights[k], static_cast<std::ptrdiff_t>(nlocal) * width))
      need_finite(weights[k], nlocal, width, dpa2::text("the weights of '", names[k], "'").c_str());
    *place->rows = weights[k] == nullptr ? &nothing : weights[k];
  }
  return given;
}

/// Minus what stands in (count) numbers.
void negate(double* numbers, std::ptrdiff_t count) {
  for (std::ptrdiff_t k = 0; numbers != nullptr && k < count; ++k) numbers[k] = -numbers[k];
}

/// f(out) fills forces and virial; the gradients are minus these.
template <class F>
void gradients(int rows, double* gradient, double* strain, F f) {
  static double nowhere;
  need_rows(gradient, rows, "gradient");
  dpa2::Outputs out;
  out.set("force", gradient == nullptr ? &nowhere : gradient);
  out.set("virial", strain);
  f(out);
  const std::ptrdiff_t count = 3 * static_cast<std::ptrdiff_t>(rows);
  require_finite(finite(gradient, count) && finite(strain, 9), "a gradient", "weights or parameters");
  negate(gradient, count);
  negate(strain, 9);
}

}  // namespace

dpa2_model::dpa2_model(std::shared_ptr<const dpa2::Model> m) : model(std::move(m)) {
  for (const OutputSpec& s : model->outputs())
    outputs.push_back({s.name.c_str(), s.unit.c_str(), s.per_atom ? 1 : 0, s.ghosts ? 1 : 0, static_cast<int>(s.shape.size()),
                       s.shape.data(), s.size(), dpa2::reduction_name(s.reduction), s.of.c_str()});
}

const char* dpa2_model_kind(const dpa2_model* model) {
  return ask(model, static_cast<const char*>(nullptr), [](const dpa2::Model& m) { return m.kind(); });
}

int dpa2_model_noutputs(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return static_cast<int>(m.outputs().size()); });
}

const dpa2_output* dpa2_model_output(const dpa2_model* model, int index) {
  return ask(model, static_cast<const dpa2_output*>(nullptr), [&](const dpa2::Model&) {
    return index >= 0 && static_cast<std::size_t>(index) < model->outputs.size() ? &model->outputs[static_cast<std::size_t>(index)]
                                                                                 : nullptr;
  });
}

dpa2_status dpa2_compute(const dpa2_model* model, int natoms, const double* coords, const int* types, const double* box, const int* pbc,
                         const double* fparam, const double* aparam, int threads, int noutputs, const char* const* names,
                         double* const* arrays) {
  return dpa2_compute_spin(model, natoms, coords, types, box, pbc, fparam, aparam, nullptr, threads, noutputs, names, arrays);
}

dpa2_status dpa2_compute_spin(const dpa2_model* model, int natoms, const double* coords, const int* types, const double* box,
                              const int* pbc, const double* fparam, const double* aparam, const double* spins, int threads, int noutputs,
                              const char* const* names, double* const* arrays) {
  return gate([&] {
    need(model, "model");
    const dpa2::Model& m = *model->model;
    dpa2::Structure s = structure(natoms, coords, types, box, pbc);
    if (m.spin() == nullptr && spins != nullptr)
      throw invalid_input("there are spins, but the model is of the kind '", m.kind(), "', which has none");
    if (natoms > 0) need_spins(m, spins);
    s.spins = spins;
    const Wanted wanted(m, natoms, natoms, noutputs, names, arrays);
    dpa2::Remarks remarks;
    if (wanted.descriptor) m.descriptor(s, threads, wanted.out, remarks);
    if (wanted.head) {
      set_parameters(s, config(model), fparam, aparam, natoms);
      m.evaluate(s, wanted.atom_virial, threads, wanted.out, remarks);
    }
    wanted.require_finite_numbers(m, natoms, natoms, types);
    set_warnings(m, remarks);
  });
}

dpa2_status dpa2_vjp(const dpa2_model* model, int natoms, const double* coords, const int* types, const double* box, const int* pbc,
                     const double* fparam, const double* aparam, int threads, int nweights, const char* const* names,
                     const double* const* weights, double* gradient, double* strain) {
  return gate([&] {
    need(model, "model");
    const dpa2::Model& m = *model->model;
    dpa2::Structure s = structure(natoms, coords, types, box, pbc);
    const dpa2::Seeds given = seeds(m, natoms, nweights, names, weights);
    if (given.head != nullptr) set_parameters(s, config(model), fparam, aparam, natoms);
    dpa2::Remarks remarks;
    gradients(natoms, gradient, strain, [&](const dpa2::Outputs& out) { m.vjp(s, given, threads, out, remarks); });
    set_warnings(m, remarks);
  });
}

dpa2_status dpa2_domain_compute(dpa2_domain* domain, const dpa2_model* model, const int* types, int pad_type, const double* fparam,
                                const double* aparam, const dpa2_exchange* exchange, int threads, int noutputs, const char* const* names,
                                double* const* arrays) {
  return gate([&] {
    need(domain, "domain");
    need(model, "model");
    const dpa2::Model& m = *model->model;
    const int nlocal = domain->domain.atoms().nlocal, nall = domain->domain.atoms().nall;
    const Wanted wanted(m, nlocal, nall, noutputs, names, arrays);
    dpa2::Remarks remarks;
    with_exchange(domain, exchange, [&](dpa2::Exchange* e) {
      dpa2::DomainFrame frame = domain_frame(domain, model, types, pad_type, threads, e);
      if (wanted.head) set_parameters(frame, config(model), fparam, aparam, nlocal);
      if (wanted.descriptor) domain->domain.descriptor(model->model, frame, wanted.out, remarks);
      if (wanted.head) domain->domain.evaluate(model->model, frame, wanted.atom_virial, wanted.out, remarks);
    });
    wanted.require_finite_numbers(m, nlocal, nall, types);
    set_warnings(m, remarks);
  });
}

dpa2_status dpa2_domain_vjp(dpa2_domain* domain, const dpa2_model* model, const int* types, int pad_type, const double* fparam,
                            const double* aparam, const dpa2_exchange* exchange, int threads, int nweights, const char* const* names,
                            const double* const* weights, double* gradient, double* strain) {
  return gate([&] {
    need(domain, "domain");
    need(model, "model");
    const dpa2::Model& m = *model->model;
    const int nlocal = domain->domain.atoms().nlocal, nall = domain->domain.atoms().nall;
    const dpa2::Seeds given = seeds(m, nlocal, nweights, names, weights);
    dpa2::Remarks remarks;
    gradients(nall, gradient, strain, [&](const dpa2::Outputs& out) {
      with_exchange(domain, exchange, [&](dpa2::Exchange* e) {
        dpa2::DomainFrame frame = domain_frame(domain, model, types, pad_type, threads, e);
        if (given.head != nullptr) set_parameters(frame, config(model), fparam, aparam, nlocal);
        domain->domain.vjp(model->model, frame, given, out, remarks);
      });
    });
    set_warnings(m, remarks);
  });
}
