// The CUDA driver's functions, by the names that libcuda.so.1 exports, over the emulated machine.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "calls.hpp"
#include "cubin.hpp"
#include "machine.hpp"

using namespace emulated;

namespace {

// Memory of the device that a call names; `what` for the message.
int check_range(const Context* context, Address at, std::size_t bytes, const char* what) {
  const Allocation* one = find(at, bytes, false);
  if (one == nullptr) return fault(INVALID_VALUE, std::string(what) + " " + bytes_text(bytes) + " that are not within memory of a device");
  if (one->context != context) return fault(INVALID_VALUE, std::string(what) + " memory of another device than the current one");
  return SUCCESS;
}

int check_host(const void* at, const char* what) {
  if (find(reinterpret_cast<std::uintptr_t>(at), 1, false) != nullptr)
    return fault(INVALID_VALUE, std::string(what) + " memory of the device where that of the host is wanted");
  return SUCCESS;
}

void copy(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

std::vector<std::size_t> sizes_of(const std::string& signature) {
  std::vector<std::size_t> sizes;
  std::size_t begin = 0;
  for (std::size_t end = signature.find(','); end != std::string::npos; begin = end + 1, end = signature.find(',', begin)) {
    const std::string code = signature.substr(begin, end - begin);
    sizes.push_back(code[0] == '*' ? sizeof(void*) : std::stoul(code.substr(1)));
  }
  return sizes;
}

void run_kernel(const Function& f, const std::vector<unsigned char>& values, const LaunchRecord& record) {
  if (f.module == nullptr) {
    f.context->sticky = fault(INVALID_HANDLE, f.name + " runs after its module has been unloaded");
    return;
  }
  std::vector<void*> pointers(std::max<std::size_t>(1, f.arguments.size()));
  std::vector<std::vector<unsigned char>> cells;  // of exactly their size, for the address sanitizer
  std::size_t at = 0;
  for (std::size_t k = 0; k < f.arguments.size(); at += f.arguments[k++]) {
    cells.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(at), values.begin() + static_cast<std::ptrdiff_t>(at + f.arguments[k]));
    pointers[k] = cells.back().data();
  }
  std::vector<char> message(1 << 14);
  const long long seed = next_seed();
  machine().launches.push_back(record);
  ++machine().counts["launches"];
  const int failed = f.launch(pointers.data(), record.grid, record.block, record.shared, seed, message.data(), message.size());
  if (failed != 0) f.context->sticky = fault(LAUNCH_FAILED, f.source + ", " + f.name + ": " + message.data());
  check_ends(f.context);
}

int check_launch(const Function& f, const LaunchRecord& r) {
  const std::string what = f.source + ", " + f.name + ": ";
  for (int k = 0; k < 3; ++k)
    if (r.grid[k] == 0 || r.grid[k] > largest_grid[k] || r.block[k] == 0)
      return fault(INVALID_VALUE, what + "the grid or the block has a side of 0, or one that is too long");
  const int threads = static_cast<int>(std::min<std::size_t>(std::size_t{r.block[0]} * r.block[1] * r.block[2], 1u << 20));
  if (threads > std::min(f.bound, largest_block))
    return fault(INVALID_VALUE, what + std::to_string(threads) + " threads, a block of this kernel has at most " +
                                    std::to_string(std::min(f.bound, largest_block)));
  const std::size_t fixed = static_cast<std::size_t>(f.static_shared);
  const std::string shared = bytes_text(r.shared) + " of dynamic shared memory beside " + bytes_text(fixed) + " of static; ";
  if (r.shared + fixed > static_cast<std::size_t>(settings().shared))
    return fault(INVALID_VALUE, what + shared + "a block may have " + std::to_string(settings().shared));
  if (r.shared > static_cast<std::size_t>(f.dynamic_shared) ||
      (f.dynamic_shared <= shared_without_asking && r.shared + fixed > static_cast<std::size_t>(shared_without_asking)))
    return fault(INVALID_VALUE, what + shared + "more than 49152 together must be asked for");
  return SUCCESS;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int cuInit(unsigned) {
  const Lock lock(machine().mutex);
  if (settings().devices == 0) return NO_DEVICE;
  machine().started = true;
  return SUCCESS;
}

int cuDriverGetVersion(int* version) {
  *version = settings().version;
  return SUCCESS;
}

int cuGetErrorName(int status, const char** name) {
  *name = name_of(status);
  return *name != nullptr ? SUCCESS : INVALID_VALUE;
}

int cuGetErrorString(int status, const char** words) {
  *words = words_of(status);
  if (*words == nullptr) return INVALID_VALUE;
  if (status != SUCCESS && status == last_status()) {
    thread_local std::string text;
    text = std::string(*words) + ": " + last_details();
    *words = text.c_str();
  }
  return SUCCESS;
}

int cuDeviceGetCount(int* count) {
  if (!machine().started) return NOT_INITIALIZED;
  *count = settings().devices;
  return SUCCESS;
}

int cuDeviceGet(int* device, int number) {
  if (!machine().started) return NOT_INITIALIZED;
  *device = number;
  return number >= 0 && number < settings().devices ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetName(char* name, int bytes, int device) {
  std::snprintf(name, static_cast<std::size_t>(bytes), "emulated device %d", device);
  return SUCCESS;
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (device < 0 || device >= settings().devices) return INVALID_DEVICE;
  switch (attribute) {
    case 1:
      *value = largest_block;
      return SUCCESS;  // MAX_THREADS_PER_BLOCK
    case 8:
      *value = shared_without_asking;
      return SUCCESS;  // MAX_SHARED_MEMORY_PER_BLOCK
    case 10:
      *value = 32;
      return SUCCESS;  // WARP_SIZE
    case 16:
      *value = settings().multiprocessors;
      return SUCCESS;  // MULTIPROCESSOR_COUNT
    case 75:
      *value = settings().architecture / 10;
      return SUCCESS;
    case 76:
      *value = settings().architecture % 10;
      return SUCCESS;
    case 97:
      *value = settings().shared;
      return SUCCESS;  // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    default:
      return fault(INVALID_VALUE, "attribute " + std::to_string(attribute) + " of a device is not emulated");
  }
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
  const Lock lock(machine().mutex);
  if (!machine().started) return NOT_INITIALIZED;
  if (device < 0 || device >= settings().devices) return INVALID_DEVICE;
  ++machine().contexts[static_cast<std::size_t>(device)]->retained;
  *context = machine().contexts[static_cast<std::size_t>(device)].get();
  return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
  const Lock lock(machine().mutex);
  if (device < 0 || device >= settings().devices) return INVALID_DEVICE;
  Context* context = machine().contexts[static_cast<std::size_t>(device)].get();
  if (context->retained == 0) return fault(INVALID_CONTEXT, "a primary context is released that nobody has retained");
  if (--context->retained > 0) return SUCCESS;
  if (settings().deferred) run_until(is_idle);
  free_all(context);
  const auto drop = [&](auto& map, const char* what) {
    for (auto at = map.begin(); at != map.end();) {
      if (at->second->context == context) {
        ++machine().counts["leaks"];
        std::fprintf(stderr, "emulated CUDA: the context of device %d ends with %s\n", device, what);
        at = map.erase(at);
      } else {
        ++at;
      }
    }
  };
  drop(machine().streams, "a stream");
  drop(machine().events, "an event");
  drop(machine().graphs, "a graph");
  drop(machine().executables, "an instantiated graph");
  drop(machine().modules, "a module");
  return SUCCESS;
}

int cuCtxPushCurrent_v2(void* context) {
  const Lock lock(machine().mutex);
  const auto& all = machine().contexts;
  const auto found = std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.get() == context; });
  if (found == all.end() || (*found)->retained == 0) return fault(INVALID_CONTEXT, "what is pushed is no context");
  stack().push_back(found->get());
  return SUCCESS;
}

int cuCtxPopCurrent_v2(void** context) {
  const Lock lock(machine().mutex);
  if (stack().empty()) return fault(INVALID_CONTEXT, "nothing has been pushed in this thread");
  if (context != nullptr) *context = stack().back();
  stack().pop_back();
  return SUCCESS;
}

int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  CURRENT(context);
  *total = settings().memory;
  *free = settings().memory - context->bytes;
  return SUCCESS;
}

int cuMemAlloc_v2(Address* at, std::size_t bytes) {
  CURRENT(context);
  FORBIDDEN("cuMemAlloc");
  if (bytes == 0) return fault(INVALID_VALUE, "cuMemAlloc of no bytes");
  void* memory = new_memory(context, bytes, false);
  if (memory == nullptr) return OUT_OF_MEMORY;
  ++machine().counts["allocations"];
  *at = reinterpret_cast<std::uintptr_t>(memory);
  return SUCCESS;
}

int cuMemFree_v2(Address at) {
  CURRENT(context);
  FORBIDDEN("cuMemFree");
  if (at == 0) return SUCCESS;
  ++machine().counts["frees"];
  return free_memory(at, false);
}

int cuMemHostAlloc(void** at, std::size_t bytes, unsigned) {
  CURRENT(context);
  FORBIDDEN("cuMemHostAlloc");
  *at = bytes > 0 ? new_memory(context, bytes, true) : nullptr;
  ++machine().counts["pinned_allocations"];
  return *at != nullptr ? SUCCESS : bytes == 0 ? INVALID_VALUE : OUT_OF_MEMORY;
}

int cuMemFreeHost(void* at) {
  CURRENT(context);
  FORBIDDEN("cuMemFreeHost");
  return free_memory(reinterpret_cast<std::uintptr_t>(at), true);
}

int cuMemcpyHtoDAsync_v2(Address to, const void* from, std::size_t bytes, void* handle) {
  CURRENT(context);
  STREAM(stream, handle);
  if (bytes == 0) return SUCCESS;
  if (const int status = check_range(context, to, bytes, "a copy to"); status != SUCCESS) return status;
  if (const int status = check_host(from, "a copy to the device from"); status != SUCCESS) return status;
  const bool pinned = find(reinterpret_cast<std::uintptr_t>(from), bytes, true) != nullptr;
  std::shared_ptr<std::vector<unsigned char>> staged;  // what is not pinned is taken at once
  const auto* begin = static_cast<const unsigned char*>(from);
  if (!pinned && stream->capture == nullptr && settings().deferred)
    staged = std::make_shared<std::vector<unsigned char>>(begin, begin + bytes);
  return enqueue(*stream, {[=] {
                             ++machine().counts["copies_to_device"];
                             copy(reinterpret_cast<void*>(to), staged != nullptr ? staged->data() : from, bytes);
                           },
                           nullptr, nullptr, 0});
}

int cuMemcpyDtoHAsync_v2(void* to, Address from, std::size_t bytes, void* handle) {
  CURRENT(context);
  STREAM(stream, handle);
  if (bytes == 0) return SUCCESS;
  if (const int status = check_range(context, from, bytes, "a copy from"); status != SUCCESS) return status;
  if (const int status = check_host(to, "a copy to the host into"); status != SUCCESS) return status;
  return enqueue(*stream, {[=] {
                             ++machine().counts["copies_to_host"];
                             copy(to, reinterpret_cast<const void*>(from), bytes);
                           },
                           nullptr, nullptr, 0});
}

int cuMemcpyDtoDAsync_v2(Address to, Address from, std::size_t bytes, void* handle) {
  CURRENT(context);
  STREAM(stream, handle);
  if (bytes == 0) return SUCCESS;
  if (const int status = check_range(context, to, bytes, "a copy to"); status != SUCCESS) return status;
  if (const int status = check_range(context, from, bytes, "a copy from"); status != SUCCESS) return status;
  if (to < from + bytes && from < to + bytes) return fault(INVALID_VALUE, "a copy of memory onto itself");
  return enqueue(*stream, {[=] {
                             ++machine().counts["copies_within_device"];
                             copy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
                           },
                           nullptr, nullptr, 0});
}

int cuMemsetD8Async(Address at, unsigned char value, std::size_t count, void* handle) {
  CURRENT(context);
  STREAM(stream, handle);
  if (count == 0) return SUCCESS;
  if (const int status = check_range(context, at, count, "filling"); status != SUCCESS) return status;
  return enqueue(*stream, {[=] {
                             ++machine().counts["fills"];
                             std::memset(reinterpret_cast<void*>(at), value, count);
                           },
                           nullptr, nullptr, 0});
}

int cuMemsetD32Async(Address at, unsigned value, std::size_t count, void* handle) {
  CURRENT(context);
  STREAM(stream, handle);
  if (count == 0) return SUCCESS;
  if (at % 4 != 0) return fault(INVALID_VALUE, "filling words at an address that is no multiple of 4");
  if (const int status = check_range(context, at, 4 * count, "filling"); status != SUCCESS) return status;
  return enqueue(*stream, {[=] {
                             ++machine().counts["fills"];
                             std::fill_n(reinterpret_cast<unsigned*>(at), count, value);
                           },
                           nullptr, nullptr, 0});
}

int cuModuleLoadData(void** handle, const void* image) {
  CURRENT(context);
  FORBIDDEN("cuModuleLoadData");
  Cubin cubin;
  if (!cubin.read(static_cast<const char*>(image))) return fault(INVALID_IMAGE, "not what the emulated compiler has made");
  if (cubin.architecture > settings().architecture) return fault(INVALID_IMAGE, "compiled for a newer device than this one");
  if (cubin.ptx > settings().version) return fault(UNSUPPORTED_PTX, "PTX of a compiler that is newer than this driver");
  auto module = std::make_unique<Module>();
  module->context = context;
  module->path = cubin.path;
  module->source = cubin.source;
  module->library = dlopen(cubin.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module->library == nullptr) return fault(INVALID_IMAGE, dlerror());
  ++machine().counts["modules"];
  *handle = keep(machine().modules, std::move(module));
  return SUCCESS;
}

int cuModuleUnload(void* handle) {
  CURRENT(context);
  FORBIDDEN("cuModuleUnload");
  const Module* module = lookup(machine().modules, handle);
  if (module == nullptr || module->context != context) return fault(INVALID_HANDLE, "no module of this device to unload");
  if (settings().deferred) run_until(is_idle);
  for (auto at = machine().functions.begin(); at != machine().functions.end();) {
    if (at->second->module != module) {
      ++at;
      continue;
    }
    at->second->module = nullptr;
    at = machine().functions.erase(at);
  }
  machine().modules.erase(handle);  // the library stays: the sanitizers name its lines when the process ends
  return SUCCESS;
}

int cuModuleGetFunction(void** handle, void* module_handle, const char* name) {
  CURRENT(context);
  const Module* module = lookup(machine().modules, module_handle);
  if (module == nullptr || module->context != context) return fault(INVALID_HANDLE, "no module of this device");
  const auto symbol = [&](const char* prefix) { return dlsym(module->library, (prefix + std::string(name)).c_str()); };
  auto function = std::make_shared<Function>();
  function->launch = reinterpret_cast<decltype(function->launch)>(symbol("launch_"));
  if (function->launch == nullptr) return fault(NOT_FOUND, module->source + " has no kernel " + name);
  function->context = context;
  function->module = module;
  function->name = name;
  function->source = module->source;
  function->bound = reinterpret_cast<int (*)()>(symbol("bound_"))();
  function->static_shared = static_shared_of(module->path, name);
  std::vector<char> signature(1 << 14);
  reinterpret_cast<void (*)(char*, std::size_t)>(symbol("signature_"))(signature.data(), signature.size());
  function->arguments = sizes_of(signature.data());
  *handle = keep(machine().functions, std::move(function));
  return SUCCESS;
}

int cuFuncSetAttribute(void* handle, int attribute, int value) {
  CURRENT(context);
  Function* function = lookup(machine().functions, handle);
  if (function == nullptr || function->context != context) return fault(INVALID_HANDLE, "no function of this device");
  if (attribute == 9 && value >= -1 && value <= 100) return SUCCESS;  // a hint
  if (attribute != 8) return fault(INVALID_VALUE, "this attribute of a function is not emulated");
  if (value < 0 || value + function->static_shared > settings().shared)
    return fault(INVALID_VALUE, function->name + ": " + std::to_string(value) + " bytes of dynamic shared memory beside " +
                                    std::to_string(function->static_shared) + " are more than a block may have");
  function->dynamic_shared = value;
  return SUCCESS;
}

int cuFuncGetAttribute(int* value, int attribute, void* handle) {
  CURRENT(context);
  const Function* function = lookup(machine().functions, handle);
  if (function == nullptr || function->context != context) return fault(INVALID_HANDLE, "no function of this device");
  switch (attribute) {
    case 0:
      *value = std::min(function->bound, largest_block);
      return SUCCESS;
    case 1:
      *value = function->static_shared;
      return SUCCESS;
    case 8:
      *value = function->dynamic_shared;
      return SUCCESS;
    default:
      return fault(INVALID_VALUE, "this attribute of a function is not emulated");
  }
}

int cuLaunchKernel(void* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                   unsigned shared, void* stream_handle, void** values, void** extra) {
  CURRENT(context);
  STREAM(stream, stream_handle);
  const auto found = machine().functions.find(handle);
  if (found == machine().functions.end()) return fault(INVALID_HANDLE, "not a function");
  const std::shared_ptr<Function> f = found->second;
  if (f->context != context) return fault(INVALID_HANDLE, f->name + " was loaded on another device than the current one");
  if (extra != nullptr) return fault(NOT_SUPPORTED, "arguments in `extra` are not emulated");
  LaunchRecord record{f->source,      f->name, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, 0, context->device,
                      stream->number, false};
  if (const int status = check_launch(*f, record); status != SUCCESS) return status;
  std::vector<unsigned char> copied;
  for (std::size_t k = 0; k < f->arguments.size(); ++k) {
    const auto* from = static_cast<const unsigned char*>(values[k]);
    copied.insert(copied.end(), from, from + f->arguments[k]);
  }
  record.bytes = copied.size();
  record.graph = stream->capture != nullptr;
  return enqueue(*stream, {[f, copied, record] { run_kernel(*f, copied, record); }, nullptr, nullptr, 0});
}

}  // extern "C"
#pragma GCC visibility pop
