// What the computes of DPA-2 models have in common: numbers of every atom, whatever the pair style.
#ifndef LMP_COMPUTE_DPA2_ATOM_H
#define LMP_COMPUTE_DPA2_ATOM_H

#include <memory>
#include <string>
#include <vector>

#include "dpa2.hpp"
#include "halo.h"
#include "lists.h"
#include "model.h"
#include "rows.h"
#include "settings.h"

#include <lammps/compute.h>

namespace LAMMPS_NS {

class ComputeDPA2Atom : public Compute {
 public:
  ComputeDPA2Atom(const ComputeDPA2Atom&) = delete;
  ComputeDPA2Atom& operator=(const ComputeDPA2Atom&) = delete;
  ~ComputeDPA2Atom() override;

  void init() override;
  void init_list(int, class NeighList*) override;
  void compute_peratom() override;
  int pack_forward_comm(int, int*, double*, int, int*) override;
  void unpack_forward_comm(int, int, double*) override;
  double memory_usage() override;

 protected:
  /// Reads the model that the line names.
  ComputeDPA2Atom(class LAMMPS*, int, char**);
  /// What follows in the line, elements and keywords, for an array of so many columns.
  void read_line(int columns, bool with_parameters);
  /// How far lists have to reach in the run that begins, angstrom.
  virtual double reach() { return model->network.rcut(); }
  /// (nlocal, columns) of the atoms that are set.
  virtual dpa2_status evaluate(double* found) = 0;
  [[nodiscard]] int pad_type() const;
  /// Null where the domain has a halo.
  [[nodiscard]] const dpa2_exchange* exchange_of_rows() const { return common.on_gpu() ? nullptr : exchange.handle(); }

  const dpa2_lammps::Names names;
  dpa2_lammps::Lists lists;
  dpa2_lammps::Settings common;
  dpa2::Exchange exchange;
  dpa2_lammps::Halo halo;  // in its place where the model is on a GPU
  std::unique_ptr<dpa2_lammps::Model> model;
  std::vector<int> types;  // (nall)

 private:
  void request_list();
  void move_rows(void*, int, int);
  [[nodiscard]] int widest_row() const;

  std::vector<std::string> words;  // of the line, from the model on
  std::size_t first_keyword = 1;   // among them
  dpa2_lammps::Rows rows;          // what is exchanged at the moment
  class NeighList* list = nullptr;
  std::vector<double> values;  // (nlocal, size_peratom_cols)
  int nmax = 0;                // rows of array_atom
  std::string mass_warning;    // the last one, not to repeat it
};

}  // namespace LAMMPS_NS

#endif
