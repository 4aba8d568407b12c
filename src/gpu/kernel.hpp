// Kernels of src/cuda by name: what they are compiled with, and a handle to launch them by.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace dpa2::gpu {

/// -Dname=value, in this order.
using Defines = std::vector<std::pair<std::string, std::string>>;

/// A kernel of src/cuda/<source> as a model needs it.
struct NeededKernel {
  std::string source, name;
  Defines defines;
};

/// The precision of a model goes first, unless it is among them.
inline Defines with_precision(const Defines& defines, const std::string& real) {
  Defines all;
  const auto is_real = [](const auto& define) { return define.first == "real"; };
  if (std::none_of(defines.begin(), defines.end(), is_real)) all.emplace_back("real", real);
  all.insert(all.end(), defines.begin(), defines.end());
  return all;
}

/// A compiled kernel on one device: CUfunction of the driver. Whoever made it keeps it alive as long as the engine.
struct Function {
  void* handle = nullptr;
  const char* name = "";  ///< for messages
};

}  // namespace dpa2::gpu
