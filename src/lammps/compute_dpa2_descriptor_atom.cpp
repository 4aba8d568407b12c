#include "compute_dpa2_descriptor_atom.h"

using namespace LAMMPS_NS;

ComputeDPA2DescriptorAtom::ComputeDPA2DescriptorAtom(LAMMPS* lammps, int narg, char** arg) : ComputeDPA2Atom(lammps, narg, arg) {
  read_line(model->network.descriptor_dim(), false);
  if (model->network.kind() == "spin") spins = std::make_unique<dpa2_lammps::Spins>(lmp, names);
}

void ComputeDPA2DescriptorAtom::init() {
  if (spins != nullptr) spins->begin_run(*model);
  ComputeDPA2Atom::init();
}

double ComputeDPA2DescriptorAtom::reach() {
  if (spins != nullptr) cutoff = spins->reach(*model);
  return spins != nullptr ? cutoff : ComputeDPA2Atom::reach();
}

dpa2_status ComputeDPA2DescriptorAtom::evaluate(double* found) {
  if (spins != nullptr) spins->gather(lists.domain(), cutoff);
  return dpa2_domain_descriptor(lists.domain(), model->network.handle(), types.data(), pad_type(), exchange_of_rows(), common.threads(),
                                found, nullptr);
}
