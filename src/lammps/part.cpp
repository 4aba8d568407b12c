#include "part.h"

#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include <lammps/error.h>
#include <lammps/universe.h>

namespace dpa2_lammps {

// What ends a run of several processes travels through the launcher, which may be ended first: the message goes out early, and
// is given a moment.
void Part::announce(const std::string& what) const {
  if (universe->nprocs == 1) return;
  std::fprintf(stderr, "ERROR on proc %d: %s: %s\n", universe->me, style.c_str(), what.c_str());
  std::fflush(stderr);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
}

void Part::fail_here(const std::string& what) const {
  announce(what);
  error->one(FLERR, "{}: {}", style, what);
}

}  // namespace dpa2_lammps
