#include "model/spin.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include "error.hpp"
#include "fold/folded.hpp"
#include "graph/count.hpp"
#include "math/limits.hpp"
#include "model/model.hpp"
#include "model/work_pool.hpp"

namespace dpa2 {
namespace {

/// The atom that a row, or a number of one, is of: those of virtual atoms are odd.
int atom_of(int row) { return row >= 0 ? row / 2 : -((1 - row) / 2); }

/// What the network says about its rows is said about atoms.
void name_atoms(Remarks& remarks) {
  for (Overflow& o : remarks.overflow) o.atom = atom_of(o.atom);
  if (remarks.closest.r < HUGE_VAL) {
    remarks.closest.i = atom_of(remarks.closest.i);
    remarks.closest.j = atom_of(remarks.closest.j);
  }
}

/// Of (n, 2, width) the rows of atoms.
void take_atoms(double* to, const std::vector<double>& from, std::size_t n, std::size_t width) {
  for (std::size_t i = 0; i < n; ++i) std::copy_n(from.data() + 2 * width * i, width, to + width * i);
}

/// Of memory with a number more: an address also where there are no atoms, since what is wanted decides about exchanges.
double* room(std::vector<double>& memory, std::size_t size) {
  memory.resize(size + 1);
  return memory.data();
}

}  // namespace

/// Memory of one evaluation.
struct SpinModel::Work {
  Rows rows;
  std::vector<double> aparam, energies, forces, atom_virial, descriptor, rot_mat;
};
struct SpinModel::Pool : WorkPool<Work> {};

SpinModel::SpinModel(const Config& config, Weights weights, const std::string& precision, double skin) : pool_(std::make_unique<Pool>()) {
  network_ = std::make_shared<Model>(config.models[0], take_part(weights, 0), precision, skin, true);
  for (int t = 0; t < config.ntypes(); ++t) scales_.push_back(config.has_spin(t) ? config.virtual_scale[static_cast<std::size_t>(t)] : 0.0);
}

SpinModel::~SpinModel() = default;

void SpinModel::expand(int natoms, const double* coords, const int* types, const double* spins, const int* ids, Rows& rows) const {
  const int ntypes = static_cast<int>(scales_.size());
  if (natoms > std::numeric_limits<int>::max() / 2) throw invalid_input("a spin model takes at most 2^30 - 1 atoms, not ", natoms);
  check_atoms(coords, types, natoms, ntypes, ids);
  const std::size_t n = static_cast<std::size_t>(natoms);
  rows.types.resize(2 * n);
  rows.coords.resize(6 * n);
  rows.shifts.resize(3 * n);
  rows.longest_shift = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const int id = ids != nullptr ? ids[i] : static_cast<int>(i), type = types[i];
    const double scale = type < 0 ? 0.0 : scales_[static_cast<std::size_t>(type)];
    rows.types[2 * i] = type;
    rows.types[2 * i + 1] = type < 0 ? -1 : ntypes + type;
    double squared = 0;
    for (std::size_t x = 0; x < 3; ++x) {
      const double spin = spins[3 * i + x], shift = scale == 0.0 ? 0.0 : scale * spin, place = coords[3 * i + x] + shift;
      if (!std::isfinite(spin)) throw invalid_input("the spin of atom ", id, ": component ", x, " is not finite: ", spin);
      if (!(std::abs(place) <= largest_length))
        throw invalid_input("the spin of atom ", id, ": component ", x, " is ", spin, ", which at ", scale,
                            " angstrom per unit of spin puts its virtual atom out of all reach");
      rows.coords[6 * i + x] = coords[3 * i + x];
      rows.coords[6 * i + 3 + x] = place;
      rows.shifts[3 * i + x] = shift;
      squared += shift * shift;
    }
    if (const double length = std::sqrt(squared); length > rows.longest_shift) {
      rows.longest_shift = length;
      rows.longest = id;
    }
  }
}

double SpinModel::longest_shift(int natoms, const int* types, const double* spins) const {
  double longest = 0;
  for (std::ptrdiff_t i = 0; i < natoms; ++i) {
    if (types[i] >= static_cast<int>(scales_.size()))
      throw invalid_input("atom ", i, " has type ", types[i], ", but the model has ", scales_.size(), " types");
    if (types[i] < 0) continue;
    const double* const spin = spins + 3 * i;
    const double length = std::hypot(spin[0], spin[1], spin[2]);
    if (!std::isfinite(length)) throw invalid_input("the spin of atom ", i, " is not finite");
    longest = std::max(longest, std::abs(scales_[static_cast<std::size_t>(types[i])]) * length);
  }
  return longest;
}

const double* SpinModel::expand_parameters(int n, int width, const double* aparam, std::vector<double>& memory) {
  if (aparam == nullptr) return nullptr;
  const std::size_t w = static_cast<std::size_t>(width), rows = static_cast<std::size_t>(n);
  memory.assign(2 * w * rows + 1, 0.0);
  for (std::size_t i = 0; i < rows; ++i) std::copy_n(aparam + w * i, w, memory.data() + 2 * w * i);
  return memory.data();
}

void SpinModel::evaluate(int nlocal, int nall, const Rows& rows, const Outputs& out, Remarks& remarks, const Evaluate& f) const {
  const Borrowed<Work> work(*pool_);
  const std::size_t n = static_cast<std::size_t>(nlocal), all = static_cast<std::size_t>(nall);
  double *const force = out.array("force"), *const force_mag = out.array("force_mag");
  double *const virial = out.array("virial"), *const atom_energy = out.array("atom_energy"), *const atom_virial = out.array("atom_virial");
  Outputs own;
  own.set("energy", out.array("energy"));
  own.set("virial", virial);
  if (atom_energy != nullptr) own.set("atom_energy", room(work->energies, 2 * n));
  if (force != nullptr || force_mag != nullptr) own.set("force", room(work->forces, 6 * all));
  if (atom_virial != nullptr) own.set("atom_virial", room(work->atom_virial, 18 * all));
  f(own, remarks);
  name_atoms(remarks);
  if (atom_energy != nullptr) take_atoms(atom_energy, work->energies, n, 1);
  if (own.array("force") == nullptr) return;
  for (std::size_t i = 0; i < all; ++i) {
    const double *const on_atom = work->forces.data() + 6 * i, *const on_virtual = on_atom + 3, *const shift = rows.shifts.data() + 3 * i;
    const double scale = rows.types[2 * i] < 0 ? 0.0 : scales_[static_cast<std::size_t>(rows.types[2 * i])];
    const double* const virials = atom_virial != nullptr ? work->atom_virial.data() + 18 * i : nullptr;
    for (std::size_t k = 0; k < 3; ++k) {
      if (force != nullptr) force[3 * i + k] = on_atom[k] + on_virtual[k];
      if (force_mag != nullptr) force_mag[3 * i + k] = scale * on_virtual[k];
      // A strain moves virtual atoms with their atoms; it does not stretch the spins.
      for (std::size_t l = 0; l < 3; ++l) {
        const double of_spin = on_virtual[k] * shift[l];
        if (virial != nullptr) virial[3 * k + l] -= of_spin;
        if (virials != nullptr) atom_virial[9 * i + 3 * k + l] = virials[3 * k + l] + virials[9 + 3 * k + l] - of_spin;
      }
    }
  }
}

void SpinModel::descriptor(int nlocal, const Outputs& out, Remarks& remarks, const Evaluate& f) const {
  const Borrowed<Work> work(*pool_);
  const std::size_t n = static_cast<std::size_t>(nlocal), width = static_cast<std::size_t>(network_->config().descriptor_dim()),
                    rotation = 3 * static_cast<std::size_t>(network_->config().g2_dim());
  double *const descriptor = out.array("descriptor"), *const rot_mat = out.array("rot_mat");
  Outputs own;
  if (descriptor != nullptr) own.set("descriptor", room(work->descriptor, 2 * n * width));
  if (rot_mat != nullptr) own.set("rot_mat", room(work->rot_mat, 2 * n * rotation));
  f(own, remarks);
  name_atoms(remarks);
  if (descriptor != nullptr) take_atoms(descriptor, work->descriptor, n, width);
  if (rot_mat != nullptr) take_atoms(rot_mat, work->rot_mat, n, rotation);
}

namespace {

/// The structure of the network.
Structure expanded(const SpinModel& model, const Structure& structure, SpinModel::Rows& rows, std::vector<double>& aparam) {
  if (structure.spins == nullptr && structure.natoms > 0)
    throw invalid_input("the model is of the kind 'spin': it needs the spins of the atoms");
  model.expand(structure.natoms, structure.coords, structure.types, structure.spins, nullptr, rows);
  Structure s = structure;
  s.natoms = 2 * structure.natoms;
  s.coords = rows.coords.data();
  s.types = rows.types.data();
  s.aparam = SpinModel::expand_parameters(structure.natoms, model.network()->config().parameters().aparam, structure.aparam, aparam);
  return s;
}

}  // namespace

void SpinModel::evaluate(const Structure& structure, AtomVirial atom_virial, int threads, const Outputs& out, Remarks& remarks) const {
  const Borrowed<Work> work(*pool_);
  const Structure s = expanded(*this, structure, work->rows, work->aparam);
  evaluate(structure.natoms, structure.natoms, work->rows, out, remarks,
           [&](const Outputs& own, Remarks& found) { network_->evaluate(s, atom_virial, threads, own, found); });
}

void SpinModel::descriptor(const Structure& structure, int threads, const Outputs& out, Remarks& remarks) const {
  const Borrowed<Work> work(*pool_);
  const Structure s = expanded(*this, structure, work->rows, work->aparam);
  descriptor(structure.natoms, out, remarks, [&](const Outputs& own, Remarks& found) { network_->descriptor(s, threads, own, found); });
}

std::int64_t SpinModel::memory_estimate(std::int64_t natoms, double neighbors, bool gradient, AtomVirial atom_virial, int threads) const {
  const double n = static_cast<double>(natoms), numbers = 17 + (gradient ? 6 : 0) + (atom_virial != AtomVirial::none ? 18 : 0);
  const std::int64_t rows = (Count{2} * natoms).value();
  return (Count{network_->memory_estimate(rows, 2 * neighbors + 1, gradient, atom_virial, threads)} + Count::of(8 * n * numbers)).value();
}

}  // namespace dpa2
