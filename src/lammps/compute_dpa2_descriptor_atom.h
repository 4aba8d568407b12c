// compute dpa2/descriptor/atom: the descriptors of atoms from DPA-2 models of any kind.
#ifndef LMP_COMPUTE_DPA2_DESCRIPTOR_ATOM_H
#define LMP_COMPUTE_DPA2_DESCRIPTOR_ATOM_H

#include <memory>

#include "compute_dpa2_atom.h"
#include "spins.h"

namespace LAMMPS_NS {

class ComputeDPA2DescriptorAtom : public ComputeDPA2Atom {
 public:
  ComputeDPA2DescriptorAtom(class LAMMPS*, int, char**);

  void init() override;

 private:
  double reach() override;
  dpa2_status evaluate(double* found) override;

  std::unique_ptr<dpa2_lammps::Spins> spins;  // of a spin model
  double cutoff = 0.0;                        // of its lists, angstrom
};

}  // namespace LAMMPS_NS

#endif
