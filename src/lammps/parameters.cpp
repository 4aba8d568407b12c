// Where the parameters of models come from at every evaluation.
#include "settings.h"

#include <algorithm>

#include <lammps/atom.h>
#include <lammps/compute.h>
#include <lammps/error.h>
#include <lammps/fix.h>
#include <lammps/modify.h>

using namespace LAMMPS_NS;

namespace dpa2_lammps {

void Settings::gather_parameters() {
  if (!fparam_.compute.empty()) frame_parameters_of_compute();
  if (!fparam_.fix.empty()) frame_parameters_of_fix();
  if (!aparam_.compute.empty()) {
    atomic_parameters_of_compute();
  } else if (!aparam_.values.empty()) {
    const std::size_t needed = static_cast<std::size_t>(atom->nlocal) * static_cast<std::size_t>(aparam_.dim);
    for (std::size_t i = aparam_.values.size(); i < needed; i++)
      aparam_.values.push_back(aparam_.values[i % static_cast<std::size_t>(aparam_.dim)]);
  }
}

void Settings::frame_parameters_of_fix() {
  Fix* f = modify->get_fix_by_id(fparam_.fix);
  if (f == nullptr) error->all(FLERR, "{}: there is no fix with the ID '{}'", style, fparam_.fix);
  fparam_.values.clear();
  if (fparam_.dim == 1 && f->scalar_flag) {
    fparam_.values.push_back(f->compute_scalar());
  } else {
    if (!f->vector_flag || f->size_vector < fparam_.dim)
      error->all(FLERR, "{}: fix {} does not give the {} numbers of fparam", style, fparam_.fix, fparam_.dim);
    for (int k = 0; k < fparam_.dim; k++) fparam_.values.push_back(f->compute_vector(k));
  }
}

Compute* Settings::find_compute(const std::string& id) const {
  Compute* c = modify->get_compute_by_id(id);
  if (c == nullptr) error->all(FLERR, "{}: there is no compute with the ID '{}'", style, id);
  return c;
}

void Settings::frame_parameters_of_compute() {
  Compute* c = find_compute(fparam_.compute);
  fparam_.values.clear();
  if (fparam_.dim == 1 && c->scalar_flag) {
    if (!(c->invoked_flag & Compute::INVOKED_SCALAR)) {
      c->compute_scalar();
      c->invoked_flag |= Compute::INVOKED_SCALAR;
    }
    fparam_.values.push_back(c->scalar);
    return;
  }
  if (!c->vector_flag || c->size_vector < fparam_.dim)
    error->all(FLERR, "{}: compute {} does not give the {} numbers of fparam", style, fparam_.compute, fparam_.dim);
  if (!(c->invoked_flag & Compute::INVOKED_VECTOR)) {
    c->compute_vector();
    c->invoked_flag |= Compute::INVOKED_VECTOR;
  }
  fparam_.values.assign(c->vector, c->vector + fparam_.dim);
}

void Settings::atomic_parameters_of_compute() {
  const std::size_t n = static_cast<std::size_t>(atom->nlocal), dim = static_cast<std::size_t>(aparam_.dim);
  Compute* c = find_compute(aparam_.compute);
  if (!c->peratom_flag || (dim > 1 && c->size_peratom_cols < aparam_.dim))
    error->all(FLERR, "{}: compute {} does not give the {} numbers per atom of aparam", style, aparam_.compute, aparam_.dim);
  if (!(c->invoked_flag & Compute::INVOKED_PERATOM)) {
    c->compute_peratom();
    c->invoked_flag |= Compute::INVOKED_PERATOM;
  }
  aparam_.values.resize(std::max<std::size_t>(n * dim, 1));
  for (std::size_t i = 0; i < n; i++)
    for (std::size_t k = 0; k < dim; k++) aparam_.values[i * dim + k] = c->size_peratom_cols == 0 ? c->vector_atom[i] : c->array_atom[i][k];
}

}  // namespace dpa2_lammps
