#include "graph/packing.hpp"

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>

#include "allocate.hpp"
#include "error.hpp"

namespace dpa2 {

void Storage::Free::operator()(void* p) const noexcept { std::free(p); }

void* Storage::raw(std::size_t bytes) {
  const std::size_t size = padded_bytes(bytes) + pad_bytes;
  if (size > left_) {
    const std::size_t block = (size + huge_page - 1) / huge_page * huge_page;
    void* memory = allocate(block);
    if (memory == nullptr) throw std::bad_alloc();
    blocks_.emplace_back(memory);
    std::memset(memory, 0, block);
    free_ = static_cast<char*>(memory);
    left_ = block;
    bytes_ += block;
  }
  void* p = free_;
  free_ += size;
  left_ -= size;
  return p;
}

template <class T>
Packed<T> pack(Storage& storage, const Matrix& m) {
  constexpr int panel = padded<T>(1);
  if (m.cols % panel != 0) throw internal_error("packed matrix with ", m.cols, " columns");
  T* p = storage.take<T>(m.a.size());
  for (int first = 0; first < m.cols; first += panel)
    for (int r = 0; r < m.rows; ++r) {
      const double* from = m.a.data() + static_cast<std::ptrdiff_t>(r) * m.cols + first;
      for (int c = 0; c < panel; ++c) *p++ = static_cast<T>(from[c]);
    }
  return {p - m.a.size(), m.rows, m.cols};
}

namespace {

/// The transpose of m.
template <class T>
Packed<T> pack_transposed(Storage& storage, const Matrix& m) {
  constexpr int panel = padded<T>(1);
  if (m.rows % panel != 0) throw internal_error("packed transpose of a matrix with ", m.rows, " rows");
  T* p = storage.take<T>(m.a.size());
  for (int first = 0; first < m.rows; first += panel) {
    T* to = p + static_cast<std::ptrdiff_t>(first) * m.cols;
    for (int r = 0; r < panel; ++r)
      for (int c = 0; c < m.cols; ++c) to[static_cast<std::ptrdiff_t>(c) * panel + r] = static_cast<T>(m(first + r, c));
  }
  return {p, m.cols, m.rows};
}

}  // namespace

template <class T>
void pack_both(Storage& storage, const Matrix& m, Packed<T>& w, Packed<T>& wt) {
  w = pack<T>(storage, m);
  wt = pack_transposed<T>(storage, m);
}

template <class T>
const T* flat(Storage& storage, const Matrix& m, int n) {
  const std::size_t size = n < 0 ? m.a.size() : static_cast<std::size_t>(n);
  T* p = storage.take<T>(size);
  for (std::size_t i = 0; i < m.a.size() && i < size; ++i) p[i] = static_cast<T>(m.a[i]);
  return p;
}

template <class T>
ActivationSpec<T> activation(const FoldedActivation& act) {
  return {act.kind, {static_cast<T>(act.silut.threshold), static_cast<T>(act.silut.slope), static_cast<T>(act.silut.offset)}};
}

#define DPA2_INSTANTIATE_FOR(T)                                                \
  template Packed<T> pack<T>(Storage&, const Matrix&);                         \
  template void pack_both<T>(Storage&, const Matrix&, Packed<T>&, Packed<T>&); \
  template const T* flat<T>(Storage&, const Matrix&, int);                     \
  template ActivationSpec<T> activation<T>(const FoldedActivation&);
DPA2_INSTANTIATE_FOR(double)
DPA2_INSTANTIATE_FOR(float)
#undef DPA2_INSTANTIATE_FOR

}  // namespace dpa2
