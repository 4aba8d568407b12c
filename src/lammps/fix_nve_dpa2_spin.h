// fix nve/dpa2/spin: dynamics of spins, and of atoms with them, in the fields of pair_style dpa2/spin.
#ifndef LMP_FIX_NVE_DPA2_SPIN_H
#define LMP_FIX_NVE_DPA2_SPIN_H

#include <string>
#include <vector>

#include <lammps/fix.h>

namespace LAMMPS_NS {

class FixNVEDPA2Spin : public Fix {
 public:
  FixNVEDPA2Spin(class LAMMPS*, int, char**);

  int setmask() override;
  void init() override;
  void initial_integrate(int) override;
  void final_integrate() override;
  void reset_dt() override;

 private:
  void refuse_others() const;
  void kick() const;
  void drift() const;
  void turn_spins();
  double turn(int, double);
  void find_fields();

  const std::string title;  // for messages
  bool moving = true;       // atoms move as well
  double tolerance = 1e-10;
  int most_iterations = 50;
  double dt = 0.0, dtf = 0.0;
  std::vector<double> before, after;  // (nlocal, 3) directions of the spins around a step
};

}  // namespace LAMMPS_NS

#endif
