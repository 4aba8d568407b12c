// What the input script says: pair_style and pair_coeff.
#include <mpi.h>

#include <algorithm>
#include <iterator>

#include "pair_dpa2.h"

#include <lammps/atom.h>
#include <lammps/comm.h>
#include <lammps/error.h>
#include <lammps/force.h>
#include <lammps/universe.h>
#include <lammps/update.h>
#include <lammps/utils.h>

using namespace LAMMPS_NS;

namespace {
const char* const keywords[] = {"out_freq", "out_file", "atomic", "relative", "relative_v"};

// Keywords of deepmd-kit's styles that are none here, and why.
const struct {
  const char *word, *why;
} keywords_of_others[] = {
    {"ttm", "temperatures of electrons reach the model as parameters: fparam_from_fix, or aparam_from_compute"},
    {"charge_spin", "no model that dpa2 evaluates takes a charge and a spin of the system"},
    {"virtual_len", "it belongs to models of deepmd-kit's TensorFlow backend, which dpa2 does not read"},
    {"spin_norm", "it belongs to models of deepmd-kit's TensorFlow backend, which dpa2 does not read"},
    {"center_group", "the whole system is evaluated"},
    {"environment_cutoff", "the whole system is evaluated"},
    {"include_molecule", "the whole system is evaluated"},
};
}  // namespace

bool PairDPA2::is_keyword(const std::string& word) {
  return dpa2_lammps::Settings::is_keyword(word) || std::find(std::begin(keywords), std::end(keywords), word) != std::end(keywords) ||
         std::any_of(std::begin(keywords_of_others), std::end(keywords_of_others), [&](const auto& k) { return word == k.word; });
}

void PairDPA2::refuse_keyword(const std::string& word) const {
  for (const auto& k : keywords_of_others)
    if (word == k.word) error->all(FLERR, "{}: the keyword {} of deepmd-kit is not known here: {}", names.style, word, k.why);
  error->all(FLERR, "{}: unknown keyword '{}'", names.style, word);
}

// pair_style dpa2 model.safetensors [more models] [keyword value ...]
void PairDPA2::settings(int narg, char** arg) {
  if (narg < 1)
    error->all(FLERR, "{} needs a model file: {} model.safetensors [more models] [keyword value ...]", names.style, names.style);
  style_words.clear();  // where this fails, nothing of before is left to go on with
  const std::vector<std::string> words(arg, arg + narg);
  std::size_t first = 0;
  while (first < words.size() && !is_keyword(words[first])) first++;
  if (first == 0) error->all(FLERR, "{}: the first word must be a model file, not the keyword '{}'", names.style, words[0]);
  load({words.begin(), words.begin() + static_cast<std::ptrdiff_t>(first)}, common.find_precision(words, first),
       common.find_device(words, first));

  common.reset(members.front()->network.fparam_dim(), members.front()->network.aparam_dim(), members.front()->network.device() != "cpu");
  out_freq = 100;
  deviation.file = "model_devi.out";
  deviation.atomic = false;
  deviation.relative = deviation.relative_v = -1.0;
  for (std::size_t k = first; k < words.size(); k++)
    if (!common.keyword(k, words) && !keyword(k, words)) refuse_keyword(words[k]);
  open_deviation_file();
  style_words = words;
  if (mapped) map_types();  // a pair_coeff of before is still in force

  widest = 9;  // atomic virials, with newton off
  for (const auto& m : members) widest = std::max(widest, m->widest_row());
  comm_forward = comm_reverse = comm_reverse_off = widest;
}

// Nothing is written before the first run, so that a file that belongs to another writer stays as it is.
void PairDPA2::open_deviation_file() {
  using Opened = dpa2_lammps::Deviation::Opened;
  deviation.close();
  if (members.size() < 2 || out_freq == 0) return;
  int opened = static_cast<int>(comm->me == 0 ? deviation.open(restored, universe->nworlds > 1) : Opened::yes);
  MPI_Bcast(&opened, 1, MPI_INT, 0, world);
  if (opened == static_cast<int>(Opened::taken)) {
    const std::string what =
        "another pair style, partition or program is writing '" + deviation.file +
        "'. Give every one a file of its own: out_file NAME (with -partition, a variable of style world or uloop in it)";
    if (comm->me == 0 && universe->nworlds > 1) lists.announce(what);  // the others of the universe do not wait for us
    error->all(FLERR, "{}: {}", names.style, what);
  }
  if (opened == static_cast<int>(Opened::no)) error->all(FLERR, "{}: cannot write '{}'", names.style, deviation.file);
}

bool PairDPA2::keyword(std::size_t& k, const std::vector<std::string>& words) {
  const std::string& word = words[k];
  if (word == "out_freq") {
    out_freq = utils::inumeric(FLERR, common.value(k, words), false, lmp);
    if (out_freq < 0) error->all(FLERR, "{}: out_freq must not be negative", names.style);
  } else if (word == "out_file") {
    deviation.file = common.value(k, words);
  } else if (word == "atomic") {
    deviation.atomic = true;
  } else if (word == "relative" || word == "relative_v") {
    const double eps = common.number(k, words);
    if (!(eps >= 0.0)) error->all(FLERR, "{}: the value of {} must not be negative", names.style, word);
    (word == "relative" ? deviation.relative : deviation.relative_v) = eps;
  } else {
    return false;
  }
  return true;
}

void PairDPA2::check_kind(const std::string& path, const std::string& kind) const {
  if (kind == "energy") return;
  if (kind == "spin") error->all(FLERR, "{}: the model {} is one with spins: pair_style dpa2/spin is for it", names.style, path);
  const char* what_else =
      kind == "dipole" || kind == "polar" ? "compute dpa2/tensor/atom is for it" : "evaluate it in Python, or with dpa2 eval";
  error->all(FLERR, "{}: the model {} is of the kind '{}' and has no energy: {}", names.style, path, kind, what_else);
}

void PairDPA2::load(const std::vector<std::string>& paths, const std::string& precision, const std::string& device) {
  members.clear();
  const std::string if_missing =
      restored ? ". If the restart file names it, it has to be where it was, or pair_style and pair_coeff have to be given again" : "";
  for (const std::string& path : paths) {
    members.push_back(std::make_unique<Member>(lmp, names, path, precision, device, if_missing));
    const dpa2::Model &m = members.back()->network, &f = members.front()->network;
    check_kind(path, m.kind());
    if (m.fparam_dim() != f.fparam_dim() || m.aparam_dim() != f.aparam_dim())
      error->all(FLERR, "{}: the models {} and {} do not have the same numbers of fparam and aparam", names.style, paths.front(), path);
  }
}

// pair_coeff * * O H NULL, or pair_coeff * * for the model's own order. LAMMPS sees to the stars: one_coeff.
void PairDPA2::coeff(int narg, char** arg) {
  restore();
  if (!allocated) allocate();
  elements.assign(arg + 2, arg + narg);
  map_types();
  mapped = true;
  // Under hybrid only the pairs of mapped types are ours; alone the rest must be set as well, and does nothing.
  const bool hybrid = utils::strmatch(force->pair_style, "^hybrid");
  const std::vector<int>& type_of = members.front()->type_of;
  const auto takes_part = [&](int type) { return type_of[static_cast<std::size_t>(type)] >= 0; };
  for (int i = 1; i <= atom->ntypes; i++)
    for (int j = i; j <= atom->ntypes; j++) setflag[i][j] = !hybrid || (takes_part(i) && takes_part(j)) ? 1 : 0;
}

void PairDPA2::map_types() {
  for (const auto& m : members) m->map_types(elements);
}
