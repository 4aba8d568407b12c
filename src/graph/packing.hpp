// Folded tensors in double as arrays of the CPU kernels' precision: padded to 64 bytes, packed in panels.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "cpu/activation.hpp"
#include "cpu/linear.hpp"
#include "fold/activation.hpp"
#include "fold/matrix.hpp"
#include "padding.hpp"

namespace dpa2 {

/// Owns the arrays that the parameter structures point into: 64-byte aligned, zero-initialised, never moved.
class Storage {
 public:
  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  template <class T>
  T* take(std::size_t n) {
    return static_cast<T*>(raw(n * sizeof(T)));
  }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  struct Free {
    void operator()(void* p) const noexcept;
  };
  void* raw(std::size_t bytes);
  std::vector<std::unique_ptr<void, Free>> blocks_;
  std::size_t bytes_ = 0, left_ = 0;
  char* free_ = nullptr;  ///< the rest of the last block
};

/// m (k, n), n a multiple of 64 bytes, in the panels of `Linear`.
template <class T>
Packed<T> pack(Storage& storage, const Matrix& m);
/// m and its transpose.
template <class T>
void pack_both(Storage& storage, const Matrix& m, Packed<T>& w, Packed<T>& wt);
/// The entries of m in order, followed by zeros up to n (n < 0: as many as there are).
template <class T>
const T* flat(Storage& storage, const Matrix& m, int n = -1);

template <class T>
ActivationSpec<T> activation(const FoldedActivation& act);

}  // namespace dpa2
