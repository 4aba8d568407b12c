#include "pair_dpa2.h"

#include <mpi.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include <lammps/atom.h>
#include <lammps/comm.h>
#include <lammps/error.h>
#include <lammps/force.h>
#include <lammps/memory.h>
#include <lammps/neigh_list.h>
#include <lammps/neighbor.h>
#include <lammps/update.h>
#include <lammps/utils.h>

#include "rows.h"

using namespace LAMMPS_NS;
using dpa2_lammps::at;

namespace {
// Boltzmann's constant of LAMMPS's metal units, eV/K: the ratio to that of another unit style converts energies.
constexpr double metal_boltz = 8.617343e-5;

// Of pair styles that come from a restart file: the LAMMPS whose next styles take their place.
const LAMMPS* successor_of_restored = nullptr;

// Where both have a style of this name, a script may have meant the other one.
std::string note_on_deepmds(const std::string& name) {
  return ". This is the style " + name + " of dpa2; that of deepmd-kit needs 'plugin unload pair " + name +
         "' in front of the line that loads its plugin";
}

}  // namespace

bool PairDPA2::is_deepmds(const std::string& style_name) { return style_name.compare(0, 4, "deep") == 0; }

PairDPA2::PairDPA2(LAMMPS* lammps, const std::string& style_name)
    : Pair(lammps),
      own_name(style_name),
      names{"pair_style " + style_name, "pair_coeff", is_deepmds(style_name) ? note_on_deepmds(style_name) : ""},
      lists(lammps, names),
      common(lammps, names),
      exchange([this](void* data, int width, int size) { move_rows(true, data, width, size); },
               [this](void* data, int width, int size) { move_rows(false, data, width, size); }),
      halo(lammps, names) {
  if (dpa2_abi_version() < DPA2_ABI_VERSION)
    error->all(FLERR, "dpa2: libdpa2 has interface version {}, the plugin needs {}", dpa2_abi_version(), DPA2_ABI_VERSION);
  single_enable = 0;
  writedata = 0;
  one_coeff = 1;
  manybody_flag = 1;
  no_virial_fdotr_compute = 1;
  centroidstressflag = CENTROID_AVAIL;
  restored = successor_of_restored == lammps;
}

PairDPA2::~PairDPA2() {
  // Where the script gives pair_style again after read_restart, styles may be made anew. Where all is cleared, much of LAMMPS is
  // gone before its styles are.
  if (restored) successor_of_restored = update != nullptr && force->pair_map->count(own_name) > 0 ? lmp : nullptr;
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
    memory->destroy(scale);
  }
}

void PairDPA2::allocate() {
  allocated = 1;
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  memory->create(scale, n, n, "pair:scale");
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) {
      setflag[i][j] = 0;
      cutsq[i][j] = 0.0;
      scale[i][j] = 1.0;
    }
}

void PairDPA2::init_style() {
  lists.begin_run();
  energy_unit = std::strcmp(update->unit_style, "metal") == 0 ? 1.0 : force->boltz / metal_boltz;
  restore();
  if (!mapped) error->all(FLERR, "{} needs a pair_coeff line: pair_coeff * * and an element for every atom type", names.style);
  members.front()->warn_of_masses(mass_warning);
  run_begins = true;
  comm_forward = comm_reverse = comm_reverse_off = widest;  // LAMMPS makes room for it now; the last exchange was another
  // Nobody asks for the list of models on a GPU, so that it is not made: it says which pairs are left out.
  neighbor->add_request(this, NeighConst::REQ_FULL | (common.on_gpu() ? NeighConst::REQ_OCCASIONAL : 0));
}

double PairDPA2::init_one(int i, int j) {
  if (scale[i][j] == 1.0 && scale[j][i] != 1.0) scale[i][j] = scale[j][i];
  return reach() * force->angstrom;
}

double PairDPA2::reach() const {
  double cut = 0.0;
  for (const auto& m : members) cut = std::max(cut, m->network.rcut());
  return cut;
}

void* PairDPA2::extract(const char* name, int& dim) {
  if (std::strcmp(name, "scale") == 0) {
    dim = 2;
    return scale;
  }
  return nullptr;
}

double PairDPA2::memory_usage() {
  double bytes = Pair::memory_usage() + lists.memory_usage() + halo.memory_usage();
  for (const auto& m : members)
    bytes += 8.0 * static_cast<double>(m->forces.capacity() + m->atom_energy.capacity() + m->atom_virial.capacity()) +
             4.0 * static_cast<double>(m->types.capacity());
  return bytes;
}

// One model on the atoms of the step. Forces on ghosts go to their owners only where LAMMPS does not see to that.
void PairDPA2::evaluate(Member& m, bool with_virial, bool with_atom_virial) {
  const int nlocal = atom->nlocal, nall = nlocal + atom->nghost;
  lists.types_of_atoms(m.type_of, m.types);
  // Never null pointers: a rank without atoms takes part in the same exchanges as the others.
  m.forces.resize(at(3 * std::max(nall, 1)));
  m.atom_energy.resize(at(std::max(nlocal, 1)));
  if (with_atom_virial) m.atom_virial.resize(at(9 * std::max(nall, 1)));
  m.folded = false;
  try {
    const dpa2_status status = call(m, with_virial, with_atom_virial);
    halo.check();
    exchange.check(status);
  } catch (const dpa2::Error& e) { m.fail(e.what()); }
  m.report_warnings(common.overflow());
}

dpa2_status PairDPA2::call(Member& m, bool with_virial, bool with_atom_virial) {
  return dpa2_domain_evaluate(lists.domain(), m.network.handle(), m.types.data(), m.type_of[at(lists.first_type())], common.fparam(),
                              common.aparam(), exchange_of_rows(), common.threads(), &m.energy, m.forces.data(),
                              with_virial ? m.virial : nullptr, m.atom_energy.data(), with_atom_virial ? m.atom_virial.data() : nullptr);
}

void PairDPA2::compute(int eflag, int vflag) {
  ev_init(eflag, vflag);
  const bool renewed = neighbor->ago == 0;
  lists.gather(list, members.front()->type_of, renewed, !common.on_gpu());
  if (common.on_gpu() && renewed)
    halo.renew(lists.domain(), [this](double* data, int width) { move_rows(true, data, width, sizeof(double)); }, common.gpu_aware());
  gather_more();
  common.gather_parameters();
  begin_deviations();
  const bool deviate = members.size() > 1 && out_freq > 0 && update->ntimestep % out_freq == 0 && !between_steps();
  const bool per_atom = vflag_atom != 0 || cvflag_atom != 0;
  evaluate(*members.front(), vflag_global != 0 || deviate, per_atom);
  if (deviate)
    for (std::size_t k = 1; k < members.size(); k++) evaluate(*members[k], true, false);
  tally(*members.front());
  if (deviate) write_deviation();
}

// The first model's results into LAMMPS's arrays and units.
void PairDPA2::tally(Member& first) {
  const int nlocal = atom->nlocal, nall = nlocal + atom->nghost;
  const double s = scale[1][1], energy_factor = s * energy_unit, force_factor = energy_factor / lists.angstrom();
  // With newton on LAMMPS collects what ghosts got; with newton off that is for us to do.
  const bool per_atom = vflag_atom != 0 || cvflag_atom != 0;
  if (!force->newton_pair) {
    fold_forces(first);
    if (per_atom) move_rows(false, first.atom_virial.data(), 9, sizeof(double));
  }
  const int n = force->newton_pair ? nall : nlocal;
  double** f = atom->f;
  for (int i = 0; i < n; i++)
    for (int c = 0; c < 3; c++) f[i][c] += force_factor * first.forces[at(3 * i + c)];
  tally_more(first, energy_factor);

  if (eflag_global) eng_vdwl += energy_factor * first.energy;
  if (eflag_atom)
    for (int i = 0; i < nlocal; i++) eatom[i] += energy_factor * first.atom_energy[at(i)];
  // The engine's first index is the component of the force, LAMMPS's that of the position: xx yy zz xy xz yz yx zx zy.
  static const int order[9] = {0, 4, 8, 3, 6, 7, 1, 2, 5}, mirrored[9] = {0, 4, 8, 1, 2, 5, 3, 6, 7};
  if (vflag_global)
    for (int k = 0; k < 6; k++) virial[k] += 0.5 * energy_factor * (first.virial[order[k]] + first.virial[mirrored[k]]);
  for (int i = 0; per_atom && i < n; i++) {
    const double* v = first.atom_virial.data() + 9 * static_cast<std::ptrdiff_t>(i);
    if (vflag_atom)
      for (int k = 0; k < 6; k++) vatom[i][k] += 0.5 * energy_factor * (v[order[k]] + v[mirrored[k]]);
    if (cvflag_atom)
      for (int k = 0; k < 9; k++) cvatom[i][k] += energy_factor * v[order[k]];
  }
}

void PairDPA2::fold_forces(Member& m) {
  if (!m.folded) move_rows(false, m.forces.data(), 3, sizeof(double));
  m.folded = true;
}

// How much of a number may be rounding.
double PairDPA2::rounding() const { return members.front()->network.precision() == "float32" ? 1e-5 : 1e-11; }

dpa2_lammps::Row::Part PairDPA2::force_deviation(std::vector<double> Member::* array, std::vector<double>& mine) const {
  // Extrema are taken of (value, -value), and of the forces squared: one reduction for all.
  double extreme[3] = {0.0, -1e300, 0.0}, sums[2] = {0.0, 0.0}, extremes[3], totals[2];
  std::vector<const double*> forces(members.size());
  const double to_lammps = energy_unit / lists.angstrom();
  mine.clear();
  for (int i = 0; i < atom->nlocal; i++) {
    if (members.front()->types[at(i)] < 0) {
      mine.push_back(0.0);
      continue;
    }
    for (std::size_t k = 0; k < members.size(); k++) forces[k] = ((*members[k]).*array).data() + 3 * static_cast<std::ptrdiff_t>(i);
    // eps is in LAMMPS's units of force, as the deviations are.
    const double relative = deviation.relative;
    const double d = relative >= 0.0 ? dpa2_lammps::force_deviation(forces, relative / to_lammps)
                                     : to_lammps * dpa2_lammps::force_deviation(forces, -1.0);
    mine.push_back(d);
    extreme[0] = std::max(extreme[0], d);
    extreme[1] = std::max(extreme[1], -d);
    for (int c = 0; c < 3; c++) extreme[2] = std::max(extreme[2], forces[0][c] * forces[0][c]);
    sums[0] += d;
    sums[1] += 1.0;
  }
  MPI_Reduce(extreme, extremes, 3, MPI_DOUBLE, MPI_MAX, 0, world);
  MPI_Reduce(sums, totals, 2, MPI_DOUBLE, MPI_SUM, 0, world);
  if (comm->me != 0) return {};
  return {{extremes[0], totals[1] > 0.0 ? -extremes[1] : 0.0, totals[0] / std::max(totals[1], 1.0)},
          rounding() * (deviation.relative < 0.0 ? std::sqrt(extremes[2]) * to_lammps : 1.0)};
}

// Largest, smallest and average deviation of the models, in LAMMPS's units.
void PairDPA2::write_deviation() {
  const int nlocal = atom->nlocal;
  std::vector<std::vector<double>> virials;
  for (const auto& m : members) {
    fold_forces(*m);
    std::vector<double> mine(m->virial, m->virial + 9), all(9);
    for (double& v : mine) v *= energy_unit / static_cast<double>(atom->natoms);
    MPI_Allreduce(mine.data(), all.data(), 9, MPI_DOUBLE, MPI_SUM, world);
    virials.push_back(all);
  }
  std::vector<double> mine;
  dpa2_lammps::Row row;
  row.step = update->ntimestep;
  row.parts = {{}, force_deviation(&Member::forces, mine)};
  deviate_more(row);

  std::vector<double> per_atom;
  if (deviation.atomic) {  // in the order of the atoms' numbers
    std::vector<int> counts(at(comm->nprocs)), starts(at(comm->nprocs)), tags(lists.ids().begin(), lists.ids().begin() + nlocal), all_tags;
    MPI_Gather(&nlocal, 1, MPI_INT, counts.data(), 1, MPI_INT, 0, world);
    int total = 0;
    for (std::size_t r = 0; r < counts.size(); r++) {
      starts[r] = total;
      total += counts[r];
    }
    std::vector<double> values(comm->me == 0 ? at(total) : 0);
    all_tags.resize(values.size());
    MPI_Gatherv(mine.data(), nlocal, MPI_DOUBLE, values.data(), counts.data(), starts.data(), MPI_DOUBLE, 0, world);
    MPI_Gatherv(tags.data(), nlocal, MPI_INT, all_tags.data(), counts.data(), starts.data(), MPI_INT, 0, world);
    std::vector<std::size_t> order(values.size());
    for (std::size_t k = 0; k < order.size(); k++) order[k] = k;
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return all_tags[a] < all_tags[b]; });
    for (std::size_t k : order) per_atom.push_back(values[k]);
  }
  bool written = true;
  if (comm->me == 0) {
    dpa2_lammps::Row::Part& virial_part = row.parts.front();
    virial_part.spread = dpa2_lammps::virial_deviation(virials, deviation.relative_v);
    for (double v : virials.front()) virial_part.noise = std::max(virial_part.noise, rounding() * std::fabs(v));
    if (deviation.relative_v >= 0.0) virial_part.noise = rounding();
    written = deviation.write(row, per_atom);
  }
  require_written(written);
}

// At the first evaluation, when nothing else of LAMMPS has refused the run.
void PairDPA2::begin_deviations() {
  if (!run_begins || members.size() < 2 || out_freq == 0) return;
  run_begins = false;
  require_written(comm->me != 0 || deviation.begin_run());
}

// What the first process has seen of the file, for all.
void PairDPA2::require_written(bool mine) const {
  int written = mine ? 1 : 0;
  MPI_Bcast(&written, 1, MPI_INT, 0, world);
  if (!written) error->all(FLERR, "{}: cannot write the model deviation to '{}'", names.style, deviation.file);
}

// Rows of whatever is exchanged at the moment, in its own precision: two float32 numbers take the place of one double.
void PairDPA2::move_rows(bool forward, void* data, int width, int size) {
  rows = {static_cast<char*>(data), width, size};
  comm_forward = comm_reverse = comm_reverse_off = rows.doubles();
  if (forward)
    comm->forward_comm(this);
  else
    comm->reverse_comm(this);
}

int PairDPA2::pack_forward_comm(int n, int* atoms, double* buf, int, int*) { return rows.pack(n, atoms, buf); }

void PairDPA2::unpack_forward_comm(int n, int first, double* buf) { rows.unpack(n, first, buf); }

int PairDPA2::pack_reverse_comm(int n, int first, double* buf) { return rows.pack(n, first, buf); }

void PairDPA2::unpack_reverse_comm(int n, int* atoms, double* buf) { rows.add(n, atoms, buf); }
