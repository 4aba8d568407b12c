// Spin models on the part of a system that a process has: its atoms with their virtual ones are a part of the network's system.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "error.hpp"
#include "model/domain.hpp"

namespace dpa2 {
namespace {

/// The callbacks know rows of atoms. Those of an atom and its virtual one are next to each other, and travel as one.
class ExchangeOfAtoms final : public Exchange {
 public:
  explicit ExchangeOfAtoms(Exchange& of_atoms) : of_atoms_(of_atoms) {}
  void forward(double* rows, int width) override { of_atoms_.forward(rows, 2 * width); }
  void forward(float* rows, int width) override { of_atoms_.forward(rows, 2 * width); }
  void reverse(double* rows, int width) override { of_atoms_.reverse(rows, 2 * width); }
  void reverse(float* rows, int width) override { of_atoms_.reverse(rows, 2 * width); }

 private:
  Exchange& of_atoms_;
};

constexpr int largest_id = (1 << 30) - 1;

}  // namespace

struct Domain::Spins {
  const double* spins = nullptr;
  double reach = 0;
  bool given = false, listed = false;
  // The caller's lists for the rows of the network: an atom and its virtual one have the same, of both rows of every neighbour and of
  // themselves; nobody is its own neighbour.
  std::vector<int> ids, numneigh, neighbors;
  std::vector<const int*> firstneigh;
  std::vector<double> aparam;
  SpinModel::Rows fresh;
  /// Where models put the virtual atoms: usually all at the same places.
  struct Part {
    bool current = false;
    SpinModel::Rows rows;
    Domain domain{2};
  };
  std::list<Part> parts;

  void make_lists(const DomainAtoms& atoms);
  Part& part(const DomainAtoms& atoms);
};

Domain::Domain(int rows_of_atom) : rows_of_atom_(rows_of_atom) {}
Domain::~Domain() = default;

void Domain::set_spins(const double* spins, double reach) {
  if (!(reach > 0)) throw invalid_input("the reach of the lists must be a length above 0, not ", reach);
  if (!spins_) spins_ = std::make_unique<Spins>();
  forget_spins();
  spins_->spins = spins;
  spins_->reach = reach;
  spins_->given = true;
}

void Domain::forget_spins() noexcept {
  if (!spins_) return;
  spins_->given = spins_->listed = false;
  for (Spins::Part& part : spins_->parts) part.current = false;
}

void Domain::Spins::make_lists(const DomainAtoms& atoms) {
  const std::size_t n = static_cast<std::size_t>(atoms.nlocal), all = static_cast<std::size_t>(atoms.nall);
  ids.resize(2 * all);
  for (std::size_t i = 0; i < all; ++i) {
    const int id = atoms.ids != nullptr ? atoms.ids[i] : static_cast<int>(i);
    if (id < -largest_id || id > largest_id)
      throw invalid_input("the number of row ", i, " is ", id, ": for spin models numbers of atoms must be below 2^30");
    ids[2 * i] = 2 * id;
    ids[2 * i + 1] = 2 * id + 1;
  }
  std::size_t total = 0;
  for (std::size_t i = 0; i < n; ++i) total += 2 * static_cast<std::size_t>(atoms.numneigh[i]) + 2;
  neighbors.resize(total);
  numneigh.resize(2 * n);
  firstneigh.resize(2 * n);
  int* to = neighbors.data();
  for (std::size_t i = 0; i < n; ++i) {
    const int self = static_cast<int>(i);
    int* const begin = to;
    *to++ = 2 * self;
    *to++ = 2 * self + 1;
    for (int k = 0; k < atoms.numneigh[i]; ++k) {
      const int j = atoms.firstneigh[i][k] & atoms.index_mask;
      if (j < 0 || j >= atoms.nall)
        throw invalid_input("neighbour ", k, " of atom ", i, " is number ", j, ", but there are ", atoms.nall, " atoms");
      if (j == self) continue;  // its rows are there already
      *to++ = 2 * j;
      *to++ = 2 * j + 1;
    }
    firstneigh[2 * i] = firstneigh[2 * i + 1] = begin;
    numneigh[2 * i] = numneigh[2 * i + 1] = static_cast<int>(to - begin);
  }
  listed = true;
}

/// Where the atoms are as in `fresh`.
Domain::Spins::Part& Domain::Spins::part(const DomainAtoms& atoms) {
  Part* free = nullptr;
  for (Part& p : parts) {
    if (!p.current) {
      if (free == nullptr) free = &p;
    } else if (p.rows.types == fresh.types && p.rows.coords == fresh.coords) {
      return p;
    }
  }
  if (free == nullptr) free = &parts.emplace_back();
  std::swap(free->rows, fresh);
  free->domain.set_atoms({2 * atoms.nlocal, 2 * atoms.nall, free->rows.coords.data(), ids.data(), numneigh.data(), firstneigh.data(), -1});
  free->current = true;
  return *free;
}

/// f(part, frame): the domain of the model's network, its rows, and what it needs besides.
template <class F>
void Domain::with_virtual_atoms(const std::shared_ptr<const Model>& model, const DomainFrame& domain, F f) {
  if (!spins_ || !spins_->given)
    throw invalid_input(
        "the model is of the kind 'spin': it needs the spins of the atoms, with dpa2_domain_set_spins after the atoms are set");
  Spins& s = *spins_;
  const SpinModel& spin = *model->spin();
  spin.expand(atoms_.nall, atoms_.coords, domain.types, s.spins, atoms_.ids, s.fresh);
  const double needed = model->config().rcut() + 2 * s.fresh.longest_shift;
  if (needed > s.reach)
    throw invalid_input("the virtual atom of atom ", s.fresh.longest, " is ", s.fresh.longest_shift,
                        " angstrom from it: lists and ghosts have to reach as far as the cutoff and twice that, ", needed,
                        " angstrom, and they reach ", s.reach);
  require_lists();
  if (!s.listed) s.make_lists(atoms_);
  Spins::Part& part = s.part(atoms_);
  DomainFrame frame = domain;
  frame.types = part.rows.types.data();
  frame.aparam = SpinModel::expand_parameters(atoms_.nlocal, model->config().parameters().aparam, domain.aparam, s.aparam);
  if (domain.exchange == nullptr) return f(part, frame);
  ExchangeOfAtoms exchange(*domain.exchange);
  frame.exchange = &exchange;
  f(part, frame);
}

void Domain::evaluate_spins(const std::shared_ptr<const Model>& model, const DomainFrame& domain, AtomVirial atom_virial,
                            const Outputs& out, Remarks& remarks) {
  const SpinModel& spin = *model->spin();
  with_virtual_atoms(model, domain, [&](Spins::Part& part, const DomainFrame& frame) {
    spin.evaluate(atoms_.nlocal, atoms_.nall, part.rows, out, remarks,
                  [&](const Outputs& own, Remarks& found) { part.domain.evaluate(spin.network(), frame, atom_virial, own, found); });
  });
}

void Domain::spin_descriptor(const std::shared_ptr<const Model>& model, const DomainFrame& domain, const Outputs& out, Remarks& remarks) {
  const SpinModel& spin = *model->spin();
  with_virtual_atoms(model, domain, [&](Spins::Part& part, const DomainFrame& frame) {
    spin.descriptor(atoms_.nlocal, out, remarks,
                    [&](const Outputs& own, Remarks& found) { part.domain.descriptor(spin.network(), frame, own, found); });
  });
}

}  // namespace dpa2
