#include "graph/memory.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/resource.h>
#include <unistd.h>
#endif

#include "error.hpp"
#include "graph/count.hpp"
#include "neighbors/order.hpp"

namespace dpa2 {
namespace {

/// The number after `key` in a file of "key value" lines, in its own unit; negative where there is none.
std::int64_t value_of(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    std::int64_t value = 0;
    if (in >> word && word == key && in >> value) return value;
  }
  return -1;
}

/// The number that a file starts with; negative for "max", or without the file.
std::int64_t number_in(const std::string& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  return file >> value ? value : -1;
}

struct ProcessMemory {
  std::int64_t address_space = 0, resident = 0;  // bytes
};

ProcessMemory process_memory() {
  ProcessMemory memory;
#if defined(__unix__)
  std::ifstream file("/proc/self/statm");
  std::int64_t size = 0, resident = 0;
  const std::int64_t page = sysconf(_SC_PAGESIZE);
  if (file >> size >> resident) memory = {size * page, resident * page};
#endif
  return memory;
}

void lower(AvailableMemory& memory, std::int64_t bytes, const char* limit) {
  if (bytes >= memory.bytes) return;
  memory = {std::max<std::int64_t>(0, bytes), limit};
}

/// What one control group leaves: pages of files that it holds are given up when memory is asked for.
void ask_group(AvailableMemory& memory, const std::string& folder, const char* limit_file, const char* usage_file, const char* cache) {
  const std::int64_t limit = number_in(folder + limit_file);
  if (limit < 0 || limit > (std::int64_t{1} << 60)) return;
  const std::int64_t usage = std::max<std::int64_t>(0, number_in(folder + usage_file));
  const std::int64_t files = std::max<std::int64_t>(0, value_of(folder + "memory.stat", cache));
  lower(memory, limit - usage + files, "the limit of the control group");
}

/// Control groups of version 1 and 2, from the process's own up to the root.
void ask_groups(AvailableMemory& memory) {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool v2 = controllers == ",,", v1 = controllers.find(",memory,") != std::string::npos;
    if (!v1 && !v2) continue;
    std::string path = line.substr(second + 1);
    for (;;) {
      if (path.empty() || path.back() != '/') path += '/';
      if (v2)
        ask_group(memory, "/sys/fs/cgroup" + path, "memory.max", "memory.current", "inactive_file");
      else
        ask_group(memory, "/sys/fs/cgroup/memory" + path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file");
      if (path == "/") break;
      path.pop_back();
      path.erase(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1);
    }
  }
}

std::string readable(std::int64_t bytes) {
  char text[64];
  const double value = static_cast<double>(bytes);
  if (value < 1048576.0 * 1024.0)
    std::snprintf(text, sizeof text, "%.0f MiB", value / 1048576.0);
  else
    std::snprintf(text, sizeof text, "%.1f GiB", value / 1073741824.0);
  return text;
}

}  // namespace

std::int64_t parse_bytes(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || !(value >= 0.0) || !std::isfinite(value)) return -1;
  std::string unit;
  for (; *end != '\0'; ++end)
    if (std::isspace(static_cast<unsigned char>(*end)) == 0) unit += static_cast<char>(std::toupper(static_cast<unsigned char>(*end)));
  double scale = 1.0;
  if (!unit.empty() && unit != "B") {
    const std::size_t power = std::string("KMGT").find(unit[0]);
    const std::string rest = unit.substr(1);
    if (power == std::string::npos || (!rest.empty() && rest != "B" && rest != "IB")) return -1;
    for (std::size_t k = 0; k <= power; ++k) scale *= 1024.0;
  }
  return value * scale < 9e18 ? static_cast<std::int64_t>(value * scale) : -1;
}

std::int64_t memory_limit() {
  const char* text = std::getenv("DPA2_MEMORY_LIMIT");
  if (text == nullptr || *text == '\0') return -1;
  const std::int64_t most = parse_bytes(text);
  if (most < 0) throw invalid_input("DPA2_MEMORY_LIMIT is '", text, "', not a number of bytes such as 4000000000 or 4G");
  return most;
}

AvailableMemory available_memory() {
  AvailableMemory memory;
  const std::int64_t kib = value_of("/proc/meminfo", "MemAvailable:");
  if (kib >= 0) lower(memory, kib * 1024, "the memory of the machine");
  ask_groups(memory);
  const ProcessMemory process = process_memory();
#if defined(__unix__)
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    lower(memory, static_cast<std::int64_t>(std::min<rlim_t>(limit.rlim_cur, INT64_MAX)) - process.address_space, "RLIMIT_AS (ulimit -v)");
#endif
  if (const std::int64_t most = memory_limit(); most >= 0) lower(memory, most - process.resident, "DPA2_MEMORY_LIMIT");
  return memory;
}

bool fits(std::int64_t bytes) { return bytes < unchecked_growth || bytes <= available_memory().bytes; }

void require_memory(std::int64_t bytes, std::int64_t natoms) {
  if (fits(bytes)) return;
  const AvailableMemory memory = available_memory();
  throw out_of_memory("evaluating ", natoms, " atoms needs ", readable(bytes), " more memory (", bytes / std::max<std::int64_t>(1, natoms),
                      " bytes per atom), but ", memory.limit, " leaves ", readable(memory.bytes),
                      ": evaluate fewer atoms at once, in float32, without atomic virials, or where there is more memory");
}

std::int64_t partition_bytes(const MemoryQuestion& q) {
  const Count numbers = Count(q.nedge) + Count(q.natoms) * q.threads * (q.threads > 1 ? 2 : 1);
  return (numbers * static_cast<std::int64_t>(sizeof(int))).value();
}

std::int64_t neighbor_bytes(const MemoryQuestion& q) {
  const double natoms = static_cast<double>(q.natoms);
  // Edges: index, vector, distance; five per cent more are reserved than found. Per centre: start and four counts.
  const double edges = 1.05 * 36.0 * static_cast<double>(q.nedge) + 24.0 * natoms;
  // The search: place, fraction and image of an atom; every image twice, unsorted and sorted, and its cube.
  const double search = natoms * (24 + 24 + 12) + natoms * q.images * (2 * (24 + 8) + 4 + 8);
  const double lists = static_cast<double>(q.candidates) * 8.0 + (q.candidates > 0 ? natoms * (24 + 12 + 4 + 12) : 0.0);
  // Atoms in spatial order: their numbers and the keys of the sort, coordinates and types.
  const double order = q.natoms >= SpatialOrder::smallest ? natoms * (4 + 16 + 24 + 4 + 1) : 0.0;
  return Count::of(edges + search + lists + order).value();
}

std::int64_t result_bytes(const MemoryQuestion& q) {
  if (!q.gradient) return (Count(q.natoms) * 8 * (q.values - 1)).value();
  const std::int64_t derivatives = 3 + (q.atom_virial == AtomVirial::none ? 0 : 9), wrapped = q.atom_virial == AtomVirial::deepmd ? 3 : 0;
  return (Count(q.natoms) * 8 * (q.values + q.quantities * derivatives + wrapped)).value();
}

}  // namespace dpa2
