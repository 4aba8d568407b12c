#include "compute_dpa2_atom.h"

#include <mpi.h>

#include <algorithm>
#include <cmath>

#include <lammps/atom.h>
#include <lammps/comm.h>
#include <lammps/error.h>
#include <lammps/force.h>
#include <lammps/memory.h>
#include <lammps/neigh_list.h>
#include <lammps/neighbor.h>
#include <lammps/pair.h>
#include <lammps/update.h>
#if __has_include(<lammps/neigh_request.h>)
#include <lammps/neigh_request.h>
#else
namespace LAMMPS_NS {
// LAMMPS does not install its header. The object is LAMMPS's, and only this function of it is called.
class NeighRequest {
 public:
  void set_cutoff(double);
};
}  // namespace LAMMPS_NS
#endif

using namespace LAMMPS_NS;
using dpa2_lammps::at;

namespace {
std::string name_of(int narg, char** arg) { return "compute " + std::string(arg[0]) + " " + arg[std::min(2, narg - 1)]; }
}  // namespace

// compute ID group dpa2/.../atom model.safetensors [elements] [keyword value ...]
ComputeDPA2Atom::ComputeDPA2Atom(LAMMPS* lammps, int narg, char** arg)
    : Compute(lammps, narg, arg),
      names{name_of(narg, arg), "the compute line"},
      lists(lammps, names),
      common(lammps, names),
      exchange([this](void* data, int width, int size) { move_rows(data, width, size); },
               [this](void*, int, int) { error->one(FLERR, "{}: a reverse exchange, without derivatives", names.style); }),
      halo(lammps, names) {
  if (narg < 4)
    error->all(FLERR, "{} needs a model file: compute ID group {} model.safetensors [elements] [keyword value ...]", names.style,
               arg[narg - 1]);
  words.assign(arg + 3, arg + narg);
  while (first_keyword < words.size() && !dpa2_lammps::Settings::is_keyword(words[first_keyword])) first_keyword++;
  model = std::make_unique<dpa2_lammps::Model>(lmp, names, words[0], common.find_precision(words, first_keyword),
                                               common.find_device(words, first_keyword));
}

void ComputeDPA2Atom::read_line(int columns, bool with_parameters) {
  model->map_types({words.begin() + 1, words.begin() + static_cast<std::ptrdiff_t>(first_keyword)});
  common.reset(model->network.fparam_dim(), model->network.aparam_dim(), model->network.device() != "cpu");
  for (std::size_t k = first_keyword; k < words.size(); k++) {
    if (!with_parameters && dpa2_lammps::Settings::is_parameter(words[k]))
      error->all(FLERR, "{}: descriptors do not depend on parameters: leave {} out", names.style, words[k]);
    if (!common.keyword(k, words)) error->all(FLERR, "{}: unknown keyword '{}'", names.style, words[k]);
  }
  peratom_flag = 1;
  size_peratom_cols = columns;
  comm_forward = widest_row();
}

// A halo is made from rows of two numbers.
int ComputeDPA2Atom::widest_row() const { return std::max(model->widest_row(), 2); }

ComputeDPA2Atom::~ComputeDPA2Atom() { memory->destroy(array_atom); }

void ComputeDPA2Atom::init() {
  lists.begin_run();
  model->warn_of_masses(mass_warning);
  comm_forward = widest_row();  // LAMMPS makes room for it now; the last exchange was another
  request_list();
}

// The pair style's cutoffs will do where they are long enough for every two types.
void ComputeDPA2Atom::request_list() {
  const double cut = reach() * lists.angstrom(), skin = neighbor->skin;
  // Nobody asks for the list of a model on a GPU, so that it is not made: it says which pairs are left out.
  const int full = NeighConst::REQ_FULL | (common.on_gpu() ? NeighConst::REQ_OCCASIONAL : 0);
  double shortest = force->pair != nullptr ? cut : 0.0, longest = 0.0;
  for (int i = 1; force->pair != nullptr && i <= atom->ntypes; i++)
    for (int j = i; j <= atom->ntypes; j++) {
      const double of_pair = std::sqrt(force->pair->cutsq[i][j]);
      longest = std::max(longest, of_pair);
      if (model->type_of[at(i)] >= 0 && model->type_of[at(j)] >= 0) shortest = std::min(shortest, of_pair);
    }
  if (shortest >= cut) {
    neighbor->add_request(this, full);
    return;
  }

  const double reached = std::max(comm->cutghostuser, longest > 0.0 ? longest + skin : 0.0);
  if (comm->mode != Comm::SINGLE || (neighbor->style != Neighbor::BIN && neighbor->style != Neighbor::NSQ))
    error->all(FLERR,
               "{}: with neighbor lists of style multi, those of some types end before the cutoff of the model {}: use 'neighbor {:.10g} "
               "bin' and 'comm_modify mode single cutoff {:.10g}'",
               names.style, model->path, skin, cut + skin);
  if (reached < (cut + skin) * (1.0 - 1e-9))
    error->all(FLERR,
               "{}: ghost atoms reach as far as {:.10g}, but the cutoff of the model {} and the skin need {:.10g}: put 'comm_modify cutoff "
               "{:.10g}' in front",
               names.style, reached, model->path, cut + skin, cut + skin);
  // LAMMPS makes a list out of another one that has the same setting of newton and a largest cutoff that is longer, although its
  // cutoffs of some types may be shorter. For full lists the setting means nothing: the other one keeps this list apart. So does
  // a cutoff that is not exactly the longest; and one that no other compute has, since three of one cutoff are made in a circle.
  const int apart = force->newton_pair != 0 ? NeighConst::REQ_NEWTON_OFF : NeighConst::REQ_NEWTON_ON;
  const double less = 1e-12 * (1 + instance_me % 1000);
  neighbor->add_request(this, full | apart)->set_cutoff((1.0 - less) * std::min(cut, reached - skin));
}

void ComputeDPA2Atom::init_list(int, NeighList* of_run) { list = of_run; }

void ComputeDPA2Atom::compute_peratom() {
  invoked_peratom = update->ntimestep;
  if (list == nullptr) error->all(FLERR, "{}: there are no neighbor lists yet: run 0 first", names.style);
  if (atom->nmax > nmax) {
    memory->destroy(array_atom);
    nmax = atom->nmax;
    memory->create(array_atom, nmax, size_peratom_cols, "dpa2:array_atom");
  }
  lists.gather(list, model->type_of, true, !common.on_gpu());  // not asked at every step: the last list may be long gone
  if (common.on_gpu())
    halo.renew(lists.domain(), [this](double* data, int width) { move_rows(data, width, sizeof(double)); }, common.gpu_aware());
  common.gather_parameters();
  lists.types_of_atoms(model->type_of, types);
  const int nlocal = atom->nlocal, columns = size_peratom_cols;
  values.resize(at(std::max(nlocal * columns, 1)));  // never a null pointer: all processes take part in the exchanges
  try {
    const dpa2_status status = evaluate(values.data());
    halo.check();
    exchange.check(status);
  } catch (const dpa2::Error& e) { model->fail(e.what()); }
  model->report_warnings(common.overflow());
  for (int i = 0; i < nlocal; i++) {
    const bool wanted = (atom->mask[i] & groupbit) != 0 && types[at(i)] >= 0;
    for (int c = 0; c < columns; c++) array_atom[i][c] = wanted ? values[at(i * columns + c)] : 0.0;
  }
}

int ComputeDPA2Atom::pad_type() const { return model->type_of[at(lists.first_type())]; }

void ComputeDPA2Atom::move_rows(void* data, int width, int size) {
  rows = {static_cast<char*>(data), width, size};
  comm_forward = rows.doubles();
  comm->forward_comm(this);
}

int ComputeDPA2Atom::pack_forward_comm(int n, int* atoms, double* buf, int, int*) { return rows.pack(n, atoms, buf); }

void ComputeDPA2Atom::unpack_forward_comm(int n, int first, double* buf) { rows.unpack(n, first, buf); }

double ComputeDPA2Atom::memory_usage() {
  return lists.memory_usage() + halo.memory_usage() +
         8.0 * (static_cast<double>(nmax) * size_peratom_cols + static_cast<double>(values.capacity())) +
         4.0 * static_cast<double>(types.capacity());
}
