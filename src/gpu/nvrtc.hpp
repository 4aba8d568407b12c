// Kernels compiled where they run, by NVRTC: what a host without CuPy uses.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gpu/device.hpp"
#include "gpu/kernel.hpp"

namespace dpa2::gpu {

/// The folder that `#include` starts from, with the kernels in cuda/: $DPA2_CUDA_SOURCES, else that of the installed package or library
/// which this code is part of. Throws invalid_input where there is none.
std::string source_folder();

/// The options of every compiler of the kernels, but for the architecture (`-arch=sm_75`): NVRTC here, CuPy and the checks of resources.
std::vector<std::string> compile_options(const Defines& defines, const std::string& folder);

/// The text of a kernel source of `folder`. Throws invalid_input.
std::string read_source(const std::string& folder, const std::string& source);

/// Compiles for one device, and keeps what is loaded there. Any thread; the device's context must be current. What has been compiled is
/// shared by all compilers of the process.
class Compiler {
 public:
  explicit Compiler(std::shared_ptr<const Device> device, std::string folder = source_folder());
  ~Compiler();
  Compiler(const Compiler&) = delete;
  Compiler& operator=(const Compiler&) = delete;

  /// CUfunction of kernel `name` of cuda/<source>, for Hooks::function. Throws internal_error with the compiler's words.
  void* function(const std::string& source, const std::string& name, const Defines& defines);

 private:
  std::shared_ptr<const Device> device_;
  std::string folder_;
  std::mutex mutex_;
  std::map<std::pair<std::string, Defines>, Handle> modules_;
};

}  // namespace dpa2::gpu
