// Kernels of src/cuda by name: what they are compiled with, and a handle to launch them by.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace dpa2::gpu {

/// -Dname=value, in this order.
using Defines = std::vector<std::pair<std::string, std::string>>;

/// A compiled kernel on one device: CUfunction of the driver. Whoever made it keeps it alive as long as the engine.
struct Function {
  void* handle = nullptr;
  const char* name = "";  ///< for messages
};

}  // namespace dpa2::gpu
