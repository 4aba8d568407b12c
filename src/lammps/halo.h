// The exchange of rows of atoms between processes, for models on a GPU: packed by the GPU, by messages of the plugin's own.
#ifndef DPA2_LAMMPS_HALO_H
#define DPA2_LAMMPS_HALO_H

#include <mpi.h>

#include <exception>
#include <functional>
#include <vector>

#include "dpa2.hpp"
#include "part.h"

namespace dpa2_lammps {

class Halo : public Part {
 public:
  /// LAMMPS's own communication of rows (nall, width) of doubles from owners to ghosts.
  using Forward = std::function<void(double* rows, int width)>;

  using Part::Part;
  Halo(const Halo&) = delete;
  Halo& operator=(const Halo&) = delete;
  ~Halo();

  /// Who owns which ghosts, as it is now, into a domain whose atoms are set. All processes come here together.
  ///   on_device   the rows go to MPI in the memory of the GPU
  void renew(dpa2_domain* atoms, const Forward& forward, bool on_device);
  /// Throws again what has ended an exchange.
  void check();
  [[nodiscard]] double memory_usage() const;

 private:
  /// Rows for or of one process, among the packed ones.
  struct Peer {
    int process, first, count;
  };
  void find_owners(const Forward& forward);
  void ask_owners(const std::vector<int>& wanted);
  int carry(const std::vector<Peer>& to, const std::vector<Peer>& from, const void* sent, void* received, int width, int size) noexcept;

  MPI_Comm messages_ = MPI_COMM_NULL;  // a copy of world, where nobody else's messages are
  std::vector<double> owner_;          // (nall, 2) process and row there
  std::vector<int> send_, receive_, images_, owners_;
  std::vector<Peer> to_, from_;  // by process
  std::vector<MPI_Request> requests_;
  std::exception_ptr thrown_;
};

}  // namespace dpa2_lammps

#endif
