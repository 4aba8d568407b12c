#include "pair_dpa2_spin.h"

#include <algorithm>

#include <lammps/atom.h>
#include <lammps/error.h>
#include <lammps/fix.h>
#include <lammps/force.h>
#include <lammps/modify.h>
#include <lammps/update.h>

using namespace LAMMPS_NS;

int PairDPA2Spin::Between::count = 0;

PairDPA2Spin::PairDPA2Spin(LAMMPS* lammps, const std::string& style_name) : PairDPA2(lammps, style_name), spins(lammps, names) {
  deviation.titles = {"v", "fr", "fm"};
}

void PairDPA2Spin::check_kind(const std::string& path, const std::string& kind) const {
  if (kind == "energy") error->all(FLERR, "{}: the model {} is one without spins: pair_style dpa2 is for it", names.style, path);
  if (kind != "spin") PairDPA2::check_kind(path, kind);
}

void PairDPA2Spin::init_style() {
  PairDPA2::init_style();
  refuse_nve_spin();
  spins.begin_run(*members.front());
  cutoff = 0.0;
  for (const auto& m : members) cutoff = std::max(cutoff, spins.reach(*m));
}

// It asks the styles of LAMMPS's own package for the field of one spin after the other, and takes nothing from others: spins
// would stand still without a word.
void PairDPA2Spin::refuse_nve_spin() const {
  if (update->whichflag != 1 || update->nsteps == 0 || modify->get_fix_by_style("^nve/spin").empty()) return;
  error->all(FLERR,
             "{}: fix nve/spin turns spins in the fields of pair styles whose names begin with 'spin' alone, and would leave those of "
             "this one out: use fix nve/dpa2/spin",
             names.style);
}

void PairDPA2Spin::gather_more() { spins.gather(lists.domain(), cutoff); }

dpa2_status PairDPA2Spin::call(Member& m, bool with_virial, bool with_atom_virial) {
  m.magnetic_forces.resize(m.forces.size());
  std::vector<const char*> asked = {"energy", "force", "force_mag", "atom_energy"};
  std::vector<double*> places = {&m.energy, m.forces.data(), m.magnetic_forces.data(), m.atom_energy.data()};
  if (with_virial) {
    asked.push_back("virial");
    places.push_back(m.virial);
  }
  if (with_atom_virial) {
    asked.push_back("atom_virial");
    places.push_back(m.atom_virial.data());
  }
  const int pad_type = m.type_of[static_cast<std::size_t>(lists.first_type())];
  return dpa2_domain_compute(lists.domain(), m.network.handle(), m.types.data(), pad_type, common.fparam(), common.aparam(),
                             exchange_of_rows(), common.threads(), static_cast<int>(asked.size()), asked.data(), places.data());
}

void PairDPA2Spin::fold_forces(Member& m) {
  if (!m.folded) move_rows(false, m.magnetic_forces.data(), 3, sizeof(double));
  PairDPA2::fold_forces(m);
}

// Where newton is on LAMMPS collects what ghosts get, of magnetic forces as well.
void PairDPA2Spin::tally_more(const Member& first, double energy_factor) {
  spins.add(first.magnetic_forces, energy_factor, atom->nlocal + (force->newton_pair != 0 ? atom->nghost : 0));
}

void PairDPA2Spin::deviate_more(dpa2_lammps::Row& row) const {
  std::vector<double> of_atoms;
  row.parts.push_back(force_deviation(&Member::magnetic_forces, of_atoms));
}

double PairDPA2Spin::memory_usage() {
  double bytes = PairDPA2::memory_usage();
  for (const auto& m : members) bytes += 8.0 * static_cast<double>(m->magnetic_forces.capacity());
  return bytes;
}
