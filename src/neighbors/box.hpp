// The periodic cell of a frame.
#pragma once

#include <array>

namespace dpa2 {

using Vec3 = std::array<double, 3>;
using Mat3 = std::array<Vec3, 3>;

inline double dot(const Vec3& a, const Vec3& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// Three cell vectors (rows, angstrom) and one periodicity flag per vector. Handedness does not matter.
class Box {
 public:
  // An open system: no periodic direction, unit vectors as cell vectors.
  Box() noexcept;

  // rows: (3, 3) row-major, or null for an open system. A zero vector along a direction that is not periodic is replaced by
  // a unit vector orthogonal to the others. Throws invalid_input for entries that are not finite or too large, a singular
  // box, or a periodic direction without a box.
  Box(const double* rows, const std::array<bool, 3>& pbc);

  [[nodiscard]] const Mat3& rows() const noexcept { return rows_; }
  [[nodiscard]] const Mat3& inverse() const noexcept { return inverse_; }
  [[nodiscard]] double volume() const noexcept { return volume_; }                     // |det|, angstrom^3
  [[nodiscard]] const Vec3& face_distance() const noexcept { return face_distance_; }  // between opposite faces, angstrom
  [[nodiscard]] const std::array<bool, 3>& periodic() const noexcept { return periodic_; }
  [[nodiscard]] bool open() const noexcept { return !(periodic_[0] || periodic_[1] || periodic_[2]); }

  [[nodiscard]] Vec3 fractional(const Vec3& x) const noexcept;  // x B^-1
  [[nodiscard]] Vec3 cartesian(const Vec3& f) const noexcept;   // f B

 private:
  Mat3 rows_, inverse_;
  Vec3 face_distance_;
  double volume_;
  std::array<bool, 3> periodic_;
};

}  // namespace dpa2
