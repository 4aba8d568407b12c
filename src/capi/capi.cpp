// The functions of dpa2.h: models, whole systems and parts of systems.
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "capi/gate.hpp"
#include "model/device.hpp"
#include "schema/safetensors.hpp"

namespace {

using namespace dpa2::gate;
using dpa2::invalid_input;

/// `rows` is the number of rows of the forces.
void require_finite_forces(const dpa2::Outputs& out, int rows) {
  require_finite(finite(out.array("energy"), 1) && finite(out.array("force"), 3 * static_cast<std::ptrdiff_t>(rows)),
                 "the energy or a force");
}

/// For `centres` atoms.
void require_finite_rows(const dpa2::Outputs& out, const dpa2::Config& config, int centres) {
  const std::ptrdiff_t n = centres;
  require_finite(finite(out.array("descriptor"), n * config.descriptor_dim()) && finite(out.array("rot_mat"), 3 * n * config.g2_dim()),
                 "the descriptor");
}

/// Makes a model of what read() gives; errors of the file name it.
template <class Read>
void load(dpa2_model** out, const std::string& name, const char* precision, double skin, const char* device, Read read) try {
  dpa2::SafetensorsFile file = read();
  *out = new dpa2_model(std::make_shared<const dpa2::Model>(dpa2::parse_config(file.config_json), std::move(file.weights),
                                                            precision == nullptr ? "" : precision, skin, false,
                                                            device == nullptr ? "cpu" : device));
  for (const std::string& one : (*out)->model->warnings()) messages().warnings += (messages().warnings.empty() ? "" : "\n") + one;
} catch (const dpa2::Error& e) {
  const bool of_file = e.status() == dpa2::Status::model_file || e.status() == dpa2::Status::unsupported;
  if (!of_file || std::string(e.what()).find(name) != std::string::npos) throw;
  throw dpa2::Error(e.status(), dpa2::text("'", name, "': ", e.what()));
}

/// Throws for models whose outputs have other names than the arguments of dpa2_evaluate.
void need_energies(const dpa2_model* model) {
  const dpa2::Model& m = *model->model;
  if (m.spin() != nullptr)
    throw invalid_input("the model is of the kind 'spin', and needs spins: ask for its outputs by name, with dpa2_compute_spin, or with ",
                        "dpa2_domain_set_spins and dpa2_domain_compute");
  if (std::string_view(m.kind()) != "energy")
    throw invalid_input("the model has no energy, it is of the kind '", m.kind(), "': ask for its outputs by name, with ",
                        "dpa2_compute or dpa2_domain_compute");
}

dpa2::Outputs outputs(double* energy, double* forces, double* virial, double* atom_energy, double* atom_virial) {
  need(energy, "energy");
  if (forces == nullptr && (virial != nullptr || atom_virial != nullptr))
    throw invalid_input("virials are computed with forces only: forces is NULL");
  dpa2::Outputs out;
  out.set("energy", energy);
  out.set("force", forces);
  out.set("virial", virial);
  out.set("atom_energy", atom_energy);
  out.set("atom_virial", atom_virial);
  return out;
}

}  // namespace

int dpa2_abi_version(void) { return DPA2_ABI_VERSION; }
const char* dpa2_version(void) { return DPA2_VERSION_TEXT; }
const char* dpa2_isa(void) {
  const char* name = "";
  guarded([&] { name = dpa2::isa_name(); });
  return name;
}
const char* dpa2_last_error(void) { return messages().error.c_str(); }
const char* dpa2_last_warning(void) { return messages().warnings.c_str(); }
const char* dpa2_last_warning_of(dpa2_warning kind) {
  switch (kind) {
    case DPA2_WARNING_OVERFLOW:
      return messages().overflow.c_str();
    case DPA2_WARNING_CLOSE_PAIR:
      return messages().close_pair.c_str();
    case DPA2_WARNING_CLAMP:
      return messages().clamp.c_str();
  }
  return "";
}

dpa2_status dpa2_device_count(int* count) {
  return gate([&] {
    need(count, "count");
    *count = 0;
    *count = dpa2::gpu_count();
  });
}

dpa2_status dpa2_model_load(const char* path, const char* precision, double skin, dpa2_model** model) {
  return dpa2_model_load_device(path, precision, skin, nullptr, model);
}

dpa2_status dpa2_model_load_device(const char* path, const char* precision, double skin, const char* device, dpa2_model** model) {
  return gate([&] {
    need(path, "path");
    need(model, "model");
    *model = nullptr;
    load(model, path, precision, skin, device, [&] { return dpa2::read_safetensors(path); });
  });
}

dpa2_status dpa2_model_load_buffer(const void* data, size_t size, const char* name, const char* precision, double skin,
                                   dpa2_model** model) {
  return dpa2_model_load_buffer_device(data, size, name, precision, skin, nullptr, model);
}

dpa2_status dpa2_model_load_buffer_device(const void* data, size_t size, const char* name, const char* precision, double skin,
                                          const char* device, dpa2_model** model) {
  return gate([&] {
    need(data, "data");
    need(model, "model");
    *model = nullptr;
    const std::string what = name == nullptr ? "model" : name;
    load(model, what, precision, skin, device, [&] { return dpa2::read_safetensors(data, size, what); });
  });
}

void dpa2_model_free(dpa2_model* model) { delete model; }

int dpa2_model_ntypes(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.config().ntypes(); });
}

const char* dpa2_model_type_name(const dpa2_model* model, int type) {
  return ask(model, static_cast<const char*>(nullptr), [&](const dpa2::Model& m) {
    const auto& map = m.config().type_map;
    return type >= 0 && static_cast<std::size_t>(type) < map.size() ? map[static_cast<std::size_t>(type)].c_str() : nullptr;
  });
}

int dpa2_model_type_index(const dpa2_model* model, const char* symbol) {
  return ask(model, -1, [&](const dpa2::Model& m) {
    const auto& map = m.config().type_map;
    for (std::size_t k = 0; symbol != nullptr && k < map.size(); ++k)
      if (map[k] == symbol) return static_cast<int>(k);
    return -1;
  });
}

double dpa2_model_rcut(const dpa2_model* model) {
  return ask(model, 0.0, [](const dpa2::Model& m) { return m.config().rcut(); });
}
double dpa2_model_virtual_scale(const dpa2_model* model, int type) {
  return ask(model, 0.0, [&](const dpa2::Model& m) {
    return m.spin() != nullptr && type >= 0 && type < m.config().ntypes() ? m.spin()->scales()[static_cast<std::size_t>(type)] : 0.0;
  });
}
double dpa2_model_reach(const dpa2_model* model, int natoms, const int* types, const double* spins) {
  return ask(model, -1.0, [&](const dpa2::Model& m) {
    if (natoms < 0) throw invalid_input("the number of atoms is negative: ", natoms);
    if (m.spin() == nullptr) return m.config().rcut();
    need_rows(types, natoms, "types");
    need_rows(spins, natoms, "spins");
    return m.config().rcut() + 2 * m.spin()->longest_shift(natoms, types, spins);
  });
}
int dpa2_model_descriptor_dim(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.config().descriptor_dim(); });
}
int dpa2_model_g2_dim(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.config().g2_dim(); });
}
int dpa2_model_fparam_dim(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.config().parameters().fparam; });
}
int dpa2_model_aparam_dim(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.config().parameters().aparam; });
}
int dpa2_model_has_default_fparam(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.config().parameters().default_fparam ? 1 : 0; });
}
const char* dpa2_model_precision(const dpa2_model* model) {
  return ask(model, static_cast<const char*>(nullptr), [](const dpa2::Model& m) { return m.precision().c_str(); });
}
const char* dpa2_model_device(const dpa2_model* model) {
  return ask(model, static_cast<const char*>(nullptr), [](const dpa2::Model& m) { return m.device().c_str(); });
}
int dpa2_model_exchange_width(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.exchange_width(); });
}
const char* dpa2_model_config(const dpa2_model* model) {
  return ask(model, static_cast<const char*>(nullptr), [](const dpa2::Model& m) { return m.config().json.c_str(); });
}

int64_t dpa2_model_memory_estimate(const dpa2_model* model, int64_t natoms, double neighbors, int atomic, int threads) {
  return ask(model, int64_t{-1}, [&](const dpa2::Model& m) {
    return m.memory_estimate(natoms, neighbors, true, atomic != 0 ? dpa2::AtomVirial::edge : dpa2::AtomVirial::none, threads);
  });
}

dpa2_status dpa2_evaluate(const dpa2_model* model, int natoms, const double* coords, const int* types, const double* box, const int* pbc,
                          const double* fparam, const double* aparam, int threads, double* energy, double* forces, double* virial,
                          double* atom_energy, double* atom_virial) {
  return gate([&] {
    need(model, "model");
    need_energies(model);
    dpa2::Structure s = structure(natoms, coords, types, box, pbc);
    set_parameters(s, config(model), fparam, aparam, natoms);
    dpa2::Outputs out = outputs(energy, forces, virial, atom_energy, atom_virial);
    dpa2::Remarks remarks;
    model->model->evaluate(s, atom_virial != nullptr ? dpa2::AtomVirial::edge : dpa2::AtomVirial::none, threads, out, remarks);
    require_finite_forces(out, natoms);
    set_warnings(*model->model, remarks);
  });
}

dpa2_status dpa2_descriptor(const dpa2_model* model, int natoms, const double* coords, const int* types, const double* box, const int* pbc,
                            int threads, double* descriptor, double* rot_mat) {
  return gate([&] {
    need(model, "model");
    need_spins(*model->model, nullptr);
    const dpa2::Structure s = structure(natoms, coords, types, box, pbc);
    need_rows(descriptor, natoms, "descriptor");
    dpa2::Outputs out;
    out.set("descriptor", descriptor);
    out.set("rot_mat", rot_mat);
    dpa2::Remarks remarks;
    model->model->descriptor(s, threads, out, remarks);
    require_finite_rows(out, config(model), natoms);
    set_warnings(*model->model, remarks);
  });
}

dpa2_status dpa2_domain_create(dpa2_domain** domain) {
  return gate([&] {
    need(domain, "domain");
    *domain = nullptr;
    *domain = new dpa2_domain;
  });
}

void dpa2_domain_free(dpa2_domain* domain) { delete domain; }

dpa2_status dpa2_domain_set_atoms(dpa2_domain* domain, int nlocal, int nall, const double* coords, const int* ids, const int* numneigh,
                                  const int* const* firstneigh, int index_mask) {
  return gate([&] {
    need(domain, "domain");
    need_rows(coords, nall, "coords");
    if (numneigh != nullptr || firstneigh != nullptr) {
      need_rows(numneigh, nlocal, "numneigh");
      need_rows(firstneigh, nlocal, "firstneigh");
    }
    domain->domain.set_atoms({nlocal, nall, coords, ids, numneigh, firstneigh, index_mask});
  });
}

dpa2_status dpa2_domain_set_halo(dpa2_domain* domain, const dpa2_halo* halo) {
  return gate([&] {
    need(domain, "domain");
    domain->halo.reset();
    domain->carrier.reset();
    if (halo == nullptr) return;
    const auto list = [](const int* rows, int count, const char* name) {
      if (count < 0) throw invalid_input("the number of rows of ", name, " is negative: ", count);
      need_rows(rows, count, name);
      return count > 0 ? std::vector<int>(rows, rows + count) : std::vector<int>();
    };
    dpa2::Halo lists;
    lists.send = list(halo->send, halo->nsend, "send");
    lists.receive = list(halo->receive, halo->nreceive, "receive");
    lists.images = list(halo->images, halo->nimages, "images");
    lists.owners = list(halo->owners, halo->nimages, "owners");
    lists.on_device = halo->on_device != 0;
    auto carrier = std::make_unique<PackedCallbacks>(*halo);
    lists.carrier = carrier.get();
    const dpa2::DomainAtoms& atoms = domain->domain.atoms();
    domain->halo = std::make_unique<dpa2::HaloExchange>(std::move(lists), atoms.nlocal, atoms.nall);
    domain->carrier = std::move(carrier);
  });
}

dpa2_status dpa2_domain_set_spins(dpa2_domain* domain, const double* spins, double reach) {
  return gate([&] {
    need(domain, "domain");
    need_rows(spins, domain->domain.atoms().nall, "spins");
    domain->domain.set_spins(spins, reach);
  });
}

dpa2_status dpa2_domain_evaluate(dpa2_domain* domain, const dpa2_model* model, const int* types, int pad_type, const double* fparam,
                                 const double* aparam, const dpa2_exchange* exchange, int threads, double* energy, double* forces,
                                 double* virial, double* atom_energy, double* atom_virial) {
  return gate([&] {
    need(domain, "domain");
    need(model, "model");
    need_energies(model);
    dpa2::Outputs out = outputs(energy, forces, virial, atom_energy, atom_virial);
    dpa2::Remarks remarks;
    with_exchange(domain, exchange, [&](dpa2::Exchange* e) {
      dpa2::DomainFrame frame = domain_frame(domain, model, types, pad_type, threads, e);
      set_parameters(frame, config(model), fparam, aparam, domain->domain.atoms().nlocal);
      domain->domain.evaluate(model->model, frame, atom_virial != nullptr ? dpa2::AtomVirial::edge : dpa2::AtomVirial::none, out, remarks);
    });
    require_finite_forces(out, domain->domain.atoms().nall);
    set_warnings(*model->model, remarks);
  });
}

dpa2_status dpa2_domain_descriptor(dpa2_domain* domain, const dpa2_model* model, const int* types, int pad_type,
                                   const dpa2_exchange* exchange, int threads, double* descriptor, double* rot_mat) {
  return gate([&] {
    need(domain, "domain");
    need(model, "model");
    need_rows(descriptor, domain->domain.atoms().nlocal, "descriptor");
    dpa2::Outputs out;
    out.set("descriptor", descriptor);
    out.set("rot_mat", rot_mat);
    dpa2::Remarks remarks;
    with_exchange(domain, exchange, [&](dpa2::Exchange* e) {
      domain->domain.descriptor(model->model, domain_frame(domain, model, types, pad_type, threads, e), out, remarks);
    });
    require_finite_rows(out, config(model), domain->domain.atoms().nlocal);
    set_warnings(*model->model, remarks);
  });
}
