// Embedding networks on a device: their layout, and the form of a kernel that evaluates one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "cuda/embedding_net.hpp"
#include "fold/embedding_net.hpp"
#include "gpu/activation.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

/// A network in the layout of its kernels, and what they are compiled with for it.
template <class T>
struct DeviceNetwork {
  cuda::EmbeddingNetArgs<T> args{};
  Defines defines;
  [[nodiscard]] bool gated() const { return args.gate != nullptr; }
  [[nodiscard]] bool narrow() const { return std::max(args.even, args.odd) <= cuda::narrow_width; }
};

/// `gate_switch`: in strip mode the types' network goes with the switch.
template <class T>
DeviceNetwork<T> upload_network(const FoldedEmbeddingNet& net, bool gate_switch, Loader& loader);

/// How many scalars a block takes at a time, and where the values of the channels are: what fits into the shared memory that every
/// device has. A block is one centre, or with work in global memory one after the other.
struct EmbeddingForm {
  static constexpr std::size_t shared_limit = 48 * 1024;
  static constexpr std::int64_t scratch_limit = 64 << 20;  // bytes, unless these are too few blocks
  static constexpr std::int64_t fewest_blocks = 16, most_blocks = 512;

  int lanes = 0;
  bool global = false;
  std::size_t shared = 0;
  std::int64_t work = 0;  ///< numbers of a block

  /// small(lanes): bytes in front of the channels; numbers(lanes): of the channels.
  template <class T, class Small, class Numbers>
  static EmbeddingForm choose(const DeviceNetwork<T>& net, Small small, Numbers numbers) {
    constexpr int size = sizeof(T);
    EmbeddingForm form;
    for (form.lanes = cuda::most_lanes(net.narrow(), size); form.lanes >= cuda::least_lanes; form.lanes /= 2) {
      form.work = numbers(form.lanes);
      const std::int64_t bytes = small(form.lanes) + form.work * size;
      form.shared = static_cast<std::size_t>(bytes);
      if (form.shared <= shared_limit) return form;
    }
    form.global = true;
    form.lanes = cuda::most_lanes(false, size);
    form.work = numbers(form.lanes);
    form.shared = static_cast<std::size_t>(small(form.lanes));
    return form;
  }

  template <class T>
  [[nodiscard]] Defines defines(const DeviceNetwork<T>& net) const {
    Defines all{{"LANES", std::to_string(lanes)}};
    if (global) all.emplace_back("GLOBAL_WORK", "1");
    if (net.narrow() && !global) all.emplace_back("NARROW", "1");
    if (net.gated()) all.emplace_back("GATED", "1");
    all.insert(all.end(), net.defines.begin(), net.defines.end());
    return all;
  }

  template <class T>
  [[nodiscard]] std::int64_t blocks(std::int64_t centres) const {
    if (!global) return centres;
    const std::int64_t fit = scratch_limit / (work * static_cast<std::int64_t>(sizeof(T)));
    return std::min(centres, std::clamp(fit, fewest_blocks, most_blocks));
  }

  /// Starts a kernel of this form; args.scratch becomes what it needs.
  template <class T, class Args>
  void launch(Queue& queue, const Function& kernel, std::int64_t centres, Args args) const {
    const std::int64_t count = blocks<T>(centres);
    args.scratch = global ? queue.take<T>("embedding scratch", count * work) : nullptr;
    queue.launch(kernel, count, cuda::embedding_threads, shared, args);
    queue.release(args.scratch);
  }
};

}  // namespace dpa2::gpu
