// The CUDA driver as a table of functions, loaded when it is first asked for: nothing of CUDA is needed to build or to start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "error.hpp"

namespace dpa2::gpu {

/// CUdeviceptr; and handles of the driver (CUcontext, CUstream, CUevent, CUmodule, CUfunction, CUgraph, CUgraphExec).
using Address = unsigned long long;
using Handle = void*;

/// Numbers that the driver's headers give names to.
namespace cu {
constexpr int success = 0, no_memory = 2, not_ready = 600;
// of images: not one at all, none for this device, PTX with a mistake, no translator of PTX, PTX that is too new, none may be translated
constexpr int invalid_image = 200, no_binary = 209, invalid_ptx = 218, no_translator = 221, unsupported_ptx = 222, no_translation = 223;
// attributes of a device
constexpr int multiprocessors = 16, major = 75, minor = 76, shared_optin = 97;
// attributes of a function
constexpr int static_shared = 1, max_dynamic_shared = 8, carveout = 9;
constexpr unsigned stream_non_blocking = 1, event_without_timing = 2, host_portable = 1;
constexpr int capture_thread_local = 1;
}  // namespace cu

// What is used of the driver: the member, the name that drivers of CUDA 12 and 13 export, and the parameters.
#define DPA2_DRIVER(CALL)                                                                                                         \
  CALL(init, cuInit, (unsigned flags))                                                                                            \
  CALL(version, cuDriverGetVersion, (int* version))                                                                               \
  CALL(error_name, cuGetErrorName, (int status, const char** name))                                                               \
  CALL(error_string, cuGetErrorString, (int status, const char** words))                                                          \
  CALL(device_count, cuDeviceGetCount, (int* count))                                                                              \
  CALL(device_get, cuDeviceGet, (int* device, int number))                                                                        \
  CALL(device_name, cuDeviceGetName, (char* name, int bytes, int device))                                                         \
  CALL(device_attribute, cuDeviceGetAttribute, (int* value, int attribute, int device))                                           \
  CALL(context_retain, cuDevicePrimaryCtxRetain, (Handle * context, int device))                                                  \
  CALL(context_release, cuDevicePrimaryCtxRelease_v2, (int device))                                                               \
  CALL(context_push, cuCtxPushCurrent_v2, (Handle context))                                                                       \
  CALL(context_pop, cuCtxPopCurrent_v2, (Handle * context))                                                                       \
  CALL(memory_info, cuMemGetInfo_v2, (std::size_t* free, std::size_t* total))                                                     \
  CALL(memory_new, cuMemAlloc_v2, (Address * at, std::size_t bytes))                                                              \
  CALL(memory_free, cuMemFree_v2, (Address at))                                                                                   \
  CALL(pinned_new, cuMemHostAlloc, (void** at, std::size_t bytes, unsigned flags))                                                \
  CALL(pinned_free, cuMemFreeHost, (void* at))                                                                                    \
  CALL(copy_in, cuMemcpyHtoDAsync_v2, (Address to, const void* from, std::size_t bytes, Handle stream))                           \
  CALL(copy_out, cuMemcpyDtoHAsync_v2, (void* to, Address from, std::size_t bytes, Handle stream))                                \
  CALL(copy_within, cuMemcpyDtoDAsync_v2, (Address to, Address from, std::size_t bytes, Handle stream))                           \
  CALL(fill_bytes, cuMemsetD8Async, (Address at, unsigned char value, std::size_t count, Handle stream))                          \
  CALL(fill_words, cuMemsetD32Async, (Address at, unsigned value, std::size_t count, Handle stream))                              \
  CALL(stream_new, cuStreamCreate, (Handle * stream, unsigned flags))                                                             \
  CALL(stream_free, cuStreamDestroy_v2, (Handle stream))                                                                          \
  CALL(stream_wait, cuStreamSynchronize, (Handle stream))                                                                         \
  CALL(stream_wait_event, cuStreamWaitEvent, (Handle stream, Handle event, unsigned flags))                                       \
  CALL(stream_capturing, cuStreamIsCapturing, (Handle stream, int* status))                                                       \
  CALL(event_new, cuEventCreate, (Handle * event, unsigned flags))                                                                \
  CALL(event_free, cuEventDestroy_v2, (Handle event))                                                                             \
  CALL(event_record, cuEventRecord, (Handle event, Handle stream))                                                                \
  CALL(event_query, cuEventQuery, (Handle event))                                                                                 \
  CALL(event_wait, cuEventSynchronize, (Handle event))                                                                            \
  CALL(module_load, cuModuleLoadData, (Handle * module, const void* image))                                                       \
  CALL(module_free, cuModuleUnload, (Handle module))                                                                              \
  CALL(module_function, cuModuleGetFunction, (Handle * function, Handle module, const char* name))                                \
  CALL(function_set, cuFuncSetAttribute, (Handle function, int attribute, int value))                                             \
  CALL(function_get, cuFuncGetAttribute, (int* value, int attribute, Handle function))                                            \
  CALL(launch, cuLaunchKernel,                                                                                                    \
       (Handle function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z, \
        unsigned shared, Handle stream, void** values, void** extra))                                                             \
  CALL(capture_begin, cuStreamBeginCapture_v2, (Handle stream, int mode))                                                         \
  CALL(capture_end, cuStreamEndCapture, (Handle stream, Handle * graph))                                                          \
  CALL(graph_instantiate, cuGraphInstantiateWithFlags, (Handle * executable, Handle graph, unsigned long long flags))             \
  CALL(graph_launch, cuGraphLaunch, (Handle executable, Handle stream))                                                           \
  CALL(graph_executable_free, cuGraphExecDestroy, (Handle executable))                                                            \
  CALL(graph_free, cuGraphDestroy, (Handle graph))

/// Every member returns a status: `check` it.
struct Driver {
#define DPA2_MEMBER(member, symbol, parameters) int(*member) parameters = nullptr;
  DPA2_DRIVER(DPA2_MEMBER)
#undef DPA2_MEMBER
  int cuda = 0;  ///< newest CUDA that it knows, as 12040 for 12.4
};

/// The library that $DPA2_CUDA_DRIVER names, else libcuda.so.1, initialised. Throws invalid_input where there is none that can be used.
const Driver& driver();

/// The error for a status of the driver, in its own words; `doing` says at what.
[[nodiscard]] Error driver_error(int status, const std::string& doing);

inline void check(int status, const char* doing) {
  if (status != cu::success) throw driver_error(status, doing);
}

/// $DPA2_GPU_SEPARATE_BUFFERS: every buffer is an allocation of its own, so that tools that watch memory see its end.
bool separate_buffers();

inline Address address(const void* at) { return reinterpret_cast<std::uintptr_t>(at); }
inline void* pointer(Address at) { return reinterpret_cast<void*>(static_cast<std::uintptr_t>(at)); }

}  // namespace dpa2::gpu
