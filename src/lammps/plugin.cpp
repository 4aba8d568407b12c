// What LAMMPS calls when it loads the plugin.
#include <mpi.h>

#include <cstdio>
#include <cstring>

#include "pair_dpa2.h"

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

LAMMPS_NS::Pair* create(LAMMPS_NS::LAMMPS* lmp) { return new LAMMPS_NS::PairDPA2(lmp); }

}  // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void* lmp, void* handle, void* regfunc) {
  // The layout of LAMMPS's classes changes between builds of the same version: only the one that the headers came with is safe.
  const char* running = LAMMPS_NS::LAMMPS::git_descriptor();
  if (std::strcmp(running, DPA2_LAMMPS_BUILD) != 0) {
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0)
      std::fprintf(stderr,
                   "dpa2: this plugin was built for LAMMPS '%s' and does not fit this one, '%s': pair_style dpa2 is not available. "
                   "Run 'dpa2 lammps build' for the LAMMPS that you use\n",
                   DPA2_LAMMPS_BUILD, running);
    return;
  }
  Plugin plugin{static_cast<LAMMPS_NS::LAMMPS*>(lmp)->version,
                "pair",
                "dpa2",
                "DPA-2 interatomic potentials",
                "the dpa2 developers",
                nullptr,
                handle};
  LAMMPS_NS::Pair* (*creator)(LAMMPS_NS::LAMMPS*) = create;
  std::memcpy(&plugin.creator, &creator, sizeof creator);
  Register enroll = nullptr;
  std::memcpy(&enroll, &regfunc, sizeof enroll);
  enroll(&plugin, lmp);
}
