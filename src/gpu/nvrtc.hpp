// Kernels of a host without CuPy: those of the package, and all others compiled where they run, by NVRTC.
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

/// PTX for "compute_80" and later ones, or machine code for "sm_80" alone, by NVRTC. Throws invalid_input where that is not there, and
/// internal_error with its words.
std::string compile_kernels(const std::string& folder, const std::string& source, const Defines& defines, const std::string& architecture);

/// Of NVRTC, such as "12.0".
std::string compiler_version();

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
  [[nodiscard]] Handle load(const std::string& source, const Defines& defines) const;

  std::shared_ptr<const Device> device_;
  std::string folder_;
  std::mutex mutex_;
  std::map<std::pair<std::string, Defines>, Handle> modules_;
};

}  // namespace dpa2::gpu
