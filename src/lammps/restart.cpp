// Restart files hold the words of pair_style and pair_coeff. Models are read when they are needed: a script may name others.
#include <mpi.h>

#include <algorithm>

#include "pair_dpa2.h"

#include <lammps/atom.h>
#include <lammps/comm.h>
#include <lammps/error.h>
#include <lammps/force.h>
#include <lammps/utils.h>

using namespace LAMMPS_NS;

namespace {

// A word ends with a zero; none of the script can have one.
void write_words(FILE* fp, const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += word + '\0';
  const int size = static_cast<int>(text.size());
  std::fwrite(&size, sizeof size, 1, fp);
  std::fwrite(text.data(), 1, text.size(), fp);
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t k = 0; k < text.size(); k += words.back().size() + 1) words.emplace_back(text.c_str() + k);
  return words;
}

}  // namespace

std::string PairDPA2::read_words(FILE* fp) const {
  int size = 0;
  if (comm->me == 0) utils::sfread(FLERR, &size, sizeof size, 1, fp, nullptr, error);
  MPI_Bcast(&size, 1, MPI_INT, 0, world);
  if (size < 0 || size > (1 << 24))
    error->all(FLERR, "pair_style dpa2: the restart file is damaged, or of a version of dpa2 that this one does not know");
  std::string text(static_cast<std::size_t>(size), '\0');
  if (comm->me == 0 && size > 0) utils::sfread(FLERR, &text[0], 1, text.size(), fp, nullptr, error);
  MPI_Bcast(&text[0], size, MPI_CHAR, 0, world);
  return text;
}

// Hybrid styles write these alone, and ask for pair_coeff again.
void PairDPA2::write_restart_settings(FILE* fp) {
  write_words(fp, style_words);
  // how wide exchanges are: hybrid styles ask before there is a model
  std::fwrite(&widest, sizeof widest, 1, fp);
}

void PairDPA2::read_restart_settings(FILE* fp) {
  style_words = split(read_words(fp));
  if (comm->me == 0) utils::sfread(FLERR, &widest, sizeof widest, 1, fp, nullptr, error);
  MPI_Bcast(&widest, 1, MPI_INT, 0, world);
  comm_forward = comm_reverse = comm_reverse_off = widest;
  restored = true;
}

void PairDPA2::write_restart(FILE* fp) {
  write_restart_settings(fp);
  const int known = mapped ? 1 : 0;
  std::fwrite(&known, sizeof known, 1, fp);
  if (!mapped) return;
  write_words(fp, elements);
  for (int i = 1; i <= atom->ntypes; i++) std::fwrite(&scale[i][1], sizeof(double), static_cast<std::size_t>(atom->ntypes), fp);
}

void PairDPA2::read_restart(FILE* fp) {
  read_restart_settings(fp);
  int known = 0;
  if (comm->me == 0) utils::sfread(FLERR, &known, sizeof known, 1, fp, nullptr, error);
  MPI_Bcast(&known, 1, MPI_INT, 0, world);
  if (!known) return;
  elements = split(read_words(fp));
  mapped = true;
  if (!allocated) allocate();
  for (int i = 1; i <= atom->ntypes; i++) {
    if (comm->me == 0) utils::sfread(FLERR, &scale[i][1], sizeof(double), static_cast<std::size_t>(atom->ntypes), fp, nullptr, error);
    MPI_Bcast(&scale[i][1], atom->ntypes, MPI_DOUBLE, 0, world);
    for (int j = i; j <= atom->ntypes; j++) setflag[i][j] = 1;
  }
}

// The models and settings of a restart file, unless the script has given others.
void PairDPA2::restore() {
  if (!members.empty()) return;
  if (style_words.empty()) error->all(FLERR, "pair_style dpa2 has no model: give the pair_style line again");
  std::vector<std::string> words = style_words;  // settings() writes to these
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(&word[0]);
  const int room = widest;
  settings(static_cast<int>(pointers.size()), pointers.data());
  if (widest > room && utils::strmatch(force->pair_style, "^hybrid"))
    error->all(FLERR,
               "pair_style dpa2: the model files are not those that the restart file was written with: give the pair_style line again");
}
