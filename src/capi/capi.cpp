// The gate to C: exceptions become status codes, and pointers are looked at before they are used.
#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "dpa2.h"
#include "error.hpp"
#include "model/domain.hpp"
#include "model/model.hpp"
#include "model/safetensors.hpp"

struct dpa2_model {
  std::shared_ptr<const dpa2::Model> model;
};

struct dpa2_domain {
  dpa2::Domain domain;
};

namespace {

using dpa2::invalid_input;

struct Messages {
  std::string error, warning;
};
Messages& messages() {
  thread_local Messages m;
  return m;
}

dpa2_status fail(dpa2_status status, const char* what) noexcept {
  try {
    messages().error = what;
  } catch (...) {
    messages().error.clear();  // no memory for the text: the status says enough
  }
  return status;
}

dpa2_status status_of(dpa2::Status status) {
  switch (status) {
    case dpa2::Status::ok: return DPA2_OK;
    case dpa2::Status::invalid_input: return DPA2_INVALID_INPUT;
    case dpa2::Status::model_file: return DPA2_MODEL_FILE;
    case dpa2::Status::unsupported: return DPA2_UNSUPPORTED;
    case dpa2::Status::out_of_memory: return DPA2_OUT_OF_MEMORY;
    case dpa2::Status::internal: return DPA2_INTERNAL;
    case dpa2::Status::exchange: return DPA2_EXCHANGE;
  }
  return DPA2_INTERNAL;
}

template <class F>
dpa2_status gate(F f) noexcept {
  try {
    messages().warning.clear();
    f();
    return DPA2_OK;
  } catch (const dpa2::Error& e) {
    return fail(status_of(e.status()), e.what());
  } catch (const std::bad_alloc&) {
    return fail(DPA2_OUT_OF_MEMORY, "there is not enough memory: evaluate fewer atoms at once, or where there is more");
  } catch (const std::length_error&) {  // what a container says to a size that no memory could hold
    return fail(DPA2_OUT_OF_MEMORY, "the arrays would be larger than any memory");
  } catch (const std::exception& e) {
    return fail(DPA2_INTERNAL, e.what());
  } catch (...) {
    return fail(DPA2_INTERNAL, "an exception of an unknown kind");
  }
}

void need(const void* pointer, const char* name) {
  if (pointer == nullptr) throw invalid_input(name, " is NULL");
}

void need_rows(const void* pointer, int rows, const char* name) {
  if (rows > 0) need(pointer, name);
}

const dpa2::Config& config(const dpa2_model* model) { return model->model->config(); }

double cutoff(const dpa2::Model& model, dpa2::Block block) {
  const dpa2::NeighborSettings& s = model.neighbor_settings();
  return block == dpa2::Block::repinit ? s.repinit.rcut : block == dpa2::Block::three_body ? s.three.rcut : s.rep.rcut;
}

void set_warning(const dpa2::Model& model, const std::vector<dpa2::Overflow>& overflow) {
  const dpa2::Overflow* worst = nullptr;
  for (const dpa2::Overflow& o : overflow)
    if (worst == nullptr || o.count - o.sel > worst->count - worst->sel) worst = &o;
  if (worst == nullptr) return;
  messages().warning =
      dpa2::text("atom ", worst->atom, " has ", worst->count, " neighbours within the cutoff of the model's ", dpa2::block_name(worst->block),
                 " block (", cutoff(model, worst->block), " angstrom), more than its sel of ", worst->sel, ": only the nearest ", worst->sel,
                 " are kept, so energies jump when their order changes");
}

void load(dpa2_model** out, const char* precision, double skin, dpa2::SafetensorsFile file) {
  auto handle = std::make_unique<dpa2_model>();
  handle->model = std::make_shared<const dpa2::Model>(dpa2::parse_config(file.config_json), file.weights, precision == nullptr ? "" : precision, skin);
  *out = handle.release();
}

dpa2::Structure structure(int natoms, const double* coords, const int* types, const double* box, const int* pbc) {
  if (natoms < 0) throw invalid_input("the number of atoms is negative: ", natoms);
  need_rows(coords, natoms, "coords");
  need_rows(types, natoms, "types");
  dpa2::Structure s;
  s.natoms = natoms;
  s.coords = coords;
  s.types = types;
  std::array<bool, 3> periodic{};
  for (std::size_t k = 0; k < 3; ++k) periodic[k] = pbc == nullptr ? box != nullptr : pbc[k] != 0;
  s.box = dpa2::Box(box, periodic);
  return s;
}

void check_outputs(const double* energy, const double* forces, const double* virial, const double* atom_virial) {
  need(energy, "energy");
  if (forces == nullptr && (virial != nullptr || atom_virial != nullptr)) throw invalid_input("virials are computed with forces only: forces is NULL");
}

void copy_out(const dpa2::Outputs& out, double* energy, double* virial) {
  *energy = out.energy;
  if (virial != nullptr) std::copy_n(out.virial, 9, virial);
}

/// The callbacks of a caller as the engine's exchange.
class Callbacks final : public dpa2::Exchange {
 public:
  explicit Callbacks(const dpa2_exchange& exchange) : exchange_(exchange) {
    if (exchange.forward == nullptr || exchange.reverse == nullptr) throw invalid_input("a callback of the exchange is NULL");
  }
  void forward(double* rows, int width) override { call(exchange_.forward, "forward", rows, width, sizeof *rows); }
  void forward(float* rows, int width) override { call(exchange_.forward, "forward", rows, width, sizeof *rows); }
  void reverse(double* rows, int width) override { call(exchange_.reverse, "reverse", rows, width, sizeof *rows); }
  void reverse(float* rows, int width) override { call(exchange_.reverse, "reverse", rows, width, sizeof *rows); }

 private:
  void call(int (*f)(void*, void*, int, int), const char* name, void* rows, int width, std::size_t size) const {
    const int code = f(exchange_.context, rows, width, static_cast<int>(size));
    if (code != 0) throw dpa2::Error(dpa2::Status::exchange, dpa2::text("the ", name, " exchange failed with code ", code));
  }
  const dpa2_exchange& exchange_;
};

template <class F>
void with_exchange(const dpa2_exchange* exchange, F f) {
  if (exchange == nullptr) {
    f(nullptr);
  } else {
    Callbacks callbacks(*exchange);
    f(&callbacks);
  }
}

dpa2::DomainFrame domain_frame(const dpa2_domain* domain, const dpa2_model* model, const int* types, int pad_type, int threads,
                               dpa2::Exchange* exchange) {
  need_rows(types, domain->domain.atoms().nall, "types");
  if (pad_type >= config(model).ntypes()) throw invalid_input("pad_type is ", pad_type, ", but the model has ", config(model).ntypes(), " types");
  dpa2::DomainFrame frame;
  frame.types = types;
  frame.pad_type = pad_type;
  frame.exchange = exchange;
  frame.threads = threads;
  return frame;
}

}  // namespace

int dpa2_abi_version(void) { return DPA2_ABI_VERSION; }
const char* dpa2_version(void) { return DPA2_VERSION_TEXT; }
const char* dpa2_isa(void) { return dpa2::isa_name(); }
const char* dpa2_last_error(void) { return messages().error.c_str(); }
const char* dpa2_last_warning(void) { return messages().warning.c_str(); }

dpa2_status dpa2_model_load(const char* path, const char* precision, double skin, dpa2_model** model) {
  return gate([&] {
    need(path, "path");
    need(model, "model");
    *model = nullptr;
    load(model, precision, skin, dpa2::read_safetensors(path));
  });
}

dpa2_status dpa2_model_load_buffer(const void* data, size_t size, const char* name, const char* precision, double skin, dpa2_model** model) {
  return gate([&] {
    need(data, "data");
    need(model, "model");
    *model = nullptr;
    load(model, precision, skin, dpa2::read_safetensors(data, size, name == nullptr ? "model" : name));
  });
}

void dpa2_model_free(dpa2_model* model) { delete model; }

int dpa2_model_ntypes(const dpa2_model* model) { return config(model).ntypes(); }

const char* dpa2_model_type_name(const dpa2_model* model, int type) {
  const auto& map = config(model).type_map;
  return type >= 0 && static_cast<std::size_t>(type) < map.size() ? map[static_cast<std::size_t>(type)].c_str() : nullptr;
}

int dpa2_model_type_index(const dpa2_model* model, const char* symbol) {
  const auto& map = config(model).type_map;
  for (std::size_t k = 0; symbol != nullptr && k < map.size(); ++k)
    if (map[k] == symbol) return static_cast<int>(k);
  return -1;
}

double dpa2_model_rcut(const dpa2_model* model) { return model->model->neighbor_settings().repinit.rcut; }
int dpa2_model_descriptor_dim(const dpa2_model* model) { return config(model).descriptor_dim(); }
int dpa2_model_g2_dim(const dpa2_model* model) { return config(model).repformer.g2_dim; }
int dpa2_model_fparam_dim(const dpa2_model* model) { return config(model).fitting.numb_fparam; }
int dpa2_model_aparam_dim(const dpa2_model* model) { return config(model).fitting.numb_aparam; }
int dpa2_model_has_default_fparam(const dpa2_model* model) { return config(model).fitting.default_fparam ? 1 : 0; }
const char* dpa2_model_precision(const dpa2_model* model) { return model->model->precision().c_str(); }
int dpa2_model_exchange_width(const dpa2_model* model) { return model->model->exchange_width(); }
const char* dpa2_model_config(const dpa2_model* model) { return config(model).json.c_str(); }

int64_t dpa2_model_memory_estimate(const dpa2_model* model, int64_t natoms, double neighbors, int atomic, int threads) {
  int64_t bytes = -1;
  gate([&] {
    need(model, "model");
    bytes = model->model->memory_estimate(natoms, neighbors, true, atomic != 0 ? dpa2::AtomVirial::edge : dpa2::AtomVirial::none, threads);
  });
  return bytes;
}

dpa2_status dpa2_evaluate(const dpa2_model* model, int natoms, const double* coords, const int* types, const double* box, const int* pbc,
                          const double* fparam, const double* aparam, int threads, double* energy, double* forces, double* virial,
                          double* atom_energy, double* atom_virial) {
  return gate([&] {
    need(model, "model");
    check_outputs(energy, forces, virial, atom_virial);
    dpa2::Structure s = structure(natoms, coords, types, box, pbc);
    if (config(model).fitting.numb_fparam > 0) s.fparam = fparam;
    if (config(model).fitting.numb_aparam > 0) s.aparam = aparam;
    dpa2::Outputs out;
    out.force = forces;
    out.atom_energy = atom_energy;
    out.atom_virial = atom_virial;
    std::vector<dpa2::Overflow> overflow;
    model->model->evaluate(s, atom_virial != nullptr ? dpa2::AtomVirial::edge : dpa2::AtomVirial::none, threads, out, overflow);
    copy_out(out, energy, virial);
    set_warning(*model->model, overflow);
  });
}

dpa2_status dpa2_descriptor(const dpa2_model* model, int natoms, const double* coords, const int* types, const double* box, const int* pbc,
                            int threads, double* descriptor, double* rot_mat) {
  return gate([&] {
    need(model, "model");
    const dpa2::Structure s = structure(natoms, coords, types, box, pbc);
    need_rows(descriptor, natoms, "descriptor");
    dpa2::Outputs out;
    out.descriptor = descriptor;
    out.rot_mat = rot_mat;
    std::vector<dpa2::Overflow> overflow;
    model->model->descriptor(s, threads, out, overflow);
    set_warning(*model->model, overflow);
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

dpa2_status dpa2_domain_set_atoms(dpa2_domain* domain, int nlocal, int nall, const double* coords, const int* names, const int* numneigh,
                                  const int* const* firstneigh, int index_mask) {
  return gate([&] {
    need(domain, "domain");
    need_rows(coords, nall, "coords");
    need_rows(numneigh, nlocal, "numneigh");
    need_rows(firstneigh, nlocal, "firstneigh");
    domain->domain.set_atoms({nlocal, nall, coords, names, numneigh, firstneigh, index_mask});
  });
}

dpa2_status dpa2_domain_evaluate(dpa2_domain* domain, const dpa2_model* model, const int* types, int pad_type, const double* fparam,
                                 const double* aparam, const dpa2_exchange* exchange, int threads, double* energy, double* forces,
                                 double* virial, double* atom_energy, double* atom_virial) {
  return gate([&] {
    need(domain, "domain");
    need(model, "model");
    check_outputs(energy, forces, virial, atom_virial);
    dpa2::Outputs out;
    out.force = forces;
    out.atom_energy = atom_energy;
    out.atom_virial = atom_virial;
    std::vector<dpa2::Overflow> overflow;
    with_exchange(exchange, [&](dpa2::Exchange* e) {
      dpa2::DomainFrame frame = domain_frame(domain, model, types, pad_type, threads, e);
      if (config(model).fitting.numb_fparam > 0) frame.fparam = fparam;
      if (config(model).fitting.numb_aparam > 0) frame.aparam = aparam;
      domain->domain.evaluate(model->model, frame, atom_virial != nullptr ? dpa2::AtomVirial::edge : dpa2::AtomVirial::none, out, overflow);
    });
    copy_out(out, energy, virial);
    set_warning(*model->model, overflow);
  });
}

dpa2_status dpa2_domain_descriptor(dpa2_domain* domain, const dpa2_model* model, const int* types, int pad_type, const dpa2_exchange* exchange,
                                   int threads, double* descriptor, double* rot_mat) {
  return gate([&] {
    need(domain, "domain");
    need(model, "model");
    need_rows(descriptor, domain->domain.atoms().nlocal, "descriptor");
    dpa2::Outputs out;
    out.descriptor = descriptor;
    out.rot_mat = rot_mat;
    std::vector<dpa2::Overflow> overflow;
    with_exchange(exchange, [&](dpa2::Exchange* e) {
      domain->domain.descriptor(model->model, domain_frame(domain, model, types, pad_type, threads, e), out, overflow);
    });
    set_warning(*model->model, overflow);
  });
}
