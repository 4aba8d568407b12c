// How much memory there is, how much an evaluation takes, and a clear error in time where the second exceeds the first.
//
// Linux promises more memory than it has and ends the process that believes it. So before memory is taken in a large piece it
// is compared with what is left by the machine (MemAvailable), by the control group, by RLIMIT_AS, and by the environment
// variable DPA2_MEMORY_LIMIT (bytes, or with K, M, G, T in powers of 1024): the most that the process may hold in memory.
#pragma once

#include <cstdint>
#include <string>

namespace dpa2 {

enum class AtomVirial { none, edge, deepmd };

/// Growth below this many bytes is not checked: reading the limits takes longer than a small step.
inline constexpr std::int64_t unchecked_growth = std::int64_t{16} << 20;

struct AvailableMemory {
  std::int64_t bytes = INT64_MAX;
  const char* limit = "";  ///< what leaves no more, for messages; empty where nothing is known
};
/// What the process may still take now.
AvailableMemory available_memory();

/// Whether `bytes` more are available; bytes below unchecked_growth always are.
bool fits(std::int64_t bytes);

/// Throws out_of_memory, with both numbers and what to do, when `bytes` more do not fit.
void require_memory(std::int64_t bytes, std::int64_t natoms);

/// DPA2_MEMORY_LIMIT in bytes, or a negative number where it is not set. Throws invalid_input for anything else than a size.
std::int64_t memory_limit();

/// Bytes meant by "123", "16G", "1.5 GiB"; negative for anything else.
std::int64_t parse_bytes(const std::string& text);

/// An evaluation whose memory is asked for.
struct MemoryQuestion {
  std::int64_t natoms = 0;
  std::int64_t nedge = 0;            ///< neighbours of all atoms in repinit's lists
  std::int64_t nedge_repformer = 0;  ///< in the repformer's lists
  std::int64_t candidates = 0;       ///< in the lists with skin
  double images = 1;                 ///< periodic copies of an atom that are looked at, itself included
  int threads = 1;
  bool gradient = true;
  AtomVirial atom_virial = AtomVirial::none;
  int values = 1;      ///< numbers per atom of the output
  int quantities = 1;  ///< how many have forces
};
/// The parts of the estimate that do not depend on the model.
std::int64_t partition_bytes(const MemoryQuestion& question);
std::int64_t neighbor_bytes(const MemoryQuestion& question);
std::int64_t result_bytes(const MemoryQuestion& question);

}  // namespace dpa2
