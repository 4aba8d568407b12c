#include "capi/gate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace dpa2::gate {
namespace {

std::string overflow_text(const std::vector<Overflow>& overflow) {
  const Overflow* worst = nullptr;
  for (const Overflow& o : overflow)
    if (worst == nullptr || o.count - o.sel > worst->count - worst->sel) worst = &o;
  if (worst == nullptr) return {};
  return text("atom ", worst->atom, " has ", worst->count, " neighbours within the cutoff of the model's ", block_name(worst->block),
              " block (", worst->rcut, " angstrom), more than its sel of ", worst->sel, ": only the nearest ", worst->sel,
              " are kept, so energies jump when their order changes");
}

std::string close_pair_text(const Model& model, const ClosestPair& closest) {
  const double least = model.least_distance();
  if (!(closest.r < least)) return {};
  const std::string pair =
      closest.i == closest.j ? text("atom ", closest.i, " and its own periodic image") : text("atoms ", closest.i, " and ", closest.j);
  const char* of = model.knows_least_distance() ? ", half of the least distance in the model's training data" : "";
  return text(pair, " are ", closest.r, " angstrom from each other, closer than ", least, " angstrom", of,
              ": the energy of such a pair means nothing. Either atoms overlap, or coordinates and cell are not in angstrom (in nm?)");
}

std::string clamp_text(const Model& model, const Clamped& clamped) {
  if (clamped.atom < 0) return {};
  const std::string more = clamped.count > 1 ? text(" (and ", clamped.count - 1, " more)") : "";
  return text("atom ", clamped.atom, more, " has no neighbour nearer than about ",
              model.config().smin_alpha * std::log(1 / math::least_weight),
              " angstrom: as in deepmd-kit its energy is then the pair table's, not the network's");
}

}  // namespace

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

dpa2_status status_of(Status status) {
  switch (status) {
    case Status::ok:
      return DPA2_OK;
    case Status::invalid_input:
      return DPA2_INVALID_INPUT;
    case Status::model_file:
      return DPA2_MODEL_FILE;
    case Status::unsupported:
      return DPA2_UNSUPPORTED;
    case Status::out_of_memory:
      return DPA2_OUT_OF_MEMORY;
    case Status::internal:
      return DPA2_INTERNAL;
    case Status::exchange:
      return DPA2_EXCHANGE;
  }
  return DPA2_INTERNAL;
}

void set_warnings(const Model& model, const Remarks& remarks) {
  Messages& m = messages();
  m.overflow = overflow_text(remarks.overflow);
  m.close_pair = close_pair_text(model, remarks.closest);
  m.clamp = clamp_text(model, remarks.clamped);
  for (const std::string* one : {&m.overflow, &m.close_pair, &m.clamp})
    if (!one->empty()) m.warnings += (m.warnings.empty() ? "" : "\n") + *one;
}

bool finite(const double* rows, std::ptrdiff_t count) {
  return rows == nullptr || std::all_of(rows, rows + count, [](double v) { return std::isfinite(v); });
}

void require_finite(bool all_finite, const char* what, const char* large) {
  if (!all_finite)
    throw invalid_input(what, " is not a finite number: atoms are so close to each other, or ", large,
                        " so large, that the model leaves the range of its numbers");
}

void need_finite(const double* rows, int count, int width, const char* name) {
  for (std::ptrdiff_t k = 0; rows != nullptr && k < static_cast<std::ptrdiff_t>(count) * width; ++k)
    if (!std::isfinite(rows[k])) throw invalid_input("number ", k, " of ", name, " is not finite: ", rows[k]);
}

Structure structure(int natoms, const double* coords, const int* types, const double* box, const int* pbc) {
  if (natoms < 0) throw invalid_input("the number of atoms is negative: ", natoms);
  need_rows(coords, natoms, "coords");
  need_rows(types, natoms, "types");
  Structure s;
  s.natoms = natoms;
  s.coords = coords;
  s.types = types;
  std::array<bool, 3> periodic{};
  for (std::size_t k = 0; k < 3; ++k) periodic[k] = pbc == nullptr ? box != nullptr : pbc[k] != 0;
  s.box = Box(box, periodic);
  return s;
}

void need_spins(const Model& model, const double* spins) {
  if (model.spin() != nullptr && spins == nullptr)
    throw invalid_input("the model is of the kind 'spin', and needs the spins of the atoms: evaluate it with dpa2_compute_spin");
}

DomainFrame domain_frame(const dpa2_domain* domain, const dpa2_model* model, const int* types, int pad_type, int threads,
                         Exchange* exchange) {
  need_rows(types, domain->domain.atoms().nall, "types");
  if (pad_type >= config(model).ntypes())
    throw invalid_input("pad_type is ", pad_type, ", but the model has ", config(model).ntypes(), " types");
  DomainFrame frame;
  frame.types = types;
  frame.pad_type = pad_type;
  frame.exchange = exchange;
  frame.threads = threads;
  return frame;
}

}  // namespace dpa2::gate
