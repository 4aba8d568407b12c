// compute dpa2/tensor/atom: dipoles and polarizabilities of atoms from DPA-2 models, whatever the pair style.
#ifndef LMP_COMPUTE_DPA2_TENSOR_ATOM_H
#define LMP_COMPUTE_DPA2_TENSOR_ATOM_H

#include <memory>
#include <string>
#include <vector>

#include "dpa2.hpp"
#include "lists.h"
#include "model.h"
#include "rows.h"
#include "settings.h"

#include <lammps/compute.h>

namespace LAMMPS_NS {

class ComputeDPA2TensorAtom : public Compute {
 public:
  ComputeDPA2TensorAtom(class LAMMPS*, int, char**);
  ComputeDPA2TensorAtom(const ComputeDPA2TensorAtom&) = delete;
  ComputeDPA2TensorAtom& operator=(const ComputeDPA2TensorAtom&) = delete;
  ~ComputeDPA2TensorAtom() override;

  void init() override;
  void init_list(int, class NeighList*) override;
  void compute_peratom() override;
  int pack_forward_comm(int, int*, double*, int, int*) override;
  void unpack_forward_comm(int, int, double*) override;
  double memory_usage() override;

 private:
  void request_list();
  void move_rows(void*, int, int);

  const dpa2_lammps::Names names;
  dpa2_lammps::Lists lists;
  dpa2_lammps::Settings common;
  dpa2::Exchange exchange;
  std::unique_ptr<dpa2_lammps::Model> model;
  dpa2_lammps::Rows rows;  // what is exchanged at the moment
  class NeighList* list = nullptr;
  std::string quantity;        // the output's name
  std::vector<int> types;      // (nall)
  std::vector<double> values;  // (nlocal, size_peratom_cols)
  int nmax = 0;                // rows of array_atom
  std::string mass_warning;    // the last one, not to repeat it
};

}  // namespace LAMMPS_NS

#endif
