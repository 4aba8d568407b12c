// pair_style dpa2: DPA-2 models in LAMMPS, through the C interface of libdpa2.
#ifndef LMP_PAIR_DPA2_H
#define LMP_PAIR_DPA2_H

#include <memory>
#include <string>
#include <vector>

#include "deviation.h"
#include "dpa2.hpp"
#include "lists.h"
#include "model.h"
#include "rows.h"
#include "settings.h"

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
  struct Member : dpa2_lammps::Model {
    using Model::Model;
    std::vector<int> types;                                // (nall)
    std::vector<double> forces, atom_energy, atom_virial;  // eV and angstrom
    double energy = 0.0, virial[9] = {};
    bool folded = false;  // the ghosts' forces of this step are with their owners
  };

  static const dpa2_lammps::Names names;
  static bool is_keyword(const std::string&);
  bool keyword(std::size_t&, const std::vector<std::string>&);
  void refuse_without_energy(const std::string&, const std::string&) const;
  void load(const std::vector<std::string>&, const std::string&);
  void allocate();
  void map_types();
  void open_deviation_file();
  void begin_deviations();
  void require_written(bool) const;
  void restore();
  std::string read_words(FILE*) const;
  void evaluate(Member&, bool, bool);
  void fold_forces(Member&);
  void tally(Member&);
  void write_deviation();
  void move_rows(bool, void*, int, int);

  dpa2_lammps::Rows rows;                        // what is exchanged at the moment
  int widest = 0;                                // doubles of the widest row of all exchanges
  std::vector<std::unique_ptr<Member>> members;  // the first drives the dynamics
  dpa2_lammps::Lists lists;
  dpa2_lammps::Settings common;
  dpa2::Exchange exchange;
  double energy_unit = 1.0;  // of LAMMPS, per eV
  double** scale = nullptr;
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
