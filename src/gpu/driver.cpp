#include "gpu/driver.hpp"

#include <dlfcn.h>

#include <cstdlib>

namespace dpa2::gpu {

namespace {

constexpr int oldest = 12000;
constexpr const char* instead =
    "install the NVIDIA driver of your card, version 525 or later (CUDA 12), and look with `nvidia-smi` whether it runs, or load the "
    "model with device=\"cpu\"";

std::string version_text(int version) { return text(version / 1000, '.', version % 1000 / 10); }

const char* words_of(int (*ask)(int, const char**), int status) {
  const char* found = nullptr;
  return ask != nullptr && ask(status, &found) == cu::success && found != nullptr ? found : "unknown error";
}

// The table while it is not yet complete enough for driver_error.
std::string status_text(const Driver& table, int status) {
  return text(words_of(table.error_name, status), " (", status, "): ", words_of(table.error_string, status));
}

Driver load() {
  const char* given = std::getenv("DPA2_CUDA_DRIVER");
  const char* name = given != nullptr && *given != '\0' ? given : "libcuda.so.1";
  void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw invalid_input("a GPU needs NVIDIA's driver, whose library cannot be loaded (", dlerror(), "): ", instead);
  Driver table;
  const char* missing = nullptr;
  const auto find = [&](auto& member, const char* symbol) {
    void* at = dlsym(library, symbol);
    if (at == nullptr && missing == nullptr) missing = symbol;
    member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(at);
  };
#define DPA2_FIND(member, symbol, parameters) find(table.member, #symbol);
  DPA2_DRIVER(DPA2_FIND)
#undef DPA2_FIND
  if (table.version != nullptr) table.version(&table.cuda);
  if (missing != nullptr || table.cuda < oldest)
    throw invalid_input(
        "NVIDIA's driver is too old for dpa2: ",
        missing != nullptr ? text(name, " has no ", missing) : text("it knows CUDA ", version_text(table.cuda), ", CUDA 12.0 is needed"),
        "; ", instead);
  const int status = table.init(0);
  if (status != cu::success) throw invalid_input("NVIDIA's driver does not start, ", status_text(table, status), "; ", instead);
  return table;
}

// After these the driver refuses everything that comes, until the process ends.
bool is_sticky(int status) {
  switch (status) {
    case 4:    // CUDA_ERROR_DEINITIALIZED
    case 214:  // CUDA_ERROR_ECC_UNCORRECTABLE
    case 220:  // CUDA_ERROR_NVLINK_UNCORRECTABLE
    case 226:  // CUDA_ERROR_CONTAINED
    case 700:  // CUDA_ERROR_ILLEGAL_ADDRESS
    case 702:  // CUDA_ERROR_LAUNCH_TIMEOUT
    case 709:  // CUDA_ERROR_CONTEXT_IS_DESTROYED
    case 710:  // CUDA_ERROR_ASSERT
    case 714:  // CUDA_ERROR_HARDWARE_STACK_ERROR
    case 715:  // CUDA_ERROR_ILLEGAL_INSTRUCTION
    case 716:  // CUDA_ERROR_MISALIGNED_ADDRESS
    case 717:  // CUDA_ERROR_INVALID_ADDRESS_SPACE
    case 718:  // CUDA_ERROR_INVALID_PC
    case 719:  // CUDA_ERROR_LAUNCH_FAILED
      return true;
    default:
      return false;
  }
}

}  // namespace

const Driver& driver() {
  static const Driver table = load();  // where it fails, the next call tries again
  return table;
}

Error driver_error(int status, const std::string& doing) {
  const std::string what = text("CUDA, ", doing, ": ", status_text(driver(), status));
  if (status == cu::no_memory) return out_of_memory(what);
  if (status >= 900 && status <= 908)
    return invalid_input(what,
                         "; while a stream is captured into a graph nothing can be allocated, compiled or waited for: evaluate once "
                         "before the capture, with arrays of the same sizes");
  if (status == 46) return invalid_input(what, "; another process has the device for itself");  // CUDA_ERROR_DEVICE_UNAVAILABLE
  if (status == 3)                                                                              // CUDA_ERROR_NOT_INITIALIZED
    return invalid_input(what,
                         "; a process that was forked from one which had used the GPU cannot use it: start it anew (in Python's "
                         "multiprocessing with the method \"spawn\")");
  if (is_sticky(status)) return internal_error(what, "; the device cannot be used in this process any more, which must be started again");
  return internal_error(what);
}

bool separate_buffers() {
  const char* given = std::getenv("DPA2_GPU_SEPARATE_BUFFERS");
  return given != nullptr && *given != '\0' && *given != '0';
}

}  // namespace dpa2::gpu
