#include "spins.h"

#include <mpi.h>

#include <algorithm>
#include <cstring>

#include <lammps/atom.h>
#include <lammps/comm.h>
#include <lammps/error.h>
#include <lammps/update.h>

namespace dpa2_lammps {

namespace {
// eV ps: LAMMPS's magnetic forces are frequencies of precession, in rad/ps. The number is that of deepmd-kit's style.
constexpr double hbar = 6.5821191e-4;
// Spins that only turn keep their lengths up to rounding: lists reach a little farther, angstrom.
constexpr double margin = 1e-6;

// Of an atom without a spin LAMMPS's direction may be no number: it divides by its length.
double component(const double* sp, int c) { return sp[3] == 0.0 ? 0.0 : sp[c] * sp[3]; }
}  // namespace

void Spins::begin_run(const Model& model) {
  if (atom->sp_flag == 0)
    error->all(FLERR, "{}: the model {} needs spins, which atoms have with 'atom_style spin' or 'atom_style hybrid spin ...' alone", style,
               model.path);
  if (std::strcmp(update->unit_style, "metal") != 0)
    error->all(FLERR, "{} needs 'units metal', as all that LAMMPS has for spins does, and not 'units {}'", style, update->unit_style);
  warn_of_missing(model);
}

void Spins::warn_of_missing(const Model& model) {
  int mine[2] = {0, 0}, of_all[2];  // magnetic atoms, and those of them without a spin
  for (int i = 0; i < atom->nlocal; i++) {
    const int type = model.type_of[static_cast<std::size_t>(atom->type[i])];
    if (type < 0 || dpa2_model_virtual_scale(model.network.handle(), type) == 0.0) continue;
    mine[0]++;
    if (atom->sp[i][3] == 0.0) mine[1]++;
  }
  MPI_Allreduce(mine, of_all, 2, MPI_INT, MPI_SUM, world);
  std::string found;
  if (of_all[1] > 0) found = std::to_string(of_all[1]) + " of the " + std::to_string(of_all[0]);
  if (comm->me == 0 && !found.empty() && found != said_)
    error->warning(FLERR, "{}: {} atoms of magnetic types have no spin: 'set ... spin/atom' or the data file gives them some", style,
                   found);
  said_ = found;
}

double Spins::reach(const Model& model) const {
  const std::size_t n = static_cast<std::size_t>(atom->nlocal);
  std::vector<double> spins(3 * n);
  std::vector<int> types(n);
  for (std::size_t i = 0; i < n; i++) {
    types[i] = model.type_of[static_cast<std::size_t>(atom->type[i])];
    for (int c = 0; c < 3; c++) spins[3 * i + static_cast<std::size_t>(c)] = component(atom->sp[i], c);
  }
  double mine = dpa2_model_reach(model.network.handle(), atom->nlocal, types.data(), spins.data()), of_all = 0.0;
  if (mine < 0.0) fail_here(dpa2_last_error());
  MPI_Allreduce(&mine, &of_all, 1, MPI_DOUBLE, MPI_MAX, world);
  // Ghosts reach as far: a spin in another unit would fill the memory with them.
  const double rcut = model.network.rcut(), farthest = 0.5 * (of_all - rcut);
  if (farthest > rcut)
    error->all(
        FLERR,
        "{}: a spin puts its virtual atom {:.6g} angstrom from the atom, beyond the cutoff of the model {}, {:.6g} angstrom: are the "
        "spins in the unit of the data that it was trained on?",
        style, farthest, model.path, rcut);
  return of_all + margin;
}

void Spins::gather(dpa2_domain* atoms, double reached) {
  const int nall = atom->nlocal + atom->nghost;
  spins_.resize(static_cast<std::size_t>(3 * std::max(nall, 1)));
  for (int i = 0; i < nall; i++)
    for (int c = 0; c < 3; c++) spins_[static_cast<std::size_t>(3 * i + c)] = component(atom->sp[i], c);
  if (dpa2_domain_set_spins(atoms, spins_.data(), reached) != DPA2_OK) fail_here(dpa2_last_error());
}

void Spins::add(const std::vector<double>& magnetic_forces, double factor, int n) const {
  for (int i = 0; i < n; i++)
    for (int c = 0; c < 3; c++) atom->fm[i][c] += factor * magnetic_forces[static_cast<std::size_t>(3 * i + c)] * atom->sp[i][3] / hbar;
}

}  // namespace dpa2_lammps
