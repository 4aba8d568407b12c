// What LAMMPS calls when it loads the plugin.
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "compute_dpa2_descriptor_atom.h"
#include "compute_dpa2_tensor_atom.h"
#include "fix_nve_dpa2_spin.h"
#include "pair_dpa2.h"
#include "pair_dpa2_spin.h"

#include <lammps/force.h>
#include <lammps/lammps.h>

#ifndef DPA2_LAMMPS_BUILD
#error "DPA2_LAMMPS_BUILD must be the git descriptor of the LAMMPS that the headers belong to"
#endif

namespace {

// LAMMPS's plugin interface, version 1: its header is not among those that are installed.
struct Plugin {
  const char *version, *style, *name, *info, *author;
  void *creator, *handle;
};
using Register = void (*)(Plugin*, void*);

LAMMPS_NS::Pair* create_pair(LAMMPS_NS::LAMMPS* lmp) { return new LAMMPS_NS::PairDPA2(lmp, "dpa2"); }
LAMMPS_NS::Pair* create_deepmd(LAMMPS_NS::LAMMPS* lmp) { return new LAMMPS_NS::PairDPA2(lmp, "deepmd"); }
LAMMPS_NS::Pair* create_spin(LAMMPS_NS::LAMMPS* lmp) { return new LAMMPS_NS::PairDPA2Spin(lmp, "dpa2/spin"); }
LAMMPS_NS::Pair* create_deepspin(LAMMPS_NS::LAMMPS* lmp) { return new LAMMPS_NS::PairDPA2Spin(lmp, "deepspin"); }
LAMMPS_NS::Fix* create_fix(LAMMPS_NS::LAMMPS* lmp, int narg, char** arg) { return new LAMMPS_NS::FixNVEDPA2Spin(lmp, narg, arg); }
template <class Style>
LAMMPS_NS::Compute* create_compute(LAMMPS_NS::LAMMPS* lmp, int narg, char** arg) {
  return new Style(lmp, narg, arg);
}

template <class Creator>
void enroll(void* lmp, void* handle, void* regfunc, const char* style, const char* name, const char* info, Creator creator) {
  Plugin plugin{static_cast<LAMMPS_NS::LAMMPS*>(lmp)->version, style, name, info, "the dpa2 developers", nullptr, handle};
  static_assert(sizeof creator == sizeof plugin.creator, "pointers to functions and to objects are of one size here");
  std::memcpy(&plugin.creator, &creator, sizeof creator);
  Register function = nullptr;
  std::memcpy(&function, &regfunc, sizeof function);
  function(&plugin, lmp);
}

// A name of deepmd-kit is taken only where nobody else has it: LAMMPS keeps the first plugin of a name, and puts any plugin in
// front of what it was built with.
bool may_take(void* lmp, const char* pair_style) {
  const char* wanted = std::getenv("DPA2_DEEPMD_STYLES");
  if (wanted != nullptr && std::strcmp(wanted, "off") == 0) return false;
  const LAMMPS_NS::Force* force = static_cast<LAMMPS_NS::LAMMPS*>(lmp)->force;
  return force->pair_map->count(pair_style) == 0;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void* lmp, void* handle, void* regfunc) {
  // The layout of LAMMPS's classes changes between builds of the same version: only the one that the headers came with is safe.
  const char* running = LAMMPS_NS::LAMMPS::git_descriptor();
  if (std::strcmp(running, DPA2_LAMMPS_BUILD) != 0) {
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0)
      std::fprintf(stderr,
                   "dpa2: this plugin was built for LAMMPS '%s' and does not fit this one, '%s': the styles of dpa2 are not available. "
                   "Run 'dpa2 lammps build' for the LAMMPS that you use\n",
                   DPA2_LAMMPS_BUILD, running);
    return;
  }
  enroll(lmp, handle, regfunc, "pair", "dpa2", "DPA-2 interatomic potentials", create_pair);
  if (may_take(lmp, "deepmd")) enroll(lmp, handle, regfunc, "pair", "deepmd", "DPA-2 interatomic potentials, as deepmd", create_deepmd);
  enroll(lmp, handle, regfunc, "pair", "dpa2/spin", "DPA-2 interatomic potentials with spins", create_spin);
  if (may_take(lmp, "deepspin"))
    enroll(lmp, handle, regfunc, "pair", "deepspin", "DPA-2 interatomic potentials with spins, as deepspin", create_deepspin);
  enroll(lmp, handle, regfunc, "fix", "nve/dpa2/spin", "dynamics of spins of DPA-2 models", create_fix);
  enroll(lmp, handle, regfunc, "compute", "dpa2/tensor/atom", "dipoles and polarizabilities of DPA-2 models",
         create_compute<LAMMPS_NS::ComputeDPA2TensorAtom>);
  enroll(lmp, handle, regfunc, "compute", "dpa2/descriptor/atom", "descriptors of DPA-2 models",
         create_compute<LAMMPS_NS::ComputeDPA2DescriptorAtom>);
}
