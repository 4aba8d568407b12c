// pair_style dpa2/spin: DPA-2 models whose energies depend on spins, on atoms of atom_style spin.
#ifndef LMP_PAIR_DPA2_SPIN_H
#define LMP_PAIR_DPA2_SPIN_H

#include "pair_dpa2.h"
#include "spins.h"

namespace LAMMPS_NS {

class PairDPA2Spin : public PairDPA2 {
 public:
  /// `style_name`: "dpa2/spin", or "deepspin", under which scripts of deepmd-kit know it.
  PairDPA2Spin(class LAMMPS*, const std::string& style_name);

  /// While there is one, evaluations are of states between steps: of the first model alone.
  struct Between {
    Between() { count++; }
    Between(const Between&) = delete;
    Between& operator=(const Between&) = delete;
    ~Between() { count--; }
    static int count;
  };

  void init_style() override;
  double memory_usage() override;

 private:
  void check_kind(const std::string&, const std::string&) const override;
  [[nodiscard]] double reach() const override { return cutoff; }
  [[nodiscard]] bool between_steps() const override { return Between::count > 0; }
  void gather_more() override;
  dpa2_status call(Member&, bool, bool) override;
  void fold_forces(Member&) override;
  void tally_more(const Member&, double) override;
  void deviate_more(dpa2_lammps::Row&) const override;
  void refuse_nve_spin() const;

  dpa2_lammps::Spins spins;
  double cutoff = 0.0;  // of the lists, angstrom
};

}  // namespace LAMMPS_NS

#endif
