// What the functions of the emulated driver have in common: how they begin, and how handles are looked up.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "machine.hpp"

namespace emulated {

using Address = unsigned long long;
using Lock = std::lock_guard<std::mutex>;

inline std::string bytes_text(std::size_t bytes) { return std::to_string(bytes) + " bytes"; }

// The current context, or a return with why not.
#define CURRENT(context)            \
  const Lock lock(machine().mutex); \
  Context* context = nullptr;       \
  if (const int status = current(context); status != SUCCESS) return status
#define FORBIDDEN(what) \
  if (const int status = forbidden(what); status != SUCCESS) return status
#define STREAM(name, handle)                                                                         \
  const std::shared_ptr<Stream> name = stream_of(handle, context);                                   \
  if (name == nullptr) return fault(INVALID_HANDLE, "not a stream, or one that has been destroyed"); \
  if (name->context != context) return fault(INVALID_HANDLE, "a stream of another device than the current one")
#define EVENT(name, handle)                                                                                                 \
  const auto name##_found = machine().events.find(handle);                                                                  \
  if (name##_found == machine().events.end()) return fault(INVALID_HANDLE, "not an event, or one that has been destroyed"); \
  const std::shared_ptr<Event> name = name##_found->second;                                                                 \
  if (name->context != context) return fault(INVALID_HANDLE, "an event of another device than the current one")

template <class Map>
auto lookup(Map& map, void* handle) -> decltype(map.begin()->second.get()) {
  const auto found = map.find(handle);
  return found == map.end() ? nullptr : found->second.get();
}

template <class Owner>
void* keep(std::map<void*, Owner>& map, Owner one) {
  void* handle = one.get();
  map[handle] = std::move(one);
  return handle;
}

}  // namespace emulated
