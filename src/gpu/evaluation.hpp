// An evaluation between what goes in and what comes out: which buffers it has, and what is launched in which order.
#pragma once

#include <memory>

#include "fold/folded.hpp"
#include "gpu/engine.hpp"
#include "gpu/frame.hpp"
#include "gpu/halo.hpp"
#include "gpu/loader.hpp"
#include "gpu/program.hpp"
#include "gpu/queue.hpp"
#include "gpu/search.hpp"
#include "gpu/stages.hpp"
#include "schema/config.hpp"

namespace dpa2::gpu {

/// Of a model; the same on every device.
template <class T>
class Evaluation {
 public:
  Evaluation(const Config& config, const Folded& folded, Loader& loader);

  [[nodiscard]] const Config& config() const noexcept { return config_; }
  [[nodiscard]] const Search& search() const noexcept { return search_; }
  [[nodiscard]] const HeadShape& shape() const { return stages_->shape(); }
  /// Numbers of an atom's value, and of what has forces.
  [[nodiscard]] std::size_t width() const { return static_cast<std::size_t>(shape().width); }
  [[nodiscard]] std::size_t components(const Request& request) const {
    return request.vjp ? 1 : static_cast<std::size_t>(shape().components);
  }
  /// Throws invalid_input where these are more atoms than kernels can number.
  void check_size(std::int64_t frames, std::int64_t atoms) const;

  /// The layouts and the plan of `p`, whose key and capacity are given. `whole`: with everything that follows the lists. Of the arrays it
  /// matters which are null. `ghosts`: what stands for an exchange that has buffers of its own, or null.
  void plan(Program& p, const Input& input, const Request& request, bool whole, GhostRows<T>* ghosts) const;
  /// In the same order as planned. in, out: blocks of the layouts.
  Frame enqueue_search(Queue& queue, const Program& p, void* in, void* out) const;
  [[nodiscard]] HaloLists halo_lists(const Program& p, void* in) const;
  void enqueue_network(Queue& queue, const Program& p, const Frame& frame, const Request& request, void* in, void* out,
                       GhostRows<T>* ghosts) const;

  /// Planner::memory, without the constants.
  [[nodiscard]] MemoryUse memory(const Expected& expected) const;

 private:
  Config config_;
  Search search_;
  std::unique_ptr<const Stages<T>> stages_;
};

extern template class Evaluation<float>;
extern template class Evaluation<double>;

}  // namespace dpa2::gpu
