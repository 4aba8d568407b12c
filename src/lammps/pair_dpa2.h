// pair_style dpa2: DPA-2 models in LAMMPS, through the C interface of libdpa2.
#ifndef LMP_PAIR_DPA2_H
#define LMP_PAIR_DPA2_H

#include <memory>
#include <string>
#include <vector>

#include "deviation.h"
#include "dpa2.hpp"

#include <lammps/pair.h>

namespace LAMMPS_NS {

class PairDPA2 : public Pair {
 public:
  explicit PairDPA2(class LAMMPS*);
  PairDPA2(const PairDPA2&) = delete;
  PairDPA2& operator=(const PairDPA2&) = delete;
  ~PairDPA2() override;

  void compute(int, int) override;
  void settings(int, char**) override;
  void coeff(int, char**) override;
  void init_style() override;
  double init_one(int, int) override;
  int pack_forward_comm(int, int*, double*, int, int*) override;
  void unpack_forward_comm(int, int, double*) override;
  int pack_reverse_comm(int, int, double*) override;
  void unpack_reverse_comm(int, int*, double*) override;
  void* extract(const char*, int&) override;
  double memory_usage() override;
  void write_restart(FILE*) override;
  void read_restart(FILE*) override;
  void write_restart_settings(FILE*) override;
  void read_restart_settings(FILE*) override;

 private:
  struct Member {
    std::string path;
    dpa2::Model model;
    std::vector<int> type_of;                              // LAMMPS type -> type of the model, -1: takes no part
    std::vector<int> types;                                // (nall)
    std::vector<double> forces, atom_energy, atom_virial;  // eV and angstrom
    double energy = 0.0, virial[9] = {};
    bool folded = false;                         // the ghosts' forces of this step are with their owners
    bool said_full = false, said_close = false;  // warnings that were given
  };
  // Parameters of the model: numbers of the input script, or of a compute or fix that is asked at every evaluation.
  struct Parameters {
    int dim = 0;
    std::string compute, fix;  // the ID of the one that gives them, or empty
    std::vector<double> values;
  };

  int keyword(int, int, char**);
  double number(int, int, char**, const char*) const;
  void numbers(int&, int, char**, int, std::vector<double>&) const;
  void load(const std::vector<std::string>&, const std::string&);
  std::string read_and_share(const std::string&) const;
  void allocate();
  void map_types();
  void open_deviation_file();
  void begin_deviations();
  void require_written(bool) const;
  void restore();
  std::string read_words(FILE*) const;
  void warn_of_masses();
  std::vector<double> masses() const;
  bool takes_part(int) const;
  int first_type_of_all() const;
  void look_at_lists();
  void find_absent_atoms();
  void refuse_missing_pairs() const;
  void complete_lists();
  void gather_lists();
  Parameters& source(const std::string&);
  void gather_parameters();
  class Compute* find_compute(const std::string&) const;
  void frame_parameters_of_compute();
  void atomic_parameters_of_compute();
  void evaluate(Member&, bool, bool);
  void fold_forces(Member&);
  void tally(Member&);
  void write_deviation();
  void report_warnings(Member&);
  void announce(const std::string&) const;
  [[noreturn]] void fail_here(const std::string&) const;

  // What forward_comm and reverse_comm move at the moment: rows of `width` numbers of `size` bytes.
  struct Rows {
    char* data = nullptr;
    int width = 0, size = 0;
    int doubles() const { return (width * size + 7) / 8; }
    char* row(int i) const { return data + static_cast<std::ptrdiff_t>(i) * width * size; }
  } rows;
  int widest = 0;  // doubles of the widest row of all exchanges
  void move_rows(bool, void*, int, int);

  std::vector<std::unique_ptr<Member>> members;  // the first drives the dynamics
  dpa2::Domain domain;
  dpa2::Exchange exchange;
  Parameters fparam, aparam;
  std::string overflow = "warn";
  int threads = 0;                         // 0: what LAMMPS uses
  int pad_type = 1;                        // LAMMPS type of the first atom of the system
  double length = 1.0, energy_unit = 1.0;  // of LAMMPS, per angstrom and per eV
  double** scale = nullptr;
  std::vector<double> coords;  // (nall, 3) angstrom, where LAMMPS has another unit
  std::vector<int> ids, numneigh;
  std::vector<const int*> firstneigh;
  // Lists with more neighbours than LAMMPS's: of which atom, and where in `completed`.
  struct Completed {
    int atom, count;
    std::size_t first;
  };
  std::vector<Completed> completed_atoms;
  std::vector<int> completed;
  std::vector<char> absent;  // (nall) or empty: atoms that a Monte Carlo fix tries to do without
  dpa2_lammps::Deviation deviation;
  int out_freq = 100;
  // The words of the input script, or of a restart file.
  std::vector<std::string> style_words, elements;
  bool run_begins = false;   // there was no evaluation since init_style
  bool mapped = false;       // there was a pair_coeff
  bool restored = false;     // by read_restart: the deviation file is continued
  std::string mass_warning;  // the last one, not to repeat it
};

}  // namespace LAMMPS_NS

#endif
