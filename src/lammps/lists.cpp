#include "lists.h"

#include <mpi.h>

#include <algorithm>
#include <cstring>

#include <lammps/atom.h>
#include <lammps/comm.h>
#include <lammps/error.h>
#include <lammps/force.h>
#include <lammps/group.h>
#include <lammps/neigh_list.h>
#include <lammps/neighbor.h>
#include <lammps/update.h>

#include "rows.h"

using namespace LAMMPS_NS;

namespace dpa2_lammps {

namespace {

// The group of which fix gcmc and its like say 'exclude group THAT all', for atoms that a trial does without. Names of users
// have no colon.
int group_of_trials(const Neighbor& neighbor, const Group& group, int m) {
  const int pair[2] = {neighbor.ex1_group[m], neighbor.ex2_group[m]};
  for (int k : {0, 1}) {
    const char* name = group.names[pair[k]];
    if (pair[1 - k] == 0 && name != nullptr && std::strchr(name, ':') != nullptr) return pair[k];
  }
  return -1;
}

// The group of comm_modify group, or 0: LAMMPS keeps it to itself.
struct Border : Comm {
  static int group_of(const Comm* comm) { return comm->*&Border::bordergroup; }
};

bool takes_part(const std::vector<int>& type_of, int type) { return type_of[at(type)] >= 0; }

}  // namespace

// A trial of Monte Carlo takes atoms out of the lists for one energy. The model would give them the energy of free atoms: they
// take no part instead.
void Lists::find_absent_atoms() {
  int bits = 0;
  for (int m = 0; m < neighbor->nex_group; m++) {
    const int g = group_of_trials(*neighbor, *group, m);
    if (g >= 0) bits |= group->bitmask[g];
  }
  absent_.clear();
  if (bits == 0) return;
  const int nall = atom->nlocal + atom->nghost;
  absent_.resize(at(nall));
  for (int i = 0; i < nall; i++) absent_[at(i)] = (atom->mask[i] & bits) != 0;
}

// LAMMPS type of the atom with the smallest number, the first of the system: padded slots of models that are not smooth have it.
int Lists::first_type_of_all() const {
  struct {
    int tag, type;
  } mine{MAXSMALLINT, 1}, first{MAXSMALLINT, 1};
  for (int i = 0; i < atom->nlocal; i++) {
    if (!absent_.empty() && absent_[at(i)]) continue;
    const int tag = static_cast<int>(atom->tag[i] & MAXSMALLINT);
    if (tag < mine.tag) mine = {tag, atom->type[i]};
  }
  MPI_Allreduce(&mine, &first, 1, MPI_2INT, MPI_MINLOC, world);
  return first.type;
}

// Pairs that other lines of the input script keep out of the lists: the energy of a model is no sum over pairs, and without
// some of them it is that of another model. What concerns atoms without a model only changes nothing.
void Lists::refuse_missing_pairs(const NeighList& list, const Taking& type_of) const {
  static const char* const all_neighbors = "The model needs all neighbors of the atoms that it evaluates";
  for (int i = 1; list.ijskip != nullptr && i <= atom->ntypes; i++)
    for (int j = i; j <= atom->ntypes; j++)
      if (takes_part(type_of, i) && takes_part(type_of, j) && list.ijskip[i][j] != 0)
        error->all(FLERR,
                   "{}: a pair_coeff line gives pairs of the atom types {} and {} to another pair style. {}: use hybrid/overlay, or NULL "
                   "in place of the element of one of the two in that of this style",
                   style, i, j, all_neighbors);
  for (int m = 0; m < neighbor->nex_type; m++) {
    const int i = neighbor->ex1_type[m], j = neighbor->ex2_type[m];
    if (std::min(i, j) >= 1 && std::max(i, j) <= atom->ntypes && takes_part(type_of, i) && takes_part(type_of, j))
      error->all(FLERR,
                 "{}: 'neigh_modify exclude type {} {}' takes pairs out of the neighbor lists. {}: leave the line out, or put NULL in "
                 "place of the element of one of the two types in {}",
                 style, i, j, all_neighbors, elements_place);
  }
  const int ngroup = neighbor->nex_group, nmol = neighbor->nex_mol, include = neighbor->includegroup, border = Border::group_of(comm);
  if (ngroup == 0 && nmol == 0 && include == 0 && border == 0) return;

  // Which groups have atoms that the model evaluates; whether there are such atoms outside of a group.
  std::vector<int> mine(at(2 * ngroup + nmol + 2)), of_all(mine.size());
  for (int i = 0; i < atom->nlocal; i++) {
    if (!takes_part(type_of, atom->type[i])) continue;
    const auto in = [&](int g) { return (atom->mask[i] & group->bitmask[g]) != 0 ? 1 : 0; };
    for (int m = 0; m < ngroup; m++) {
      mine[at(2 * m)] |= in(neighbor->ex1_group[m]);
      mine[at(2 * m + 1)] |= in(neighbor->ex2_group[m]);
    }
    for (int m = 0; m < nmol; m++) mine[at(2 * ngroup + m)] |= in(neighbor->ex_mol_group[m]);
    if (include != 0) mine[mine.size() - 2] |= 1 - in(include);
    if (border != 0) mine.back() |= 1 - in(border);
  }
  MPI_Allreduce(mine.data(), of_all.data(), static_cast<int>(mine.size()), MPI_INT, MPI_MAX, world);
  for (int m = 0; m < ngroup; m++)
    if (of_all[at(2 * m)] && of_all[at(2 * m + 1)] && group_of_trials(*neighbor, *group, m) < 0)
      error->all(FLERR,
                 "{}: 'neigh_modify exclude group {} {}' takes pairs out of the neighbor lists. {}: leave the line out. Rigid or frozen "
                 "atoms (fix rigid, fix setforce) do not need it; atoms without a model are called NULL in {}",
                 style, group->names[neighbor->ex1_group[m]], group->names[neighbor->ex2_group[m]], all_neighbors, elements_place);
  for (int m = 0; m < nmol; m++)
    if (of_all[at(2 * ngroup + m)])
      error->all(FLERR,
                 "{}: 'neigh_modify exclude molecule/{} {}' takes pairs out of the neighbor lists. {}: leave the line out. Rigid "
                 "molecules (fix rigid) do not need it; atoms without a model are called NULL in {}",
                 style, neighbor->ex_mol_intra[m] != 0 ? "intra" : "inter", group->names[neighbor->ex_mol_group[m]], all_neighbors,
                 elements_place);
  if (of_all[mine.size() - 2])
    error->all(FLERR,
               "{}: 'neigh_modify include {}' keeps all other atoms out of the neighbor lists. {}: leave the line out, or call all "
               "other atoms NULL in {}",
               style, group->names[include], all_neighbors, elements_place);
  if (of_all.back())
    error->all(FLERR,
               "{}: 'comm_modify group {}' keeps all other atoms out of the ghosts. {}: leave the line out, or call all other atoms "
               "NULL in {}",
               style, group->names[border], all_neighbors, elements_place);
}

// Bonded atoms whose special factors are 0 are not in LAMMPS's lists, whatever the bonds do: they are put back. A model does
// not use the factors, and those of other styles stay as they are.
void Lists::complete(const NeighList& list, const Taking& type_of) {
  completed_.clear();
  const int* flag = neighbor->special_flag;  // 0: neighbours of this kind are left out
  if (atom->molecular == Atom::ATOMIC || (flag[1] != 0 && flag[2] != 0 && flag[3] != 0)) return;
  if (atom->map_style == Atom::MAP_NONE) error->all(FLERR, "{} needs 'atom_modify map yes' for atoms that have bonds", style);
  const bool templates = atom->molecular == Atom::TEMPLATE;
  int last_of_molecule = 0;  // molecules of templates have consecutive numbers
  if (templates) {
    int mine = 0;
    for (int i = 0; i < atom->nlocal; i++)
      if (atom->molindex[i] >= 0) mine = std::max(mine, atom->molatom[i]);
    MPI_Allreduce(&mine, &last_of_molecule, 1, MPI_INT, MPI_MAX, world);
  }

  std::vector<int> wanted_by(at(atom->nlocal + atom->nghost), -1), wanted;
  for (int ii = 0; ii < list.inum; ii++) {
    const int i = list.ilist[ii];
    if (!takes_part(type_of, atom->type[i])) continue;
    wanted.clear();
    const auto want = [&](tagint tag) {  // the atom and all its images
      if (tag < 1 || tag > atom->map_tag_max || tag == atom->tag[i]) return;
      for (int j = atom->map(tag); j >= 0; j = atom->sametag[j]) {
        if (wanted_by[at(j)] == i) continue;  // named twice
        wanted_by[at(j)] = i;
        wanted.push_back(j);
      }
    };
    if (!templates) {
      const int* end = atom->nspecial[i];
      for (int k = 1, s = 0; k <= 3; s = end[k - 1], k++)
        for (int t = s; flag[k] == 0 && t < end[k - 1]; t++) want(atom->special[i][t]);
    } else if (atom->molindex[i] >= 0) {
      const tagint first = atom->tag[i] - atom->molatom[i];
      for (tagint t = first; t <= first + last_of_molecule; t++) want(t);
    }
    if (wanted.empty()) continue;

    // LAMMPS keeps those that are no nearest images: they are not to be there twice.
    const int* known = list.firstneigh[i];
    const int count = list.numneigh[i];
    for (int k = 0; k < count; k++)
      if (wanted_by[at(known[k] & NEIGHMASK)] == i) wanted_by[at(known[k] & NEIGHMASK)] = -1;
    wanted.erase(std::remove_if(wanted.begin(), wanted.end(), [&](int j) { return wanted_by[at(j)] != i; }), wanted.end());
    if (wanted.empty()) continue;
    completed_atoms_.push_back({i, count + static_cast<int>(wanted.size()), completed_.size()});
    completed_.insert(completed_.end(), known, known + count);
    completed_.insert(completed_.end(), wanted.begin(), wanted.end());
  }
}

void Lists::begin_run() {
  if (std::strcmp(update->unit_style, "lj") == 0) error->all(FLERR, "{} needs physical units: 'units lj' has no angstrom and no eV", style);
  if (atom->tag_enable == 0) error->all(FLERR, "{} requires atom IDs", style);
  angstrom_ = force->angstrom;
}

// Atoms and lists in the form that the engine takes. Atoms of types without a model may be missing in LAMMPS's list.
void Lists::gather(NeighList* list, const std::vector<int>& type_of, bool renewed, bool filled) {
  if (renewed) {
    find_absent_atoms();
    refuse_missing_pairs(*list, type_of);
    completed_atoms_.clear();
    if (filled) complete(*list, type_of);
    first_type_ = first_type_of_all();
  }
  const int nlocal = atom->nlocal, nall = nlocal + atom->nghost;
  numneigh_.assign(at(filled ? nlocal : 0), 0);
  firstneigh_.assign(numneigh_.size(), nullptr);
  for (int ii = 0; filled && ii < list->inum; ii++) {
    const int i = list->ilist[ii];
    if (i >= nlocal) fail_here("the neighbor lists are those of other atoms: run 0 first");
    numneigh_[at(i)] = list->numneigh[i];
    firstneigh_[at(i)] = list->firstneigh[i];
  }
  for (const Completed& c : completed_atoms_) {  // none unless filled
    numneigh_[at(c.atom)] = c.count;
    firstneigh_[at(c.atom)] = completed_.data() + c.first;
  }
  ids_.resize(at(nall));
  for (int i = 0; i < nall; i++) ids_[at(i)] = static_cast<int>(atom->tag[i] & MAXSMALLINT);

  const double* x = nall > 0 ? atom->x[0] : nullptr;
  if (angstrom_ != 1.0) {
    coords_.resize(at(3 * static_cast<std::ptrdiff_t>(nall)));
    for (std::size_t k = 0; k < coords_.size(); k++) coords_[k] = x[k] / angstrom_;
    x = coords_.data();
  }
  const dpa2_status status = dpa2_domain_set_atoms(domain(), nlocal, nall, x, ids_.data(), filled ? numneigh_.data() : nullptr,
                                                   filled ? firstneigh_.data() : nullptr, NEIGHMASK);
  if (status != DPA2_OK) fail_here(dpa2_last_error());
}

void Lists::types_of_atoms(const std::vector<int>& type_of, std::vector<int>& types) const {
  types.resize(at(atom->nlocal + atom->nghost));
  for (std::size_t i = 0; i < types.size(); i++) types[i] = !absent_.empty() && absent_[i] ? -1 : type_of[at(atom->type[i])];
}

double Lists::memory_usage() const {
  return 8.0 * static_cast<double>(coords_.capacity()) + 16.0 * static_cast<double>(firstneigh_.capacity() + numneigh_.capacity()) +
         4.0 * static_cast<double>(completed_.capacity()) + static_cast<double>(absent_.capacity());
}

}  // namespace dpa2_lammps
