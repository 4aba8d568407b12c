// Embedding networks as series on a device (theory S6): their layout, and the form of a kernel that evaluates one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "cuda/series.hpp"
#include "fold/embedding_net.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

/// A network's series in the layout of its kernels; none where the network has none. `gate`: that of the network, or what takes its place.
/// `gate_switch`: it goes with the switch.
template <class T>
std::optional<cuda::SeriesArgs<T>> upload_series(const FoldedEmbeddingNet& net, const Matrix& gate, bool gate_switch, Loader& loader);

/// A kernel whose warps have a centre each, and how many of them are a block: as many as fit into the shared memory of every device.
struct SeriesKernel {
  static constexpr std::int64_t shared_limit = 48 * 1024;

  Function function;
  int warps = 0;
  std::size_t shared = 0;

  /// `bytes`: of a warp. False: too many.
  static bool fits(std::int64_t bytes) { return bytes <= shared_limit; }

  /// `defines`: of the network.
  static SeriesKernel make(const char* source, const char* name, std::int64_t bytes, bool gated, Defines defines, Loader& loader) {
    SeriesKernel kernel;
    kernel.warps = static_cast<int>(std::min<std::int64_t>(cuda::series_most_warps, shared_limit / bytes));
    kernel.shared = static_cast<std::size_t>(kernel.warps * bytes);
    defines.emplace_back("WARPS", std::to_string(kernel.warps));
    if (gated) defines.emplace_back("GATED", "1");
    kernel.function = loader.function(source, name, defines);
    return kernel;
  }

  template <class Args>
  void launch(Queue& queue, std::int64_t centres, const Args& args) const {
    queue.launch(function, blocks_of(centres, warps), 32 * warps, shared, args);
  }
};

}  // namespace dpa2::gpu
