#include "neighbors/order.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace dpa2 {
namespace {

/// The lowest 21 bits of n, two zeros after each.
std::uint64_t spread(std::uint64_t n) {
  n &= 0x1fffff;
  n = (n | n << 32) & 0x1f00000000ffff;
  n = (n | n << 16) & 0x1f0000ff0000ff;
  n = (n | n << 8) & 0x100f00f00f00f00f;
  n = (n | n << 4) & 0x10c30c30c30c30c3;
  return (n | n << 2) & 0x1249249249249249;
}

/// Along the cell vectors, in angstrom; inside the cell where it is periodic.
Vec3 place(const Vec3& x, const Box& box) {
  if (box.open()) return x;
  Vec3 f = box.fractional(x);
  for (std::size_t k = 0; k < 3; ++k) {
    if (box.periodic()[k]) f[k] -= std::floor(f[k]);
    const Vec3& v = box.rows()[k];
    f[k] *= std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  }
  return f;
}

}  // namespace

void SpatialOrder::choose(const double* x, int natoms, const Box& box, double edge) {
  const std::size_t n = static_cast<std::size_t>(natoms);
  Vec3 lowest{HUGE_VAL, HUGE_VAL, HUGE_VAL};
  const auto at = [&](std::size_t i) { return place({x[3 * i], x[3 * i + 1], x[3 * i + 2]}, box); };
  for (std::size_t i = 0; i < n; ++i) {
    const Vec3 p = at(i);
    for (std::size_t k = 0; k < 3; ++k) lowest[k] = std::min(lowest[k], p[k]);
  }
  constexpr double most = 0x1fffff;
  keys_.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    const Vec3 p = at(i);
    std::uint64_t code = 0;
    for (std::size_t k = 0; k < 3; ++k) code |= spread(static_cast<std::uint64_t>(std::min(most, (p[k] - lowest[k]) / edge))) << k;
    keys_[i] = {code, static_cast<int>(i)};
  }
  std::sort(keys_.begin(), keys_.end(), [](const Key& a, const Key& b) { return a.code != b.code ? a.code < b.code : a.atom < b.atom; });
  atom_.resize(n);
  for (std::size_t k = 0; k < n; ++k) atom_[k] = keys_[k].atom;
}

void SpatialOrder::restore(double* rows, int width) {
  const std::ptrdiff_t w = width;
  done_.assign(atom_.size(), 0);
  row_.resize(2 * static_cast<std::size_t>(w));
  for (std::size_t begin = 0; begin < atom_.size(); ++begin) {
    if (done_[begin] != 0) continue;
    // Along the cycle: what is carried goes to its place, what was there is carried on.
    double *carried = row_.data(), *next = row_.data() + w;
    std::copy_n(rows + static_cast<std::ptrdiff_t>(begin) * w, w, carried);
    for (std::size_t k = begin; done_[k] == 0;) {
      done_[k] = 1;
      const std::size_t to = static_cast<std::size_t>(atom_[k]);
      double* there = rows + static_cast<std::ptrdiff_t>(to) * w;
      std::copy_n(there, w, next);
      std::copy_n(carried, w, there);
      std::swap(carried, next);
      k = to;
    }
  }
}

}  // namespace dpa2
