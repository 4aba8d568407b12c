#include "cpu/symmetrization.hpp"

#include "cpu/simd.hpp"

namespace dpa2 {

using simd::load;
using simd::store;
using simd::sum;
using simd::Vec;
using simd::width;

template <class T, class Isa>
void Symmetrization<T, Isa>::moments(int n, int nc, T* C, const T* f, const EdgeRows<T>& X) {
  constexpr int block = 2;  // vectors of channels per pass: six accumulators
  for (int c = 0; c < nc; c += block * width<T>) {
    const int nv = c + block * width<T> <= nc ? block : 1;
    if (nv == block) {
      Vec<T> acc[3][block] = {};
      for (int e = 0; e < n; ++e) {
        const T* x = row(X, e) + c;
        for (int v = 0; v < block; ++v) {
          const Vec<T> xv = load<T>(x + v * width<T>);
          for (int d = 0; d < 3; ++d) acc[d][v] += xv * f[3 * e + d];
        }
      }
      for (int d = 0; d < 3; ++d)
        for (int v = 0; v < block; ++v) store<T>(C + d * nc + c + v * width<T>, acc[d][v]);
    } else {
      Vec<T> acc[3] = {};
      for (int e = 0; e < n; ++e) {
        const Vec<T> xv = load<T>(row(X, e) + c);
        for (int d = 0; d < 3; ++d) acc[d] += xv * f[3 * e + d];
      }
      for (int d = 0; d < 3; ++d) store<T>(C + d * nc + c, acc[d]);
    }
  }
}

template <class T, class Isa>
void Symmetrization<T, Isa>::gram(int nc, int axis, T* gram, const T* C) {
  const Real<T> third = Real<T>(1) / Real<T>(3);
  for (int a = 0; a < axis; ++a)
    for (int c = 0; c < nc; c += width<T>) {
      Vec<T> acc{};
      for (int d = 0; d < 3; ++d) acc += load<T>(C + d * nc + c) * C[d * nc + a];
      store<T>(gram + a * nc + c, acc * third);
    }
}

namespace {

/// dC += what the rows a to a + NA of the Gram matrix give: both of their factors, read once.
template <class T, int NA>
void add_gram_gradient(int nc, int a, T* dC, const T* dgram, const T* C) {
  const Real<T> third = Real<T>(1) / Real<T>(3);
  T axes[3][NA];
  for (int d = 0; d < 3; ++d)
    for (int i = 0; i < NA; ++i) axes[d][i] = C[d * nc + a + i] * third;
  Vec<T> acc[3][NA] = {};
  for (int c = 0; c < nc; c += width<T>) {
    Vec<T> g[NA];
#pragma GCC unroll 4
    for (int i = 0; i < NA; ++i) g[i] = load<T>(dgram + static_cast<long>(a + i) * nc + c);
#pragma GCC unroll 3
    for (int d = 0; d < 3; ++d) {
      const Vec<T> own = load<T>(C + d * nc + c);
      Vec<T> sum = load<T>(dC + d * nc + c);
#pragma GCC unroll 4
      for (int i = 0; i < NA; ++i) {
        acc[d][i] += g[i] * own;
        sum += g[i] * axes[d][i];
      }
      store<T>(dC + d * nc + c, sum);
    }
  }
  for (int d = 0; d < 3; ++d)
    for (int i = 0; i < NA; ++i) dC[d * nc + a + i] += sum<T>(acc[d][i]) * third;
}

}  // namespace

template <class T, class Isa>
void Symmetrization<T, Isa>::gram_backward(int nc, int axis, T* dC, const T* dgram, const T* C) {
  for (int i = 0; i < 3 * nc; i += width<T>) store<T>(dC + i, Vec<T>{});
  int a = 0;
  for (; a + 4 <= axis; a += 4) add_gram_gradient<T, 4>(nc, a, dC, dgram, C);
  for (; a < axis; ++a) add_gram_gradient<T, 1>(nc, a, dC, dgram, C);
}

template <class T, class Isa>
void Symmetrization<T, Isa>::moments_backward(int n, int nc, T* df, T* dX, long dld, const int* scatter, const T* dC, const T* f,
                                              const EdgeRows<T>& X) {
  for (int e = 0; e < n; ++e) {
    const T* x = row(X, e);
    T* dx = dX + static_cast<long>(scatter != nullptr ? scatter[e] : e) * dld;
    const T f0 = f[3 * e], f1 = f[3 * e + 1], f2 = f[3 * e + 2];
    Vec<T> acc[3] = {};
    for (int c = 0; c < nc; c += width<T>) {
      const Vec<T> d0 = load<T>(dC + c), d1 = load<T>(dC + nc + c), d2 = load<T>(dC + 2 * nc + c);
      const Vec<T> xv = load<T>(x + c);
      acc[0] += d0 * xv;
      acc[1] += d1 * xv;
      acc[2] += d2 * xv;
      store<T>(dx + c, load<T>(dx + c) + d0 * f0 + d1 * f1 + d2 * f2);
    }
    for (int d = 0; d < 3; ++d) df[3 * e + d] += sum<T>(acc[d]);
  }
}

DPA2_INSTANTIATE(Symmetrization)
DPA2_INSTANTIATE_DUAL(Symmetrization)

}  // namespace dpa2
