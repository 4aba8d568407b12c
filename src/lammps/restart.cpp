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

// deepmd-kit's styles write nothing of their own into restart files: what ours write under their names begins with this.
constexpr int mark_of_ours = 0x32617064;

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
    error->all(FLERR, "{}: the restart file is damaged, or of a version of dpa2 that this one does not know", names.style);
  std::string text(static_cast<std::size_t>(size), '\0');
  if (comm->me == 0 && size > 0) utils::sfread(FLERR, &text[0], 1, text.size(), fp, nullptr, error);
  MPI_Bcast(&text[0], size, MPI_CHAR, 0, world);
  return text;
}

// Hybrid styles write these alone, and ask for pair_coeff again.
void PairDPA2::write_restart_settings(FILE* fp) {
  if (is_deepmds(own_name)) std::fwrite(&mark_of_ours, sizeof mark_of_ours, 1, fp);
  write_words(fp, style_words);
  // how wide exchanges are: hybrid styles ask before there is a model
  std::fwrite(&widest, sizeof widest, 1, fp);
}

// Whether what follows in the file was written by deepmd-kit, which then is of whatever comes next.
bool PairDPA2::is_of_deepmd(FILE* fp) const {
  if (!is_deepmds(own_name)) return false;
  int theirs = 0;
  if (comm->me == 0) {
    const off_t place = ftello(fp);
    int mark = 0;
    theirs = std::fread(&mark, sizeof mark, 1, fp) == 1 && mark == mark_of_ours ? 0 : 1;
    if (theirs) fseeko(fp, place, SEEK_SET);
  }
  MPI_Bcast(&theirs, 1, MPI_INT, 0, world);
  return theirs != 0;
}

void PairDPA2::read_restart_settings(FILE* fp) {
  restored = true;
  if (is_of_deepmd(fp)) return;
  style_words = split(read_words(fp));
  if (comm->me == 0) utils::sfread(FLERR, &widest, sizeof widest, 1, fp, nullptr, error);
  MPI_Bcast(&widest, 1, MPI_INT, 0, world);
  comm_forward = comm_reverse = comm_reverse_off = widest;
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
  if (style_words.empty()) return;
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
  if (style_words.empty()) error->all(FLERR, "{} has no model: give the pair_style line again", names.style);
  std::vector<std::string> words = style_words;  // settings() writes to these
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(&word[0]);
  const int room = widest;
  settings(static_cast<int>(pointers.size()), pointers.data());
  if (widest > room && utils::strmatch(force->pair_style, "^hybrid"))
    error->all(FLERR, "{}: the model files are not those that the restart file was written with: give the pair_style line again",
               names.style);
}
