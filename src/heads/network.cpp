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
      row[c++] = static_cast<R>((fparam[k] - m_.fparam_avg[static_cast<std::size_t>(k)]) * m_.fparam_inv_std[static_cast<std::size_t>(k)]);
    if (m_.aparam_in_net)
      for (int k = 0; k < m_.naparam; ++k)
        row[c++] = static_cast<R>((frame.aparam[static_cast<long>(i) * m_.naparam + k] - m_.aparam_avg[static_cast<std::size_t>(k)]) *
                                  m_.aparam_inv_std[static_cast<std::size_t>(k)]);
    for (int k = 0; k < m_.ncase; ++k) row[c++] = static_cast<R>(m_.case_embd[static_cast<std::size_t>(k)]);
    while (c < width) row[c++] = T(0);
  }
}

/// The weights of the network's numbers (i1 - i0, stride), zero for atoms that do not count.
template <class T>
T* HeadNetwork<T>::output_seeds(const Frame& frame, int i0, int i1, const double* seed, Arena& arena) const {
  const int n = width(), stride = m_.fitting.stride;
  const std::vector<double>& scale = m_.head.scale;
  T* dy = arena.take<T>(static_cast<long>(i1 - i0) * stride);
  std::fill_n(dy, static_cast<long>(i1 - i0) * stride, T(0));
  for (int i = i0; i < i1; ++i) {
    const int t = frame.types[i];
    if (!m_.head.counts(t)) continue;
    const long row = static_cast<long>(i - i0);
    for (int c = 0; c < n; ++c) {
      const double factor =
          scale.empty() ? 1.0 : scale[static_cast<std::size_t>(t) * static_cast<std::size_t>(n) + static_cast<std::size_t>(c)];
      if constexpr (is_dual<T>)
        dy[row * stride + c] = {static_cast<R>(frame.weights != nullptr ? factor * frame.weights[i] : factor),
                                static_cast<R>(seed != nullptr ? factor * seed[row * n + c] : 0.0)};
      else
        dy[row * stride + c] = static_cast<T>(factor * (seed != nullptr ? seed[row * n + c] : 1.0));
    }
  }
  return dy;
}

/// y0 (count, stride) = the network's numbers without a descriptor. With `weights` they add what y0, which is subtracted, gives them.
template <class T>
void HeadNetwork<T>::vacuum(int count, Sum<T>* y0, T* dy, T* x, const FittingGradient<R>* weights, Arena& arena) const {
  const long outputs = static_cast<long>(count) * m_.fitting.stride;
  for (int i = 0; i < count; ++i) std::fill_n(x + static_cast<long>(i) * m_.fitting.in, m_.descriptor_dim, T(0));
  for (long k = 0; weights != nullptr && k < outputs; ++k) dy[k] = -dy[k];
  k_.fitting(m_.fitting, count, y0, nullptr, weights, dy, x, arena);
}

template <class T>
void HeadNetwork<T>::run(const Frame& frame, int i0, int i1, const T* g1, const double* seed, double* z, T* dg1,
                         const HeadGradient<R>* weights, Arena& arena) const {
  const Arena::Mark mark = arena.mark();
  const int count = i1 - i0, in = m_.fitting.in, n = width(), stride = m_.fitting.stride;
  const HeadParams& head = m_.head;
  const long size = static_cast<long>(count) * in, outputs = static_cast<long>(count) * stride;
  T* x = arena.take<T>(size);
  Sum<T>* y = arena.take<Sum<T>>(outputs);
  Sum<T>* y0 = arena.take<Sum<T>>(outputs);
  T* dx = dg1 != nullptr ? arena.take<T>(size) : nullptr;
  // A single number without a scale: the kernel's gradient is for ones and takes its weight when it is done.
  const bool ones = n == 1 && head.scale.empty() && weights == nullptr && !is_dual<T>;
  T* dy = dg1 != nullptr && !ones ? output_seeds(frame, i0, i1, seed, arena) : nullptr;
  input(frame, i0, i1, g1, x);
  k_.fitting(m_.fitting, count, y, dx, weights != nullptr ? &weights->fitting : nullptr, dy, x, arena);
  if (weights != nullptr && weights->tebd != nullptr)
    for (int i = 0; i < count; ++i) {
      R* row = weights->tebd + static_cast<long>(std::max(0, frame.types[i0 + i])) * padded<R>(m_.tebd_dim);
      for (int k = 0; k < m_.tebd_dim; ++k) row[k] += math::gradient_of(dx[static_cast<long>(i) * in + m_.n1_real + k]);
    }
  std::fill_n(y0, outputs, Sum<T>(0));
  if (head.vacuum) vacuum(count, y0, dy, x, weights != nullptr ? &weights->fitting : nullptr, arena);
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
      for (int c = 0; c < m_.n1; ++c) out[c] *= static_cast<R>(seed[i]);
  }
  arena.release(mark);
}

template class HeadNetwork<double>;
template class HeadNetwork<float>;
template class HeadNetwork<Dual<double>>;
template class HeadNetwork<Dual<float>>;

}  // namespace dpa2
