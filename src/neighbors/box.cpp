#include "neighbors/box.hpp"

#include <cmath>

#include "error.hpp"
#include "math/limits.hpp"

namespace dpa2 {
namespace {

// Sine-like measure of a degenerate cell: |det| of the normalised vectors. Below it the inverse is mostly rounding error.
constexpr double singular_limit = 1e-10;

Vec3 cross(const Vec3& a, const Vec3& b) { return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]}; }

double norm(const Vec3& a) { return std::sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2]); }

Vec3 unit(const Vec3& a) {
  const double s = 1.0 / norm(a);
  return {a[0] * s, a[1] * s, a[2] * s};
}

// A unit vector orthogonal to `a` (any of them).
Vec3 orthogonal_to(const Vec3& a) {
  std::size_t least = 0;
  for (std::size_t k = 1; k < 3; ++k)
    if (std::abs(a[k]) < std::abs(a[least])) least = k;
  Vec3 axis{0.0, 0.0, 0.0};
  axis[least] = 1.0;
  return unit(cross(unit(a), axis));
}

constexpr Mat3 identity{{{1.0, 0.0, 0.0}, {0.0, 1.0, 0.0}, {0.0, 0.0, 1.0}}};

// Replaces the vectors marked as missing by unit vectors orthogonal to the others.
void complete(Mat3& rows, const std::array<bool, 3>& missing) {
  const int count = missing[0] + missing[1] + missing[2];
  if (count == 3) {
    rows = identity;
    return;
  }
  if (count == 2) {
    const std::size_t k = !missing[0] ? 0 : !missing[1] ? 1 : 2;
    const std::size_t a = (k + 1) % 3, b = (k + 2) % 3;
    rows[a] = orthogonal_to(rows[k]);
    rows[b] = unit(cross(unit(rows[k]), rows[a]));
    return;
  }
  for (std::size_t k = 0; k < 3; ++k) {
    if (!missing[k]) continue;
    const Vec3 normal = cross(unit(rows[(k + 1) % 3]), unit(rows[(k + 2) % 3]));
    if (norm(normal) < singular_limit) throw invalid_input("the box is singular: its two nonzero vectors are parallel");
    rows[k] = unit(normal);
  }
}

}  // namespace

Box::Box() noexcept : rows_(identity), inverse_(identity), face_distance_{1.0, 1.0, 1.0}, volume_(1.0), periodic_{false, false, false} {}

Box::Box(const double* rows, const std::array<bool, 3>& pbc) : Box() {
  periodic_ = pbc;
  if (rows == nullptr) {
    if (!open()) throw invalid_input("a periodic direction needs a box, but no box was given");
    return;
  }
  std::array<bool, 3> missing{};
  for (std::size_t a = 0; a < 3; ++a) {
    for (std::size_t c = 0; c < 3; ++c) {
      rows_[a][c] = rows[3 * a + c];
      if (!(std::abs(rows_[a][c]) <= largest_length))
        throw invalid_input("the box entry (", a, ", ", c, ") is ",
                            std::isfinite(rows_[a][c]) ? "too large; lengths are in angstrom: " : "not finite: ", rows_[a][c]);
    }
    missing[a] = rows_[a][0] == 0.0 && rows_[a][1] == 0.0 && rows_[a][2] == 0.0;
    if (missing[a] && pbc[a]) throw invalid_input("the box is singular: vector ", a, " is zero, but its direction is periodic");
    const double length = missing[a] ? 1.0 : norm(rows_[a]);
    if (!std::isfinite(length) || !std::isfinite(1.0 / length))
      throw invalid_input("the length of box vector ", a, " is out of range: ", length);
  }
  if (missing[0] || missing[1] || missing[2]) complete(rows_, missing);

  // In normalised vectors, so that nothing overflows and the test for singularity has no unit.
  const Mat3 u{unit(rows_[0]), unit(rows_[1]), unit(rows_[2])};
  const Vec3 length{norm(rows_[0]), norm(rows_[1]), norm(rows_[2])};
  const Mat3 normal{cross(u[1], u[2]), cross(u[2], u[0]), cross(u[0], u[1])};
  const double det = u[0][0] * normal[0][0] + u[0][1] * normal[0][1] + u[0][2] * normal[0][2];
  if (!(std::abs(det) > singular_limit))
    throw invalid_input("the box is singular: its vectors are linearly dependent (volume ",
                        std::abs(det) * length[0] * length[1] * length[2], " angstrom^3)");
  for (std::size_t a = 0; a < 3; ++a) {
    for (std::size_t c = 0; c < 3; ++c) inverse_[c][a] = normal[a][c] / (det * length[a]);
    face_distance_[a] = std::abs(det) * length[a] / norm(normal[a]);
  }
  volume_ = std::abs(det) * length[0] * length[1] * length[2];
}

Vec3 Box::fractional(const Vec3& x) const noexcept {
  Vec3 f{};
  for (std::size_t a = 0; a < 3; ++a) f[a] = x[0] * inverse_[0][a] + x[1] * inverse_[1][a] + x[2] * inverse_[2][a];
  return f;
}

Vec3 Box::cartesian(const Vec3& f) const noexcept {
  Vec3 x{};
  for (std::size_t c = 0; c < 3; ++c) x[c] = f[0] * rows_[0][c] + f[1] * rows_[1][c] + f[2] * rows_[2][c];
  return x;
}

}  // namespace dpa2
