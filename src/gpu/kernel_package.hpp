// Kernels that were compiled before they were installed: one file beside their sources, made by package_kernels.cpp. A build has none
// unless it is asked for.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpu/kernel.hpp"

namespace dpa2::gpu {

/// Stands for what an image was made of: the text of the source and of all that it includes, the options, the architecture. An image with
/// another key is never used. Throws invalid_input where the source cannot be read.
std::string kernel_key(const std::string& folder, const std::string& source, const Defines& defines, const std::string& architecture);

/// Files that a source includes, below `folder`, and itself: in the order in which they are first seen.
std::vector<std::string> files_of(const std::string& folder, const std::string& source);

/// "a.cu -Dname=value ...", for messages.
std::string described(const std::string& source, const Defines& defines);

/// What a driver can load.
struct Image {
  std::string architecture;  ///< "sm_80": machine code for that one alone; "compute_80": PTX for that one and later ones
  std::string bytes;
};

/// An open package. Any thread.
class KernelPackage {
 public:
  static constexpr const char* name = "kernels.bin";

  /// In the file: blocks of images, each packed as one (packing.hpp). In front of them text, with a digest.
  struct Block {
    std::uint64_t offset = 0, packed = 0, bytes = 0;
    std::string digest;  ///< of what is packed
  };
  struct Entry {
    std::string key, architecture, source;
    Defines defines;
    std::size_t block = 0, offset = 0, bytes = 0;
  };

  /// Throws model_file_error: not such a file, or damaged.
  explicit KernelPackage(std::string path);

  [[nodiscard]] const std::string& path() const { return path_; }
  /// Of NVRTC, "12.0": a driver of an older CUDA refuses its PTX.
  [[nodiscard]] const std::string& compiler() const { return compiler_; }
  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }

  /// For a device of that capability, best first; `why` is told of what is missing. Throws model_file_error where the file is damaged.
  [[nodiscard]] std::vector<Image> images(const std::string& folder, const std::string& source, const Defines& defines, int capability,
                                          std::string& why) const;
  [[nodiscard]] Image read(const Entry& entry) const;

 private:
  std::string path_, compiler_;
  std::uint64_t begin_ = 0;  // of the blocks
  std::vector<Block> blocks_;
  std::vector<Entry> entries_;
};

/// The package that belongs to kernels in `folder`: that which $DPA2_CUDA_KERNELS names (off: none), else kernels.bin there. None where
/// there is none, or where it cannot be used: `why` says so.
struct FoundPackage {
  std::shared_ptr<const KernelPackage> package;
  std::string why;
};
FoundPackage find_package(const std::string& folder);

}  // namespace dpa2::gpu
