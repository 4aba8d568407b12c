// What an evaluation does, in order: launches on one stream, in buffers that are planned before anything runs.
//
// The code of an evaluation runs twice for a new size. The first time it is planned: `take` and `release` say which buffers live
// together, nothing is launched, and the pointers are not to be used. Then one slab is made and the same calls give its places. So the
// order of calls must depend on nothing but the model, the extents of the frame and what is asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "error.hpp"
#include "gpu/kernel.hpp"

namespace dpa2::gpu {

class Stream;

class Queue {
 public:
  virtual ~Queue() = default;

  /// Starts a kernel whose one parameter is a struct of src/cuda. No blocks: nothing to do. `shared`: bytes of dynamic shared memory.
  template <class Args>
  void launch(const Function& kernel, std::int64_t blocks, int threads, std::size_t shared, const Args& args) {
    static_assert(std::is_trivially_copyable_v<Args> && std::is_standard_layout_v<Args>, "arguments are passed as bytes");
    if (blocks > std::numeric_limits<int>::max()) throw internal_error("the kernel ", kernel.name, " has ", blocks, " blocks");
    if (blocks > 0) launch_bytes(kernel, blocks, threads, shared, &args, sizeof(Args));
  }
  /// Sets bytes of the device to zero.
  virtual void clear(void* at, std::size_t bytes) = 0;

  /// A buffer of the device, undefined contents; valid until it is released, or to the end of the evaluation. `name` for messages.
  template <class T>
  T* take(const char* name, std::int64_t count) {
    return static_cast<T*>(take_bytes(name, static_cast<std::size_t>(count) * sizeof(T)));
  }
  /// What has been queued may still use it, what comes later may not. Null is nothing.
  template <class... T>
  void release(T*... buffers) {
    (release_bytes(const_cast<void*>(static_cast<const void*>(buffers))), ...);
  }

 protected:
  virtual void launch_bytes(const Function& kernel, std::int64_t blocks, int threads, std::size_t shared, const void* args,
                            std::size_t bytes) = 0;
  virtual void* take_bytes(const char* name, std::size_t bytes) = 0;
  virtual void release_bytes(void* at) = 0;
};

/// Blocks of `each` for `count` items.
constexpr std::int64_t blocks_of(std::int64_t count, int each) { return (count + each - 1) / each; }

}  // namespace dpa2::gpu
