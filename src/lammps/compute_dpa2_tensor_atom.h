// compute dpa2/tensor/atom: dipoles and polarizabilities of atoms from DPA-2 models.
#ifndef LMP_COMPUTE_DPA2_TENSOR_ATOM_H
#define LMP_COMPUTE_DPA2_TENSOR_ATOM_H

#include <string>

#include "compute_dpa2_atom.h"

namespace LAMMPS_NS {

class ComputeDPA2TensorAtom : public ComputeDPA2Atom {
 public:
  ComputeDPA2TensorAtom(class LAMMPS*, int, char**);

 private:
  dpa2_status evaluate(double* found) override;

  std::string quantity;  // the output's name
};

}  // namespace LAMMPS_NS

#endif
