// From the environments of the atoms to the descriptors of the first blocks and the edges of the repformer, and back to the gradients of
// the edge vectors (theory 5, 6, 8).
#pragma once

#include <optional>

#include "cuda/g2_embed.hpp"
#include "cuda/repinit_series.hpp"
#include "cuda/three_body_series.hpp"
#include "fold/folded.hpp"
#include "gpu/embedding.hpp"
#include "gpu/frame.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"
#include "gpu/series.hpp"
#include "schema/config.hpp"

namespace dpa2::gpu {

/// What the first blocks leave; whoever uses it last releases it.
template <class T>
struct EntryState {
  T* D = nullptr;   ///< (centres, width) descriptors
  T* M = nullptr;   ///< (centres, ng, 4) moments for the backward, or null
  T* g2 = nullptr;  ///< (edges of the repformer, n2)
  T* h2 = nullptr;  ///< (edges, 3)
  T* w = nullptr;   ///< (edges) weights in sums
};

template <class T>
class Entry {
 public:
  Entry(const FoldedDescriptor& folded, const Config& config, Loader& loader);

  /// Takes and fills the buffers of `state`; M only for a gradient.
  void forward(Queue& queue, const Frame& frame, EntryState<T>& state, bool gradient) const;
  /// gamma (master edges, 3) =: the gradient of every edge vector, given those of D (centres, width), and of g2, h2 and w.
  void backward(Queue& queue, const Frame& frame, const EntryState<T>& state, const T* dD, const T* dg2, const T* dh2, const T* dw,
                T* gamma) const;

  /// Of a row of D.
  [[nodiscard]] int width() const noexcept { return width_; }

 private:
  /// A kernel of a network, and how it is launched.
  struct Kernel {
    EmbeddingForm form;
    Function function;
  };
  /// Kernels that take series in place of a network, but for what is outside of their range.
  struct Series {
    cuda::SeriesArgs<T> args;
    SeriesKernel forward, backward;
    int room = 0, words = 0;  // of the three-body block
  };
  struct ThreeBody {
    DeviceNetwork<T> net;
    cuda::StatisticsArgs<T> statistics;
    const T* pad_v = nullptr;
    T inv_nsel_squared = 0;
    int n3 = 0;
    std::optional<Series> series;
    Kernel forward, backward;  ///< without
  };

  template <class Args>
  void set_repinit(Args& args, const Frame& frame) const;
  template <class Args>
  void set_three_body(Args& args, const Frame& frame) const;
  template <class Args>
  void set_three_body_series(Args& args, const Frame& frame) const;
  template <class Args>
  void set_g2_embed(Args& args, const Frame& frame) const;

  DeviceNetwork<T> net_;
  cuda::StatisticsArgs<T> repinit_statistics_, repformer_statistics_;
  const T *pad_R_ = nullptr, *pad_G_ = nullptr;
  T inv_nsel_ = 0;
  int ng_ = 0, axis_ = 0, ntypes_ = 0, width_ = 0, n2_ = 0;
  bool one_side_ = false, smooth_ = false;
  std::optional<Series> series_;
  Kernel repinit_, repinit_backward_;  // without
  std::optional<ThreeBody> three_;
  const T *weight_ = nullptr, *bias_ = nullptr;  // of g2
  T direct_ = 0;
  Function g2_embed_, g2_embed_backward_;
};

extern template class Entry<float>;
extern template class Entry<double>;

}  // namespace dpa2::gpu
