// The features of a centre's edges.
#pragma once

namespace dpa2 {

/// Row e of `rows`, or row index[e] where there is an index (features of the neighbours); row stride ld.
template <class T>
struct EdgeRows {
  const T* rows;
  long ld;
  const int* index;
};

template <class T>
inline __attribute__((always_inline)) const T* row(const EdgeRows<T>& r, int e) {
  return r.rows + static_cast<long>(r.index != nullptr ? r.index[e] : e) * r.ld;
}

}  // namespace dpa2
