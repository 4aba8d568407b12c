#include "heads/tensor.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

namespace dpa2 {

void DipoleContraction::forward(double* value, const double* z, const double* R, double*) const {
  std::fill_n(value, 3, 0.0);
  for (int c = 0; c < n_; ++c)
    for (int x = 0; x < 3; ++x) value[x] += z[c] * R[3 * c + x];
}

void DipoleContraction::coefficients(double* dz, const double* seed, const double* R) const {
  for (int c = 0; c < n_; ++c) dz[c] = seed[0] * R[3 * c] + seed[1] * R[3 * c + 1] + seed[2] * R[3 * c + 2];
}

void DipoleContraction::rotation(double* dR, const double* seed, const double* z, const double*, double*) const {
  for (int c = 0; c < n_; ++c)
    for (int x = 0; x < 3; ++x) dR[3 * c + x] = z[c] * seed[x];
}

namespace {

/// The symmetric part of the weights of A: all that a symmetric A sees of them.
std::array<double, 9> symmetric(const double* seed) {
  std::array<double, 9> s{};
  for (std::size_t a = 0; a < 3; ++a)
    for (std::size_t b = 0; b < 3; ++b) s[3 * a + b] = 0.5 * (seed[3 * a + b] + seed[3 * b + a]);
  return s;
}

/// y (3) = S x
void times(double* y, const std::array<double, 9>& s, const double* x) {
  for (std::size_t a = 0; a < 3; ++a) y[a] = s[3 * a] * x[0] + s[3 * a + 1] * x[1] + s[3 * a + 2] * x[2];
}

}  // namespace

/// ZR (n, 3) = the symmetric part of the coefficients times R
void PolarContraction::product(double* ZR, const double* z, const double* R) const {
  if (diagonal_) {
    for (int c = 0; c < n_; ++c)
      for (int x = 0; x < 3; ++x) ZR[3 * c + x] = z[c] * R[3 * c + x];
    return;
  }
  std::fill_n(ZR, 3 * n_, 0.0);
  for (int c = 0; c < n_; ++c)
    for (int d = 0; d < n_; ++d) {
      const double s = 0.5 * (z[static_cast<long>(c) * n_ + d] + z[static_cast<long>(d) * n_ + c]);
      for (int x = 0; x < 3; ++x) ZR[3 * c + x] += s * R[3 * d + x];
    }
}

void PolarContraction::forward(double* value, const double* z, const double* R, double* scratch) const {
  product(scratch, z, R);
  for (int a = 0; a < 3; ++a)
    for (int b = a; b < 3; ++b) {
      double sum = 0;
      for (int c = 0; c < n_; ++c) sum += R[3 * c + a] * scratch[3 * c + b];
      value[3 * a + b] = value[3 * b + a] = sum;
    }
}

void PolarContraction::coefficients(double* dz, const double* seed, const double* R) const {
  const std::array<double, 9> s = symmetric(seed);
  for (int c = 0; c < n_; ++c) {
    double SR[3];
    times(SR, s, R + 3 * c);
    const auto along = [&](int d) { return SR[0] * R[3 * d] + SR[1] * R[3 * d + 1] + SR[2] * R[3 * d + 2]; };
    if (diagonal_)
      dz[c] = along(c);
    else
      for (int d = 0; d < n_; ++d) dz[static_cast<long>(c) * n_ + d] = along(d);
  }
}

void PolarContraction::rotation(double* dR, const double* seed, const double* z, const double* R, double* scratch) const {
  const std::array<double, 9> s = symmetric(seed);
  product(scratch, z, R);
  for (int c = 0; c < n_; ++c) {
    times(dR + 3 * c, s, scratch + 3 * c);
    for (int x = 0; x < 3; ++x) dR[3 * c + x] *= 2.0;
  }
}

template <class T>
void TensorHead<T>::run(const Frame& frame, int i0, int i1, const Rows<const T>& rows, const double* seed, double* values,
                        const Rows<T>* gradient, const HeadGradient<Real<T>>* weights, Arena& arena) const {
  const Arena::Mark mark = arena.mark();
  const int count = i1 - i0, K = network_.width(), n = m_.n2_real, w = width();
  const HeadParams& head = m_.head;
  double* z = arena.take<double>(static_cast<long>(count) * K);
  double* dz = gradient != nullptr ? arena.take<double>(static_cast<long>(count) * K) : nullptr;
  double* R = arena.take<double>(static_cast<long>(count) * 3 * n);
  double* scratch = arena.take<double>(3L * n);
  double* dR = arena.take<double>(3L * n);
  double* ones = arena.take<double>(w);
  std::fill_n(ones, w, 1.0);
  const auto seed_of = [&](int i) { return seed != nullptr ? seed + static_cast<long>(i) * w : ones; };
  const auto rotation_of = [&](int i) { return R + static_cast<long>(i) * 3 * n; };
  for (int i = 0; i < count; ++i) {
    const T* moments = rows.rot + static_cast<long>(i) * 3 * m_.n2;
    for (int c = 0; c < n; ++c)
      for (int x = 0; x < 3; ++x) rotation_of(i)[3 * c + x] = static_cast<double>(moments[x * m_.n2 + c]);
    if (dz != nullptr) contraction_->coefficients(dz + static_cast<long>(i) * K, seed_of(i), rotation_of(i));
  }
  network_.run(frame, i0, i1, rows.g1, dz, z, gradient != nullptr ? gradient->g1 : nullptr, weights, arena);
  for (int i = 0; i < count; ++i) {
    const double* zi = z + static_cast<long>(i) * K;
    double* value = values + static_cast<long>(i) * w;
    contraction_->forward(value, zi, rotation_of(i), scratch);
    const int t = frame.types[i0 + i];
    if (!head.shift.empty() && head.counts(t))
      for (int x = 0; x < 3; ++x) value[4 * x] += head.shift[static_cast<std::size_t>(t)];
    if (gradient == nullptr) continue;
    contraction_->rotation(dR, seed_of(i), zi, rotation_of(i), scratch);
    T* out = gradient->rot + static_cast<long>(i) * 3 * m_.n2;
    std::fill_n(out, 3L * m_.n2, T(0));
    for (int c = 0; c < n; ++c)
      for (int x = 0; x < 3; ++x) out[x * m_.n2 + c] = static_cast<T>(dR[3 * c + x]);
  }
  arena.release(mark);
}

template class TensorHead<double>;
template class TensorHead<float>;

}  // namespace dpa2
