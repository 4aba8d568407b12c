#include "device.h"

#include <dlfcn.h>
#include <mpi.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "dpa2.hpp"
#include "rows.h"

#include <lammps/comm.h>
#include <lammps/error.h>
#include <lammps/universe.h>
#include <lammps/utils.h>

using namespace LAMMPS_NS;

namespace dpa2_lammps {

// Partitions of a universe do not meet: the first process of each counts as many as come before it.
int Device::place_on_node() const {
  MPI_Comm node = MPI_COMM_NULL;
  int place = 0;
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, comm->me, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &place);
  MPI_Comm_free(&node);
  return place + (universe->nworlds > 1 ? universe->root_proc[universe->iworld] : 0);
}

std::string Device::of_process(const std::string& word) const {
  if (word != "cuda") return word;
  const int place = place_on_node();
  int count = 0;
  together("device cuda", [&] {
    dpa2::check(dpa2_device_count(&count));
    if (count == 0) throw dpa2::Error(DPA2_INVALID_INPUT, "this machine has no CUDA device that can be used: leave the keyword device out");
  });
  return "cuda:" + std::to_string(place % count);
}

void Device::together(const std::string& what, const std::function<void()>& f) const {
  std::string message;
  try {
    f();
  } catch (const dpa2::Error& e) { message = e.what(); }
  const int failed = message.empty() ? 0 : 1;
  struct {
    int well, process;
  } mine{1 - failed, comm->me}, first{1, 0};
  int failures = 0;
  MPI_Allreduce(&mine, &first, 1, MPI_2INT, MPI_MINLOC, world);
  if (first.well != 0) return;
  MPI_Allreduce(&failed, &failures, 1, MPI_INT, MPI_SUM, world);
  int size = static_cast<int>(message.size());
  MPI_Bcast(&size, 1, MPI_INT, first.process, world);
  message.resize(static_cast<std::size_t>(size));
  MPI_Bcast(&message[0], size, MPI_CHAR, first.process, world);
  const std::string where = failures < comm->nprocs ? " (process " + std::to_string(first.process) + ")" : "";
  error->all(FLERR, "{}, {}: {}{}", style, what, message, where);
}

void Device::report(const std::string& what, const std::string& device) const {
  constexpr std::size_t most = 16;  // of a long list
  const int number = std::stoi(device.substr(device.find(':') + 1));
  std::vector<int> all(at(comm->nprocs));
  MPI_Gather(&number, 1, MPI_INT, all.data(), 1, MPI_INT, 0, world);
  if (comm->me != 0) return;
  std::string list;
  for (std::size_t k = 0; k < std::min(all.size(), most); k++) list += " " + std::to_string(all[k]);
  if (all.size() > most) list += " ...";
  utils::logmesg(lmp, "{}: {} computes on GPU{}{} of the node{}\n", style, what, all.size() > 1 ? "s" : "", list,
                 all.size() > 1 ? ", process by process" : "");
}

bool Device::mpi_takes(const std::string& gpu_aware) {
  if (gpu_aware != "auto") return gpu_aware == "on";
  void* const found = dlsym(RTLD_DEFAULT, "MPIX_Query_cuda_support");
  if (found == nullptr) return false;
  int (*query)() = nullptr;
  static_assert(sizeof query == sizeof found, "pointers to functions and to objects are of one size here");
  std::memcpy(&query, &found, sizeof found);
  return query() != 0;
}

}  // namespace dpa2_lammps
