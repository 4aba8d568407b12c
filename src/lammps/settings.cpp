// What the input script says: pair_style dpa2 and its pair_coeff.
#include <mpi.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

#include "pair_dpa2.h"

#include <lammps/atom.h>
#include <lammps/comm.h>
#include <lammps/compute.h>
#include <lammps/error.h>
#include <lammps/fix.h>
#include <lammps/force.h>
#include <lammps/modify.h>
#include <lammps/universe.h>
#include <lammps/update.h>
#include <lammps/utils.h>

using namespace LAMMPS_NS;

namespace {

const char* const keywords[] = {
    "out_freq",   "out_file",  "fparam",  "aparam",  "fparam_from_compute", "fparam_from_fix", "aparam_from_compute", "atomic", "relative",
    "relative_v", "precision", "threads", "overflow"};

bool is_keyword(const char* word) {
  return std::any_of(std::begin(keywords), std::end(keywords), [&](const char* k) { return std::strcmp(k, word) == 0; });
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

double PairDPA2::number(int arg, int narg, char** words, const char* what) const {
  if (arg >= narg) error->all(FLERR, "pair_style dpa2: {} needs a value", what);
  return utils::numeric(FLERR, words[arg], false, lmp);
}

// Where a keyword's parameters go: every kind has one source.
PairDPA2::Parameters& PairDPA2::source(const std::string& word) {
  Parameters& p = word[0] == 'f' ? fparam : aparam;
  if (p.dim == 0) error->all(FLERR, "pair_style dpa2: {} is given, but the model has no such parameters", word);
  if (!p.values.empty() || !p.compute.empty() || !p.fix.empty())
    error->all(FLERR, "pair_style dpa2: {} comes after another source of the same parameters", word);
  return p;
}

// The numbers that follow words[k]; k is left at the last of them.
void PairDPA2::numbers(int& k, int narg, char** words, int expected, std::vector<double>& values) const {
  const char* what = words[k];
  values.clear();
  for (int i = 0; i < expected; i++) values.push_back(number(++k, narg, words, what));
}

// pair_style dpa2 model.safetensors [more models] [keyword value ...]
void PairDPA2::settings(int narg, char** arg) {
  if (narg < 1)
    error->all(FLERR, "pair_style dpa2 needs a model file: pair_style dpa2 model.safetensors [more models] [keyword value ...]");
  style_words.clear();  // where this fails, nothing of before is left to go on with
  std::vector<std::string> paths;
  int first = 0;
  for (; first < narg && !is_keyword(arg[first]); first++) paths.emplace_back(arg[first]);
  if (paths.empty()) error->all(FLERR, "pair_style dpa2: the first word must be a model file, not the keyword '{}'", arg[0]);
  // The precision decides how a model is prepared, wherever it stands.
  std::string precision;
  for (int k = first; k < narg; k++)
    if (std::strcmp(arg[k], "precision") == 0) {
      precision = k + 1 < narg ? arg[k + 1] : "";
      if (precision != "float64" && precision != "float32") error->all(FLERR, "pair_style dpa2: precision must be float64 or float32");
    }
  load(paths, precision);

  out_freq = 100;
  threads = 0;
  overflow = "warn";
  fparam = aparam = Parameters();
  fparam.dim = members.front()->model.fparam_dim();
  aparam.dim = members.front()->model.aparam_dim();
  deviation.file = "model_devi.out";
  deviation.atomic = false;
  deviation.relative = deviation.relative_v = -1.0;
  for (int k = first; k < narg; k++) k = keyword(k, narg, arg);
  open_deviation_file();
  style_words.assign(arg, arg + narg);
  if (mapped) map_types();  // a pair_coeff of before is still in force

  widest = 9;  // atomic virials, with newton off
  for (const auto& m : members)
    widest = std::max(widest, (m->model.exchange_width() * (m->model.precision() == "float32" ? 4 : 8) + 7) / 8);
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
    if (comm->me == 0 && universe->nworlds > 1) announce(what);  // the others of the universe do not wait for us
    error->all(FLERR, "pair_style dpa2: {}", what);
  }
  if (opened == static_cast<int>(Opened::no)) error->all(FLERR, "pair_style dpa2: cannot write '{}'", deviation.file);
}

// The keyword at arg[k]; returns the place of its last value.
int PairDPA2::keyword(int k, int narg, char** arg) {
  const std::string word = arg[k];
  const auto value = [&]() -> std::string {
    if (k + 1 >= narg) error->all(FLERR, "pair_style dpa2: {} needs a value", word);
    return arg[++k];
  };
  if (word == "out_freq") {
    out_freq = utils::inumeric(FLERR, value(), false, lmp);
    if (out_freq < 0) error->all(FLERR, "pair_style dpa2: out_freq must not be negative");
  } else if (word == "out_file") {
    deviation.file = value();
  } else if (word == "atomic") {
    deviation.atomic = true;
  } else if (word == "relative" || word == "relative_v") {
    const double eps = number(++k, narg, arg, word.c_str());
    if (!(eps >= 0.0)) error->all(FLERR, "pair_style dpa2: the value of {} must not be negative", word);
    (word == "relative" ? deviation.relative : deviation.relative_v) = eps;
  } else if (word == "fparam" || word == "aparam") {
    Parameters& p = source(word);
    numbers(k, narg, arg, p.dim, p.values);
  } else if (word == "fparam_from_compute" || word == "aparam_from_compute") {
    source(word).compute = value();
  } else if (word == "fparam_from_fix") {
    source(word).fix = value();
  } else if (word == "precision") {
    k++;  // read before
  } else if (word == "threads") {
    threads = utils::inumeric(FLERR, value(), false, lmp);
    if (threads < 1) error->all(FLERR, "pair_style dpa2: threads must be 1 or more");
  } else if (word == "overflow") {
    overflow = value();
    if (overflow != "warn" && overflow != "error" && overflow != "ignore")
      error->all(FLERR, "pair_style dpa2: overflow must be warn, error or ignore, not '{}'", overflow);
  } else {
    error->all(FLERR, "pair_style dpa2: unknown keyword '{}'", word);
  }
  return k;
}

// The bytes of a file, read by the first process and sent to the others.
std::string PairDPA2::read_and_share(const std::string& path) const {
  std::string bytes;
  bigint size = -1;
  if (comm->me == 0) {
    std::ifstream file(path, std::ios::binary);
    if (file) bytes.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    if (file && !file.bad() && !bytes.empty()) size = static_cast<bigint>(bytes.size());
  }
  MPI_Bcast(&size, 1, MPI_LMP_BIGINT, 0, world);
  if (size < 0)
    error->all(
        FLERR, "pair_style dpa2: cannot read the model file '{}'{}", path,
        restored ? ". If the restart file names it, it has to be where it was, or pair_style and pair_coeff have to be given again" : "");
  bytes.resize(static_cast<std::size_t>(size));
  constexpr bigint chunk = 1 << 30;
  for (bigint done = 0; done < size; done += chunk)
    MPI_Bcast(&bytes[static_cast<std::size_t>(done)], static_cast<int>(std::min(chunk, size - done)), MPI_BYTE, 0, world);
  return bytes;
}

void PairDPA2::load(const std::vector<std::string>& paths, const std::string& precision) {
  members.clear();
  for (const std::string& path : paths) {
    if (!ends_with(path, ".safetensors")) {
      for (const char* suffix : {".pt", ".pth", ".dp", ".yaml", ".yml", ".pt2", ".pte", ".hlo", ".pb", ".savedmodel"})
        if (ends_with(path, suffix))
          error->all(FLERR, "pair_style dpa2: '{}' is not in the native format. Convert it once: dpa2 convert {} {}.safetensors", path,
                     path, path.substr(0, path.size() - std::strlen(suffix)));
      error->all(FLERR, "pair_style dpa2: '{}' is no model file (.safetensors) and no keyword", path);
    }
    const std::string bytes = read_and_share(path);
    try {
      auto model = dpa2::Model::from_bytes(bytes.data(), bytes.size(), path, precision);
      members.push_back(std::make_unique<Member>(Member{path, std::move(model), {}, {}, {}, {}, {}}));
    } catch (const dpa2::Error& e) { error->all(FLERR, "pair_style dpa2, model {}: {}", path, e.what()); }
    const dpa2::Model &m = members.back()->model, &f = members.front()->model;
    if (m.fparam_dim() != f.fparam_dim() || m.aparam_dim() != f.aparam_dim())
      error->all(FLERR, "pair_style dpa2: the models {} and {} do not have the same numbers of fparam and aparam", paths.front(), path);
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
  for (int i = 1; i <= atom->ntypes; i++)
    for (int j = i; j <= atom->ntypes; j++) setflag[i][j] = !hybrid || (takes_part(i) && takes_part(j)) ? 1 : 0;
}

// The elements of pair_coeff as types of the models.
void PairDPA2::map_types() {
  const int nnames = static_cast<int>(elements.size());
  if (nnames > 0 && nnames != atom->ntypes)
    error->all(FLERR, "pair_style dpa2: pair_coeff names {} elements for {} atom types", nnames, atom->ntypes);
  for (const auto& m : members) {
    const std::vector<std::string> symbols = m->model.type_map();
    std::string known;
    for (const std::string& symbol : symbols) known += " " + symbol;
    if (nnames == 0 && atom->ntypes > static_cast<int>(symbols.size()))
      error->all(FLERR,
                 "pair_style dpa2: there are {} atom types, but the model {} knows only{}: name an element or NULL for each in pair_coeff",
                 atom->ntypes, m->path, known);
    m->type_of.assign(1, -1);
    for (int t = 0; t < atom->ntypes; t++) {
      int type = t;
      if (nnames > 0) {
        const std::string& element = elements[static_cast<std::size_t>(t)];
        type = m->model.type_index(element);
        if (type < 0 && element != "NULL")
          error->all(FLERR, "pair_style dpa2: the model {} does not know the element {} of pair_coeff; it knows{}", m->path, element,
                     known);
      }
      m->type_of.push_back(type);
    }
  }
}

// Parameters that a compute or a fix gives are asked for at every evaluation. One set of atomic ones stands for all atoms.
void PairDPA2::gather_parameters() {
  if (!fparam.compute.empty()) frame_parameters_of_compute();
  if (!fparam.fix.empty()) {
    Fix* f = modify->get_fix_by_id(fparam.fix);
    if (f == nullptr) error->all(FLERR, "pair_style dpa2: there is no fix with the ID '{}'", fparam.fix);
    fparam.values.clear();
    if (fparam.dim == 1 && f->scalar_flag) {
      fparam.values.push_back(f->compute_scalar());
    } else {
      if (!f->vector_flag || f->size_vector < fparam.dim)
        error->all(FLERR, "pair_style dpa2: fix {} does not give the {} numbers of fparam", fparam.fix, fparam.dim);
      for (int k = 0; k < fparam.dim; k++) fparam.values.push_back(f->compute_vector(k));
    }
  }
  if (!aparam.compute.empty()) {
    atomic_parameters_of_compute();
  } else if (!aparam.values.empty()) {
    const std::size_t needed = static_cast<std::size_t>(atom->nlocal) * static_cast<std::size_t>(aparam.dim);
    for (std::size_t i = aparam.values.size(); i < needed; i++)
      aparam.values.push_back(aparam.values[i % static_cast<std::size_t>(aparam.dim)]);
  }
}

Compute* PairDPA2::find_compute(const std::string& id) const {
  Compute* c = modify->get_compute_by_id(id);
  if (c == nullptr) error->all(FLERR, "pair_style dpa2: there is no compute with the ID '{}'", id);
  return c;
}

void PairDPA2::frame_parameters_of_compute() {
  Compute* c = find_compute(fparam.compute);
  fparam.values.clear();
  if (fparam.dim == 1 && c->scalar_flag) {
    if (!(c->invoked_flag & Compute::INVOKED_SCALAR)) {
      c->compute_scalar();
      c->invoked_flag |= Compute::INVOKED_SCALAR;
    }
    fparam.values.push_back(c->scalar);
    return;
  }
  if (!c->vector_flag || c->size_vector < fparam.dim)
    error->all(FLERR, "pair_style dpa2: compute {} does not give the {} numbers of fparam", fparam.compute, fparam.dim);
  if (!(c->invoked_flag & Compute::INVOKED_VECTOR)) {
    c->compute_vector();
    c->invoked_flag |= Compute::INVOKED_VECTOR;
  }
  fparam.values.assign(c->vector, c->vector + fparam.dim);
}

void PairDPA2::atomic_parameters_of_compute() {
  const std::size_t n = static_cast<std::size_t>(atom->nlocal), dim = static_cast<std::size_t>(aparam.dim);
  Compute* c = find_compute(aparam.compute);
  if (!c->peratom_flag || (dim > 1 && c->size_peratom_cols < aparam.dim))
    error->all(FLERR, "pair_style dpa2: compute {} does not give the {} numbers per atom of aparam", aparam.compute, aparam.dim);
  if (!(c->invoked_flag & Compute::INVOKED_PERATOM)) {
    c->compute_peratom();
    c->invoked_flag |= Compute::INVOKED_PERATOM;
  }
  aparam.values.resize(std::max<std::size_t>(n * dim, 1));
  for (std::size_t i = 0; i < n; i++)
    for (std::size_t k = 0; k < dim; k++) aparam.values[i * dim + k] = c->size_peratom_cols == 0 ? c->vector_atom[i] : c->array_atom[i][k];
}
