// pair_style dpa2: DPA-2 models in LAMMPS, through the C interface of libdpa2.
#ifndef LMP_PAIR_DPA2_H
#define LMP_PAIR_DPA2_H

#include <memory>
#include <string>
#include <vector>

#include "deviation.h"
#include "dpa2.hpp"
#include "halo.h"
#include "lists.h"
#include "model.h"
#include "rows.h"
#include "settings.h"

#include <lammps/pair.h>

namespace LAMMPS_NS {

class PairDPA2 : public Pair {
 public:
  /// `style_name`: "dpa2", or "deepmd", under which scripts of deepmd-kit know it.
  PairDPA2(class LAMMPS*, const std::string& style_name);
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

 protected:
  struct Member : dpa2_lammps::Model {
    using Model::Model;
    std::vector<int> types;                                // (nall)
    std::vector<double> forces, atom_energy, atom_virial;  // eV and angstrom
    std::vector<double> magnetic_forces;                   // (nall, 3) of spin models, eV per unit of spin
    double energy = 0.0, virial[9] = {};
    bool folded = false;  // the ghosts' forces of this step are with their owners
  };

  /// Refuses models that this style is not for.
  virtual void check_kind(const std::string& path, const std::string& kind) const;
  /// How far lists have to reach, angstrom.
  [[nodiscard]] virtual double reach() const;
  /// Whether the state is none of a step, but one on the way to it.
  [[nodiscard]] virtual bool between_steps() const { return false; }
  /// What models need of the atoms of the step besides, when these are set.
  virtual void gather_more() {}
  virtual dpa2_status call(Member&, bool with_virial, bool with_atom_virial);
  /// Adds the ghosts' forces to their owners', once.
  virtual void fold_forces(Member&);
  /// What there is besides into LAMMPS's arrays; `energy_factor` takes eV into its energies.
  virtual void tally_more(const Member&, double /*energy_factor*/) {}
  /// The deviations of further forces, on all processes together.
  virtual void deviate_more(dpa2_lammps::Row&) const {}
  /// The deviation of a force over the atoms of all processes, on the first of them. `mine`: of the local atoms.
  dpa2_lammps::Row::Part force_deviation(std::vector<double> Member::* forces, std::vector<double>& mine) const;
  void move_rows(bool, void*, int, int);
  /// Null where the domain has a halo.
  [[nodiscard]] const dpa2_exchange* exchange_of_rows() const { return common.on_gpu() ? nullptr : exchange.handle(); }

  const std::string own_name;
  const dpa2_lammps::Names names;
  std::vector<std::unique_ptr<Member>> members;  // the first drives the dynamics
  dpa2_lammps::Lists lists;
  dpa2_lammps::Settings common;
  dpa2::Exchange exchange;
  dpa2_lammps::Halo halo;    // in its place where models are on a GPU
  double energy_unit = 1.0;  // of LAMMPS, per eV
  dpa2_lammps::Deviation deviation;

 private:
  static bool is_deepmds(const std::string& style_name);
  static bool is_keyword(const std::string&);
  void refuse_keyword(const std::string&) const;
  bool keyword(std::size_t&, const std::vector<std::string>&);
  void load(const std::vector<std::string>&, const std::string&, const std::string&);
  void allocate();
  void map_types();
  void open_deviation_file();
  void begin_deviations();
  void require_written(bool) const;
  void restore();
  std::string read_words(FILE*) const;
  bool is_of_deepmd(FILE*) const;
  void evaluate(Member&, bool, bool);
  void tally(Member&);
  void write_deviation();
  [[nodiscard]] double rounding() const;

  dpa2_lammps::Rows rows;  // what is exchanged at the moment
  int widest = 0;          // doubles of the widest row of all exchanges
  double** scale = nullptr;
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
