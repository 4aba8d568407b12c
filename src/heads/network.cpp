#include "heads/network.hpp"

#include <algorithm>
#include <cstddef>

namespace dpa2 {

/// x (i1 - i0, in): descriptors, then the parameters that the network sees beside them.
template <class T>
void HeadNetwork<T>::input(const Frame& frame, int i0, int i1, const T* g1, T* x) const {
  const int width = m_.fitting.in;
  for (int i = i0; i < i1; ++i) {
    const int type = frame.types[i] < 0 ? 0 : frame.types[i];
    T* row = x + static_cast<long>(i - i0) * width;
    int c = 0;
    for (int k = 0; k < m_.n1_real; ++k) row[c++] = g1[static_cast<long>(i - i0) * m_.n1 + k];
    if (m_.concat_tebd)
      for (int k = 0; k < m_.tebd_dim; ++k) row[c++] = m_.tebd[static_cast<long>(type) * m_.tebd_dim + k];
    const double* fparam = frame.fparam != nullptr ? frame.fparam : m_.default_fparam.data();
    for (int k = 0; k < m_.nfparam; ++k)
      row[c++] = static_cast<T>((fparam[k] - m_.fparam_avg[static_cast<std::size_t>(k)]) * m_.fparam_inv_std[static_cast<std::size_t>(k)]);
    if (m_.aparam_in_net)
      for (int k = 0; k < m_.naparam; ++k)
        row[c++] = static_cast<T>((frame.aparam[static_cast<long>(i) * m_.naparam + k] - m_.aparam_avg[static_cast<std::size_t>(k)]) *
                                  m_.aparam_inv_std[static_cast<std::size_t>(k)]);
    for (int k = 0; k < m_.ncase; ++k) row[c++] = static_cast<T>(m_.case_embd[static_cast<std::size_t>(k)]);
    while (c < width) row[c++] = T(0);
  }
}

/// The weights of the network's numbers (i1 - i0, stride). Null for ones: a single number without a scale, whose gradient takes its
/// weight when it is done.
template <class T>
const T* HeadNetwork<T>::output_seeds(const Frame& frame, int i0, int i1, const double* seed, Arena& arena) const {
  const int n = width(), stride = m_.fitting.stride;
  const std::vector<double>& scale = m_.head.scale;
  if (n == 1 && scale.empty()) return nullptr;
  T* dy = arena.take<T>(static_cast<long>(i1 - i0) * stride);
  std::fill_n(dy, static_cast<long>(i1 - i0) * stride, T(0));
  for (int i = i0; i < i1; ++i) {
    const int t = frame.types[i];
    if (!m_.head.counts(t)) continue;
    const long row = static_cast<long>(i - i0);
    for (int c = 0; c < n; ++c) {
      const double factor =
          scale.empty() ? 1.0 : scale[static_cast<std::size_t>(t) * static_cast<std::size_t>(n) + static_cast<std::size_t>(c)];
      dy[row * stride + c] = static_cast<T>(factor * (seed != nullptr ? seed[row * n + c] : 1.0));
    }
  }
  return dy;
}

template <class T>
void HeadNetwork<T>::run(const Frame& frame, int i0, int i1, const T* g1, const double* seed, double* z, T* dg1, Arena& arena) const {
  const Arena::Mark mark = arena.mark();
  const int count = i1 - i0, in = m_.fitting.in, n = width(), stride = m_.fitting.stride;
  const HeadParams& head = m_.head;
  const long size = static_cast<long>(count) * in, outputs = static_cast<long>(count) * stride;
  T* x = arena.take<T>(size);
  T* y = arena.take<T>(outputs);
  T* y0 = arena.take<T>(outputs);
  T* dx = dg1 != nullptr ? arena.take<T>(size) : nullptr;
  const T* dy = dg1 != nullptr ? output_seeds(frame, i0, i1, seed, arena) : nullptr;
  input(frame, i0, i1, g1, x);
  m_.kernels.fitting(m_.fitting, count, y, dx, dy, x, arena);
  std::fill_n(y0, outputs, T(0));
  if (head.vacuum) {
    for (int i = 0; i < count; ++i) std::fill_n(x + static_cast<long>(i) * in, m_.descriptor_dim, T(0));
    m_.kernels.fitting(m_.fitting, count, y0, nullptr, nullptr, x, arena);
  }
  for (int i = 0; i < count; ++i) {
    const int t = frame.types[i0 + i];
    const bool counts = head.counts(t);
    const std::size_t row = counts ? static_cast<std::size_t>(t) * static_cast<std::size_t>(n) : 0;
    for (int c = 0; c < n; ++c) {
      const long at = static_cast<long>(i) * stride + c;
      const std::size_t k = row + static_cast<std::size_t>(c);
      const double raw = static_cast<double>(y[at]) - static_cast<double>(y0[at]);
      z[static_cast<long>(i) * n + c] = !counts ? 0.0 : (head.scale.empty() ? raw : raw * head.scale[k]) + head.bias[k];
    }
    if (dg1 == nullptr) continue;
    T* out = dg1 + static_cast<long>(i) * m_.n1;
    for (int c = 0; c < m_.n1; ++c) out[c] = counts && c < m_.n1_real ? dx[static_cast<long>(i) * in + c] : T(0);
    if (dy == nullptr && seed != nullptr)
      for (int c = 0; c < m_.n1; ++c) out[c] *= static_cast<T>(seed[i]);
  }
  arena.release(mark);
}

template class HeadNetwork<double>;
template class HeadNetwork<float>;

}  // namespace dpa2
