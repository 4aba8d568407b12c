// Products of rows with constant matrices, and what is made of nothing else: the entry to g1 (theory 7), queries, single projections.
#pragma once

#include <cstdint>
#include <vector>

#include "cuda/product.hpp"
#include "fold/folded.hpp"
#include "gpu/frame.hpp"
#include "gpu/loader.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

/// The matrix as the kernels read it (cuda/product.hpp).
std::vector<double> packed(const Matrix& m);

/// A kernel made of cuda/product.cuh: large tiles, and small ones where large ones would leave most of the device idle.
class TiledKernel {
 public:
  TiledKernel(Loader& loader, const char* source, const char* name, const Defines& defines, int bytes_of_scalar);

  /// `across`: tiles next to each other in all results.
  template <class Args>
  void launch(Queue& queue, int rows, std::int64_t across, const Args& args) const {
    const std::int64_t large = blocks_of(rows, cuda::product_rows(each_)) * across;
    const std::int64_t small = blocks_of(rows, cuda::product_rows(cuda::product_each_small)) * across;
    if (large >= enough_blocks_)
      queue.launch(large_, large, cuda::product_threads, 0, args);
    else
      queue.launch(small_, small, cuda::product_threads, 0, args);
  }

 private:
  int each_;
  std::int64_t enough_blocks_;  // two for each multiprocessor
  Function large_, small_;
};

/// A constant matrix and its transpose.
template <class T>
struct Weights2 {
  const T* w = nullptr;   ///< (in, out) packed
  const T* wt = nullptr;  ///< (out, in) packed
  int in = 0, out = 0;
};
template <class T>
Weights2<T> upload_both(const Matrix& m, Loader& loader) {
  if (m.empty()) return {};
  return {loader.upload<T>(packed(m)), loader.upload<T>(packed(transposed(m))), m.rows, m.cols};
}

template <class T>
class Product {
 public:
  Product(const FoldedActivation& act, Loader& loader);

  /// out (rows, w.out) = a (rows, w.in) w
  void forward(Queue& queue, int rows, T* out, const T* a, const Weights2<T>& w) const;
  /// da (rows, w.in) = or += dout (rows, w.out) w^T
  void backward(Queue& queue, int rows, T* da, const T* dout, const Weights2<T>& w, bool accumulate) const;
  void run(Queue& queue, const cuda::ProductArgs<T>& args) const { kernel_.launch(queue, args.rows, cuda::product_tiles(args.n), args); }

 private:
  TiledKernel kernel_;
};

/// From the descriptors of the first blocks to the first g1.
template <class T>
class EntryNodes {
 public:
  EntryNodes(const FoldedDescriptor& folded, const Config& config, Loader& loader);

  /// g1 (centres, n1) = phi(D shape + type term), D (centres, width); slope (centres, n1) for the backward, or null.
  void forward(Queue& queue, const Frame& frame, T* g1, T* slope, const T* D) const;
  /// dD (centres, width) =
  void backward(Queue& queue, const Frame& frame, T* dD, const T* dg1, const T* slope) const;
  /// Of a row of D.
  [[nodiscard]] int width() const noexcept { return width_; }

 private:
  Product<T> product_;
  Weights2<T> shape_;
  const T* type_term_ = nullptr;
  int n1_, width_;
};

extern template class Product<float>;
extern template class Product<double>;
extern template class EntryNodes<float>;
extern template class EntryNodes<double>;

}  // namespace dpa2::gpu
