// The pair features g2 before every layer: which are kept, where they live, and until when they are there.
//
// Those before the first layer are made from the edges whenever they are asked for. Of the others, with a backward to come,
// those before every `keep`-th layer are kept. What is not kept lies in one array that is shared: by the g2 of one layer after
// the other on the way up, each in the place of the one before, and by their gradient on the way down. What is wanted of it when
// the gradient has come is computed again from the kept ones, to the same bits.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/arena.hpp"
#include "graph/buffer.hpp"
#include "graph/extent.hpp"

namespace dpa2 {

template <class T>
class PairFeatures {
 public:
  /// f(array, elements, copies) for every array.
  template <class F>
  void table(const Extent& e, F f) {
    const Count size = e.nedge_repformer * e.n2;
    f(kept_, size, e.gradient ? (e.nlayers - 1) / e.keep : 0);
    f(shared_, size, 1);
  }
  /// A new evaluation, for which the arrays of the table are made: nothing is there yet.
  void begin(const Extent& e) noexcept {
    n2_ = e.n2;
    nlayers_ = e.nlayers;
    keep_ = e.keep;
    gradient_ = e.gradient;
    held_ = nothing;
  }
  /// The pass over a layer begins: of the centres that it has not come to yet, the shared array holds the g2 before it.
  void enter(int layer) noexcept { held_ = layer; }
  /// The shared array holds gradients from now on.
  void leave() noexcept { held_ = nothing; }

  enum class Source { edges, kept, shared, again };
  /// Where the g2 before a layer come from now.
  [[nodiscard]] Source source(int layer) const noexcept {
    if (layer == 0) return Source::edges;
    if (is_kept(layer)) return Source::kept;
    return held_ == layer ? Source::shared : Source::again;
  }

  /// Where the g2 before a layer, not the first, go: (n, n2) of the centre whose edges begin at `start`.
  T* place(int layer, std::int64_t start) noexcept { return (is_kept(layer) ? kept_[layer / keep_ - 1] : shared_.data()) + start * n2_; }
  /// The gradient (n, n2) of the g2 of the centre whose edges begin at `start`: it takes the shared array.
  T* gradient(std::int64_t start) noexcept { return shared_.data() + start * n2_; }

  /// The g2 (n, n2) before a layer, of the n edges that begin at `start`; in memory of the arena where there is none of their own.
  ///   first(g2)               writes those before the first layer
  ///   next(layer, g2, out)    those after a layer from those before
  template <class First, class Next>
  const T* at(int layer, std::int64_t start, int n, Arena& arena, First first, Next next) {
    const long size = static_cast<long>(n) * n2_;
    switch (source(layer)) {
      case Source::kept:
        return place(layer, start);
      case Source::shared: {
        const T* g2 = place(layer, start);
        if (!gradient_ || layer + 1 < nlayers_) return g2;
        T* copy = arena.take<T>(size);  // the last layer's backward follows centre by centre: the gradient is about to take the place
        std::copy_n(g2, size, copy);
        return copy;
      }
      case Source::edges:
      case Source::again:
        break;
    }
    int from = layer - layer % keep_;  // kept, or made from the edges
    const T* g2 = from == 0 ? nullptr : place(from, start);
    if (from == 0) {
      T* made = arena.take<T>(size);
      first(made);
      g2 = made;
    }
    for (; from < layer; ++from) {
      T* out = arena.take<T>(size);
      next(from, g2, out);
      g2 = out;
    }
    return g2;
  }

 private:
  static constexpr int nothing = -1;
  [[nodiscard]] bool is_kept(int layer) const noexcept { return gradient_ && layer % keep_ == 0; }

  int n2_ = 0, nlayers_ = 0, keep_ = 1;
  bool gradient_ = false;
  int held_ = nothing;  ///< the layer whose g2 the shared array holds
  Layers<T> kept_;      ///< [(nlayers - 1) / keep] (nedge_repformer, n2): before the layers keep, 2 keep, ...
  Buffer<T> shared_;    ///< (nedge_repformer, n2)
};

}  // namespace dpa2
