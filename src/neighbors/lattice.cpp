#include "neighbors/lattice.hpp"

#include <cmath>
#include <cstddef>

#include "neighbors/errors.hpp"

namespace dpa2 {

ReducedLattice reduced(const Box& box) {
  const std::array<bool, 3>& pbc = box.periodic();
  std::array<std::array<std::int64_t, 3>, 3> t{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  Mat3 v = box.rows();
  bool changed = false;
  // Adds c times vector b to vector a, in exact integers; the vector is recomputed so that rounding does not pile up.
  const auto add = [&](std::size_t a, std::size_t b, double c) {
    for (std::size_t k = 0; k < 3; ++k) t[a][k] += static_cast<std::int64_t>(c) * t[b][k];
    for (std::size_t x = 0; x < 3; ++x) {
      v[a][x] = 0.0;
      for (std::size_t k = 0; k < 3; ++k) v[a][x] += static_cast<double>(t[a][k]) * box.rows()[k][x];
    }
    for (const std::int64_t k : t[a])
      if (std::abs(static_cast<double>(k)) > image_limit) throw too_skewed();
    changed = true;
  };
  constexpr double margin = 1.0 + 1e-9;  // a tie is no improvement: guarantees an end
  for (int round = 0; round < 200; ++round) {
    bool again = false;
    for (std::size_t a = 0; a < 3; ++a) {
      for (std::size_t b = 0; b < 3; ++b) {
        if (a == b || !pbc[a] || !pbc[b]) continue;
        const double ab = dot(v[a], v[b]), bb = dot(v[b], v[b]);
        if (2.0 * std::abs(ab) <= margin * bb) continue;
        const double c = -std::round(ab / bb);
        if (std::abs(c) > image_limit) throw too_skewed();
        add(a, b, c);
        again = true;
      }
    }
    if (!again && pbc[0] && pbc[1] && pbc[2]) {
      // Pairwise short vectors can still be nearly flat: try the sums of all three in place of the longest.
      std::size_t a = 0;
      for (std::size_t k = 1; k < 3; ++k)
        if (dot(v[k], v[k]) > dot(v[a], v[a])) a = k;
      const std::size_t b = (a + 1) % 3, c = (a + 2) % 3;
      for (int sign = 0; sign < 4 && !again; ++sign) {
        const double sb = (sign & 1) != 0 ? 1.0 : -1.0, sc = (sign & 2) != 0 ? 1.0 : -1.0;
        Vec3 w{};
        for (std::size_t x = 0; x < 3; ++x) w[x] = v[a][x] + sb * v[b][x] + sc * v[c][x];
        if (margin * dot(w, w) < dot(v[a], v[a])) {
          add(a, b, sb);
          add(a, c, sc);
          again = true;
        }
      }
    }
    if (!again) break;
  }
  for (const auto& row : t)
    for (const std::int64_t k : row)
      if (std::abs(static_cast<double>(k)) > 1e5) throw too_skewed();
  bool partial = false;
  for (std::size_t a = 0; a < 3; ++a) {
    if (pbc[a]) continue;
    v[a] = {0.0, 0.0, 0.0};  // the box completes it orthogonally: the images then reach exactly one radius over the faces
    partial = true;
  }
  if (!changed && !partial) return {box, t};
  const double rows[9] = {v[0][0], v[0][1], v[0][2], v[1][0], v[1][1], v[1][2], v[2][0], v[2][1], v[2][2]};
  return {Box(rows, pbc), t};
}

}  // namespace dpa2
