#include "compute_dpa2_tensor_atom.h"

#include <lammps/error.h>

using namespace LAMMPS_NS;

ComputeDPA2TensorAtom::ComputeDPA2TensorAtom(LAMMPS* lammps, int narg, char** arg) : ComputeDPA2Atom(lammps, narg, arg) {
  quantity = model->network.kind();
  if (quantity == "energy")
    error->all(FLERR, "{}: the model {} is one of energies and has no tensors: it is for pair_style dpa2", names.style, model->path);
  if (quantity != "dipole" && quantity != "polar")
    error->all(FLERR, "{}: the model {} is of the kind '{}', but this compute is for dipoles and polarizabilities", names.style,
               model->path, quantity);
  read_line(quantity == "dipole" ? 3 : 9, true);
}

dpa2_status ComputeDPA2TensorAtom::evaluate(double* found) {
  const char* asked = quantity.c_str();
  return dpa2_domain_compute(lists.domain(), model->network.handle(), types.data(), pad_type(), common.fparam(), common.aparam(),
                             exchange_of_rows(), common.threads(), 1, &asked, &found);
}
