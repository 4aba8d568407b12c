// The gate to C: exceptions become status codes, and pointers are looked at before they are used.
#include <cxxabi.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
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
  std::string error, overflow, close_pair, warnings;  // the last: both, one on a line
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
dpa2_status guarded(F f) {
  try {
    f();
    return DPA2_OK;
  } catch (const dpa2::Error& e) {
    return fail(status_of(e.status()), e.what());
  } catch (const std::bad_alloc&) {
    return fail(DPA2_OUT_OF_MEMORY, dpa2::no_memory);
  } catch (const std::length_error&) {  // what a container says to a size that no memory could hold
    return fail(DPA2_OUT_OF_MEMORY, "the arrays would be larger than any memory");
  } catch (const std::exception& e) {
    return fail(DPA2_INTERNAL, e.what());
#if defined(__GLIBCXX__)
  } catch (const abi::__forced_unwind&) {
    throw;  // a callback of the caller has ended its thread, as Python does to daemon threads at exit: no error of ours
#endif
  } catch (...) {
    return fail(DPA2_INTERNAL, "an exception of an unknown kind");
  }
}

/// The same for what has a status: the warning of the call before is forgotten.
template <class F>
dpa2_status gate(F f) {
  Messages& m = messages();
  for (std::string* text : {&m.overflow, &m.close_pair, &m.warnings}) text->clear();
  return guarded(f);
}

void need(const void* pointer, const char* name) {
  if (pointer == nullptr) throw invalid_input(name, " is NULL");
}

void need_rows(const void* pointer, int rows, const char* name) {
  if (rows > 0) need(pointer, name);
}

const dpa2::Config& config(const dpa2_model* model) { return model->model->config(); }

/// f(model), or what stands for no answer: questions have no status, but a NULL must not end the program.
template <class R, class F>
R ask(const dpa2_model* model, R none, F f) {
  R answer = none;
  guarded([&] {
    need(model, "model");
    answer = f(*model->model);
  });
  return answer;
}

/// Throws where a parameter is no number; rows (count, width) or null.
void need_finite(const double* rows, int count, int width, const char* name) {
  for (std::ptrdiff_t k = 0; rows != nullptr && k < static_cast<std::ptrdiff_t>(count) * width; ++k)
    if (!std::isfinite(rows[k])) throw invalid_input("number ", k, " of ", name, " is not finite: ", rows[k]);
}

/// The parameters that the model takes, into a Structure or a DomainFrame; others are not looked at.
template <class Input>
void set_parameters(Input& input, const dpa2::Config& config, const double* fparam, const double* aparam, int natoms) {
  const dpa2::FittingConfig& fitting = config.fitting;
  if (fitting.numb_fparam > 0) input.fparam = fparam;
  if (fitting.numb_aparam > 0) input.aparam = aparam;
  need_finite(input.fparam, 1, fitting.numb_fparam, "fparam");
  need_finite(input.aparam, natoms, fitting.numb_aparam, "aparam");
}

bool finite(const double* rows, std::ptrdiff_t count) {
  return rows == nullptr || std::all_of(rows, rows + count, [](double v) { return std::isfinite(v); });
}

/// Throws where the model has left the range of its numbers.
void require_finite(bool all_finite, const char* what) {
  if (!all_finite)
    throw invalid_input(what, " is not a finite number: atoms are so close to each other, or parameters so large, that the model leaves the range of "
                        "its numbers");
}

/// `rows` is the number of rows of the forces.
void require_finite(const dpa2::Outputs& out, int rows) {
  require_finite(finite(out.array("energy"), 1) && finite(out.array("force"), 3 * static_cast<std::ptrdiff_t>(rows)), "the energy or a force");
}

/// For `centres` atoms.
void require_finite_rows(const dpa2::Outputs& out, const dpa2::Config& config, int centres) {
  const std::ptrdiff_t n = centres;
  require_finite(finite(out.array("descriptor"), n * config.descriptor_dim()) && finite(out.array("rot_mat"), 3 * n * config.repformer.g2_dim),
                 "the descriptor");
}

double cutoff(const dpa2::Model& model, dpa2::Block block) {
  const dpa2::NeighborSettings& s = model.neighbor_settings();
  return block == dpa2::Block::repinit ? s.repinit.rcut : block == dpa2::Block::three_body ? s.three.rcut : s.rep.rcut;
}

std::string overflow_text(const dpa2::Model& model, const std::vector<dpa2::Overflow>& overflow) {
  const dpa2::Overflow* worst = nullptr;
  for (const dpa2::Overflow& o : overflow)
    if (worst == nullptr || o.count - o.sel > worst->count - worst->sel) worst = &o;
  if (worst == nullptr) return {};
  return dpa2::text("atom ", worst->atom, " has ", worst->count, " neighbours within the cutoff of the model's ", dpa2::block_name(worst->block),
                    " block (", cutoff(model, worst->block), " angstrom), more than its sel of ", worst->sel, ": only the nearest ", worst->sel,
                    " are kept, so energies jump when their order changes");
}

std::string close_pair_text(const dpa2::Model& model, const dpa2::ClosestPair& closest) {
  const double least = model.least_distance();
  if (!(closest.r < least)) return {};
  const std::string pair = closest.i == closest.j ? dpa2::text("atom ", closest.i, " and its own periodic image")
                                                  : dpa2::text("atoms ", closest.i, " and ", closest.j);
  const char* of = model.knows_least_distance() ? ", half of the least distance in the model's training data" : "";
  return dpa2::text(pair, " are ", closest.r, " angstrom from each other, closer than ", least, " angstrom", of,
                    ": the energy of such a pair means nothing. Either atoms overlap, or coordinates and cell are not in angstrom (in nm?)");
}

void set_warnings(const dpa2::Model& model, const dpa2::Remarks& remarks) {
  Messages& m = messages();
  m.overflow = overflow_text(model, remarks.overflow);
  m.close_pair = close_pair_text(model, remarks.closest);
  m.warnings = m.overflow + (m.overflow.empty() || m.close_pair.empty() ? "" : "\n") + m.close_pair;
}

/// Makes a model of what read() gives; errors of the file name it.
template <class Read>
void load(dpa2_model** out, const std::string& name, const char* precision, double skin, Read read) try {
  const dpa2::SafetensorsFile file = read();
  auto handle = std::make_unique<dpa2_model>();
  handle->model =
      std::make_shared<const dpa2::Model>(dpa2::parse_config(file.config_json), file.weights, precision == nullptr ? "" : precision, skin);
  *out = handle.release();
} catch (const dpa2::Error& e) {
  const bool of_file = e.status() == dpa2::Status::model_file || e.status() == dpa2::Status::unsupported;
  if (!of_file || std::string(e.what()).find(name) != std::string::npos) throw;
  throw dpa2::Error(e.status(), dpa2::text("'", name, "': ", e.what()));
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

dpa2::Outputs outputs(double* energy, double* forces, double* virial, double* atom_energy, double* atom_virial) {
  need(energy, "energy");
  if (forces == nullptr && (virial != nullptr || atom_virial != nullptr)) throw invalid_input("virials are computed with forces only: forces is NULL");
  dpa2::Outputs out;
  out.set("energy", energy);
  out.set("force", forces);
  out.set("virial", virial);
  out.set("atom_energy", atom_energy);
  out.set("atom_virial", atom_virial);
  return out;
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
const char* dpa2_isa(void) {
  const char* name = "";
  guarded([&] { name = dpa2::isa_name(); });
  return name;
}
const char* dpa2_last_error(void) { return messages().error.c_str(); }
const char* dpa2_last_warning(void) { return messages().warnings.c_str(); }
const char* dpa2_last_warning_of(dpa2_warning kind) {
  switch (kind) {
    case DPA2_WARNING_OVERFLOW: return messages().overflow.c_str();
    case DPA2_WARNING_CLOSE_PAIR: return messages().close_pair.c_str();
  }
  return "";
}

dpa2_status dpa2_model_load(const char* path, const char* precision, double skin, dpa2_model** model) {
  return gate([&] {
    need(path, "path");
    need(model, "model");
    *model = nullptr;
    load(model, path, precision, skin, [&] { return dpa2::read_safetensors(path); });
  });
}

dpa2_status dpa2_model_load_buffer(const void* data, size_t size, const char* name, const char* precision, double skin, dpa2_model** model) {
  return gate([&] {
    need(data, "data");
    need(model, "model");
    *model = nullptr;
    const std::string what = name == nullptr ? "model" : name;
    load(model, what, precision, skin, [&] { return dpa2::read_safetensors(data, size, what); });
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
  return ask(model, 0.0, [](const dpa2::Model& m) { return m.neighbor_settings().repinit.rcut; });
}
int dpa2_model_descriptor_dim(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.config().descriptor_dim(); });
}
int dpa2_model_g2_dim(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.config().repformer.g2_dim; });
}
int dpa2_model_fparam_dim(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.config().fitting.numb_fparam; });
}
int dpa2_model_aparam_dim(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.config().fitting.numb_aparam; });
}
int dpa2_model_has_default_fparam(const dpa2_model* model) {
  return ask(model, 0, [](const dpa2::Model& m) { return m.config().fitting.default_fparam ? 1 : 0; });
}
const char* dpa2_model_precision(const dpa2_model* model) {
  return ask(model, static_cast<const char*>(nullptr), [](const dpa2::Model& m) { return m.precision().c_str(); });
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
    dpa2::Structure s = structure(natoms, coords, types, box, pbc);
    set_parameters(s, config(model), fparam, aparam, natoms);
    dpa2::Outputs out = outputs(energy, forces, virial, atom_energy, atom_virial);
    dpa2::Remarks remarks;
    model->model->evaluate(s, atom_virial != nullptr ? dpa2::AtomVirial::edge : dpa2::AtomVirial::none, threads, out, remarks);
    require_finite(out, natoms);
    set_warnings(*model->model, remarks);
  });
}

dpa2_status dpa2_descriptor(const dpa2_model* model, int natoms, const double* coords, const int* types, const double* box, const int* pbc,
                            int threads, double* descriptor, double* rot_mat) {
  return gate([&] {
    need(model, "model");
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
    dpa2::Outputs out = outputs(energy, forces, virial, atom_energy, atom_virial);
    dpa2::Remarks remarks;
    with_exchange(exchange, [&](dpa2::Exchange* e) {
      dpa2::DomainFrame frame = domain_frame(domain, model, types, pad_type, threads, e);
      set_parameters(frame, config(model), fparam, aparam, domain->domain.atoms().nlocal);
      domain->domain.evaluate(model->model, frame, atom_virial != nullptr ? dpa2::AtomVirial::edge : dpa2::AtomVirial::none, out, remarks);
    });
    require_finite(out, domain->domain.atoms().nall);
    set_warnings(*model->model, remarks);
  });
}

dpa2_status dpa2_domain_descriptor(dpa2_domain* domain, const dpa2_model* model, const int* types, int pad_type, const dpa2_exchange* exchange,
                                   int threads, double* descriptor, double* rot_mat) {
  return gate([&] {
    need(domain, "domain");
    need(model, "model");
    need_rows(descriptor, domain->domain.atoms().nlocal, "descriptor");
    dpa2::Outputs out;
    out.set("descriptor", descriptor);
    out.set("rot_mat", rot_mat);
    dpa2::Remarks remarks;
    with_exchange(exchange, [&](dpa2::Exchange* e) {
      domain->domain.descriptor(model->model, domain_frame(domain, model, types, pad_type, threads, e), out, remarks);
    });
    require_finite_rows(out, config(model), domain->domain.atoms().nlocal);
    set_warnings(*model->model, remarks);
  });
}
