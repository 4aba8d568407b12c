// Which GPU a process computes on.
#ifndef DPA2_LAMMPS_DEVICE_H
#define DPA2_LAMMPS_DEVICE_H

#include <functional>
#include <string>

#include "part.h"

namespace dpa2_lammps {

class Device : public Part {
 public:
  using Part::Part;

  /// "cpu", or "cuda:N": that of this process, where an input script says "cuda", by its place among the processes of its node. All
  /// processes come here together.
  [[nodiscard]] std::string of_process(const std::string& word) const;
  /// Does what may fail on some processes only; where it does, all of them end with the message of the first of these.
  ///   what   stands in front of the message
  ///   f      throws dpa2::Error
  void together(const std::string& what, const std::function<void()>& f) const;
  /// Says where the processes compute.
  void report(const std::string& what, const std::string& device) const;
  /// Whether packed rows go to MPI in the memory of the GPU: "on", "off", or "auto" for what MPI says that it can.
  [[nodiscard]] static bool mpi_takes(const std::string& gpu_aware);

 private:
  [[nodiscard]] int place_on_node() const;
};

}  // namespace dpa2_lammps

#endif
