// Memory of the emulated devices: that of the host, with ends that are watched. New memory is NaN.
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "machine.hpp"

extern "C" void __asan_poison_memory_region(void const volatile* address, std::size_t bytes) __attribute__((weak));

namespace emulated {

namespace {

constexpr std::size_t alignment = 256, guard_bytes = 64;
constexpr unsigned char guard_value = 0xa5;
constexpr std::size_t arena_bytes = std::size_t{1} << 36;  // of addresses

bool has_sanitizer() { return __asan_poison_memory_region != nullptr; }

// One range for all memory of devices, so that one call opens or closes it. Nothing in it is used twice.
struct Arena {
  unsigned char* begin = nullptr;
  std::size_t used = 0;
  bool open = false;
};
Arena arena;

void* from_arena(std::size_t bytes) {
  if (arena.begin == nullptr) {
    void* at = mmap(nullptr, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return nullptr;
    arena.begin = static_cast<unsigned char*>(at);
  }
  if (arena_bytes - arena.used < bytes + alignment) return nullptr;
  void* at = arena.begin + arena.used;
  arena.used += (bytes + alignment - 1) / alignment * alignment;
  if (arena.open) mprotect(arena.begin, arena.used + 4096, PROT_READ | PROT_WRITE);
  return at;
}

void fill(void* at, unsigned char value, std::size_t bytes) { std::memset(at, value, bytes); }

bool is_intact(const unsigned char* end) {
  for (std::size_t k = 0; k < guard_bytes; ++k)
    if (end[k] != guard_value) return false;
  return true;
}

}  // namespace

void* new_memory(Context* context, std::size_t bytes, bool pinned) {
  if (!pinned && settings().memory - context->bytes < bytes) return nullptr;
  void* at = nullptr;
  const std::size_t guarded = bytes + (has_sanitizer() ? 0 : guard_bytes);
  if (settings().only_kernels && !pinned)
    at = from_arena(guarded);
  else if (posix_memalign(&at, alignment, guarded) != 0)
    at = nullptr;
  if (at == nullptr) return nullptr;
  if (!pinned) open_memory(true);
  fill(at, 0xff, bytes);
  if (!has_sanitizer()) fill(static_cast<unsigned char*>(at) + bytes, guard_value, guard_bytes);
  if (!pinned) open_memory(false);
  machine().memory[reinterpret_cast<std::uintptr_t>(at)] = {context, bytes, pinned};
  if (!pinned) context->bytes += bytes;
  return at;
}

int free_memory(std::uintptr_t at, bool pinned) {
  const auto found = machine().memory.find(at);
  if (found == machine().memory.end() || found->second.pinned != pinned)
    return fault(INVALID_VALUE, "memory is freed that was not allocated, or was freed before");
  const Allocation one = found->second;
  auto* begin = reinterpret_cast<unsigned char*>(at);
  int status = SUCCESS;
  if (!pinned) open_memory(true);
  if (!has_sanitizer() && !is_intact(begin + one.bytes))
    status = fault(ILLEGAL_ADDRESS, "something was written beyond the end of a buffer of " + std::to_string(one.bytes) + " bytes");
  if (settings().deferred && !is_idle()) {
    machine().graveyard.emplace_back(at, pinned);
    open_memory(false);
    return status;
  }
  fill(begin, 0xff, one.bytes);
  if (!pinned) open_memory(false);
  if (!pinned) one.context->bytes -= one.bytes;
  machine().memory.erase(found);
  if (pinned || !settings().only_kernels) std::free(begin);
  return status;
}

const Allocation* find(std::uintptr_t at, std::size_t bytes, bool pinned) {
  auto found = machine().memory.upper_bound(at);
  if (found == machine().memory.begin()) return nullptr;
  --found;
  const Allocation& one = found->second;
  const bool inside = at - found->first <= one.bytes && bytes <= one.bytes - (at - found->first);
  return inside && one.pinned == pinned ? &one : nullptr;
}

void check_ends(Context* context) {
  if (has_sanitizer()) return;
  for (const auto& [at, one] : machine().memory) {
    if (one.context != context || is_intact(reinterpret_cast<const unsigned char*>(at) + one.bytes)) continue;
    context->sticky = fault(ILLEGAL_ADDRESS, "a kernel has written beyond the end of a buffer of " + std::to_string(one.bytes) + " bytes");
    return;
  }
}

void open_memory(bool open) {
  if (!settings().only_kernels || arena.begin == nullptr || arena.open == open) return;
  arena.open = open;
  if (mprotect(arena.begin, arena.used + 4096, open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) std::abort();
}

void free_all(Context* context) {
  std::vector<std::pair<std::uintptr_t, bool>> left;
  for (const auto& [at, one] : machine().memory)
    if (one.context == context) left.emplace_back(at, one.pinned);
  if (!left.empty()) {
    machine().counts["leaks"] += static_cast<long long>(left.size());
    std::fprintf(stderr, "emulated CUDA: the context of device %d ends with %zu allocations\n", context->device, left.size());
  }
  for (const auto& [at, pinned] : left) free_memory(at, pinned);
}

}  // namespace emulated
