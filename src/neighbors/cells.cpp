#include "neighbors/cells.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "neighbors/errors.hpp"

namespace dpa2 {
namespace {

using Index = std::ptrdiff_t;

constexpr int reach = 2;                      // cubes to look at on either side: the edge is half the radius
constexpr std::int32_t cell_limit = 1 << 30;  // cubes further out share one: still correct, and no integer overflows

std::size_t size(Index n) { return static_cast<std::size_t>(n); }

// A resize that leaves room: the number of images fluctuates from step to step.
template <class T>
void resize(std::vector<T>& v, std::size_t n) {
  if (n > v.capacity()) v.reserve(n + n / 8);
  v.resize(n);
}

std::uint32_t hash(const std::array<std::int32_t, 3>& c) {
  std::uint64_t h = static_cast<std::uint32_t>(c[0]) * 0x9E3779B97F4A7C15ULL;
  h = (h ^ (h >> 32) ^ static_cast<std::uint32_t>(c[1])) * 0xC2B2AE3D27D4EB4FULL;
  h = (h ^ (h >> 32) ^ static_cast<std::uint32_t>(c[2])) * 0x165667B19E3779F9ULL;
  return static_cast<std::uint32_t>(h >> 32);
}

}  // namespace

// x moved by whole cells of the lattice.
Vec3 ImageCells::moved(const double* x, const double (&cells)[3]) const {
  const Mat3& b = lattice_.rows();
  Vec3 w{x[0], x[1], x[2]};
  if (lattice_.open()) return w;
  for (std::size_t c = 0; c < 3; ++c) w[c] -= cells[0] * b[0][c] + cells[1] * b[1][c] + cells[2] * b[2][c];
  return w;
}

// Moves atom i from x into the cell, by `cells`.
void ImageCells::wrap_atom(int i, const double* x, double (&cells)[3], const int* ids) {
  double shift[3] = {0.0, 0.0, 0.0};
  const Vec3 f = lattice_.fractional({x[0], x[1], x[2]});
  for (std::size_t a = 0; a < 3; ++a) cells[a] = lattice_.periodic()[a] ? std::floor(f[a]) : 0.0;
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t a = 0; a < 3; ++a) shift[c] += cells[a] * static_cast<double>(t_[a][c]);
  for (const double s : shift)
    if (!(std::abs(s) < image_limit)) throw too_far_from_cell(ids != nullptr ? ids[i] : i, s);
  const Vec3 w = moved(x, cells);
  for (std::size_t c = 0; c < 3; ++c) {
    wrapped_[3 * size(i) + c] = w[c];
    shift_[3 * size(i) + c] = static_cast<int>(shift[c]);
  }
}

void ImageCells::wrap(const double* x, const int* types, int natoms, bool keep, const int* ids) {
  wrapped_.assign(x, x + 3 * static_cast<Index>(natoms));
  frac_.assign(size(natoms) * 3, 0.0);
  shift_.assign(size(natoms) * 3, 0);
  cell_.assign(keep ? size(natoms) * 3 : 0, 0);
  if (lattice_.open()) return;
  for (int i = 0; i < natoms; ++i) {
    if (types[i] < 0) continue;
    double cells[3];
    wrap_atom(i, x + 3 * static_cast<Index>(i), cells, ids);
    const double* w = &wrapped_[3 * size(i)];
    const Vec3 f = lattice_.fractional({w[0], w[1], w[2]});
    for (std::size_t c = 0; c < 3; ++c) {
      frac_[3 * size(i) + c] = f[c];
      if (keep) cell_[3 * size(i) + c] = static_cast<int>(cells[c]);
    }
  }
}

// The translation by m reduced lattice vectors.
ImageCells::Shift ImageCells::translation(int m0, int m1, int m2) const {
  Shift shift{};
  if (m0 == 0 && m1 == 0 && m2 == 0) return shift;
  const Mat3& b = lattice_.rows();
  for (std::size_t c = 0; c < 3; ++c) {
    shift.v[c] = m0 * b[0][c] + m1 * b[1][c] + m2 * b[2][c];
    shift.n[c] = static_cast<int>(m0 * t_[0][c] + m1 * t_[1][c] + m2 * t_[2][c]);
  }
  shift.m[0] = m0;
  shift.m[1] = m1;
  shift.m[2] = m2;
  return shift;
}

// The number of that translation in shifts_.
int ImageCells::add_shift(int m0, int m1, int m2) {
  if (m0 == 0 && m1 == 0 && m2 == 0) return 0;
  shifts_.push_back(translation(m0, m1, m2));
  return static_cast<int>(shifts_.size()) - 1;
}

void ImageCells::make_images(const int* types, int natoms) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  double flo[3] = {inf, inf, inf}, fhi[3] = {-inf, -inf, -inf}, lo[3] = {inf, inf, inf}, hi[3] = {-inf, -inf, -inf};
  int real = 0;
  for (Index i = 0; i < natoms; ++i) {
    if (types[i] < 0) continue;
    ++real;
    for (Index c = 0; c < 3; ++c) {
      flo[c] = std::min(flo[c], frac_[size(3 * i + c)]);
      fhi[c] = std::max(fhi[c], frac_[size(3 * i + c)]);
      lo[c] = std::min(lo[c], wrapped_[size(3 * i + c)]);
      hi[c] = std::max(hi[c], wrapped_[size(3 * i + c)]);
    }
  }
  px_.clear();
  py_.clear();
  pz_.clear();
  pimage_.clear();
  if (real == 0) return;

  double width[3] = {0.0, 0.0, 0.0}, expected = real, largest = 0.0;
  for (std::size_t a = 0; a < 3; ++a) {
    if (!lattice_.periodic()[a]) continue;
    width[a] = radius_ / lattice_.face_distance()[a] + 1e-6;  // a little more, for the rounding of the fractions
    expected *= std::max(1.0, fhi[a] - flo[a] + 2.0 * width[a]);
    largest = std::max(largest, width[a]);
  }
  if (!(expected <= 1000.0 * real + 100000.0 && expected < image_limit && largest < 1e5))
    throw cell_too_small(lattice_.volume(), real, expected / real, radius_);
  for (const auto& row : t_)
    for (const std::int64_t k : row)
      if (3.0 * largest * std::abs(static_cast<double>(k)) > image_limit) throw too_skewed();
  for (std::size_t c = 0; c < 3; ++c) {
    lo[c] -= radius_;
    hi[c] += radius_;
  }
  shifts_.assign(1, Shift{});
  // Translations are numbered as they occur; the widest range decides how many there can be.
  int extent[3] = {0, 0, 0};
  for (std::size_t a = 0; a < 3; ++a)
    if (lattice_.periodic()[a]) extent[a] = static_cast<int>(std::ceil(fhi[a] - flo[a] + width[a])) + 1;
  const Index side1 = 2 * extent[1] + 1, side2 = 2 * extent[2] + 1;
  shift_of_.assign(size((2 * extent[0] + 1) * side1 * side2), -1);
  for (Index i = 0; i < natoms; ++i) {
    if (types[i] < 0) continue;
    int mlo[3] = {0, 0, 0}, mhi[3] = {0, 0, 0};
    for (std::size_t a = 0; a < 3; ++a) {
      if (!lattice_.periodic()[a]) continue;
      const double f = frac_[size(3 * i) + a];
      mlo[a] = std::min(0, static_cast<int>(std::ceil(flo[a] - width[a] - f)));
      mhi[a] = std::max(0, static_cast<int>(std::floor(fhi[a] + width[a] - f)));
    }
    const double* w = &wrapped_[size(3 * i)];
    for (int m0 = mlo[0]; m0 <= mhi[0]; ++m0) {
      for (int m1 = mlo[1]; m1 <= mhi[1]; ++m1) {
        for (int m2 = mlo[2]; m2 <= mhi[2]; ++m2) {
          int& number = shift_of_[size(((m0 + extent[0]) * side1 + m1 + extent[1]) * side2 + m2 + extent[2])];
          if (number < 0) number = add_shift(m0, m1, m2);
          const Shift& shift = shifts_[size(number)];
          double p[3];
          bool inside = true;
          for (std::size_t c = 0; c < 3; ++c) {
            p[c] = w[c] + shift.v[c];
            inside = inside && p[c] >= lo[c] && p[c] <= hi[c];
          }
          if (!inside) continue;
          px_.push_back(p[0]);
          py_.push_back(p[1]);
          pz_.push_back(p[2]);
          pimage_.push_back({static_cast<int>(i), number});
        }
      }
    }
  }
  for (std::size_t c = 0; c < 3; ++c) origin_[c] = lo[c];
  const double spans[3] = {hi[0] - lo[0], hi[1] - lo[1], hi[2] - lo[2]};
  // Slightly more than half the radius: a rounded cell number never puts a neighbour one cube too far.
  edge_ = 0.5 * radius_ * (1.0 + 1e-6);
  inv_edge_ = 1.0 / edge_;
  double cells = 1.0;
  for (const double span : spans) cells *= std::floor(span * inv_edge_) + 1.0;
  direct_ = cells <= 4.0 * static_cast<double>(px_.size()) + 1000.0;
  if (direct_)
    for (std::size_t c = 0; c < 3; ++c) dims_[c] = static_cast<std::int32_t>(std::floor(spans[c] * inv_edge_)) + 1;
}

ImageCells::Cell ImageCells::cell_of(const double* p) const noexcept {
  Cell cell{};
  for (std::size_t c = 0; c < 3; ++c) {
    const double q = std::floor((p[c] - origin_[c]) * inv_edge_);
    cell[c] = static_cast<std::int32_t>(std::min(std::max(q, 0.0), static_cast<double>(cell_limit)));
    if (direct_) cell[c] = std::min(cell[c], dims_[c] - 1);
  }
  return cell;
}

int ImageCells::find(const Cell& cell) const noexcept {
  const std::uint32_t mask = static_cast<std::uint32_t>(slots_.size()) - 1;
  for (std::uint32_t s = hash(cell) & mask;; s = (s + 1) & mask) {
    const int id = slots_[s];
    if (id < 0 || keys_[size(id)] == cell) return id;
  }
}

int ImageCells::insert(const Cell& cell) {
  const std::uint32_t mask = static_cast<std::uint32_t>(slots_.size()) - 1;
  for (std::uint32_t s = hash(cell) & mask;; s = (s + 1) & mask) {
    if (slots_[s] < 0) {
      slots_[s] = static_cast<int>(keys_.size());
      keys_.push_back(cell);
      return slots_[s];
    }
    if (keys_[size(slots_[s])] == cell) return slots_[s];
  }
}

void ImageCells::sort_into_cells() {
  const std::size_t n = px_.size();
  resize(pcell_, n);
  keys_.clear();
  if (!direct_) {
    std::size_t capacity = 16;
    while (capacity < 2 * n) capacity *= 2;
    slots_.assign(capacity, -1);
  }
  for (std::size_t k = 0; k < n; ++k) {
    const double p[3] = {px_[k], py_[k], pz_[k]};
    const Cell cell = cell_of(p);
    pcell_[k] = direct_ ? (cell[2] * dims_[1] + cell[1]) * dims_[0] + cell[0] : insert(cell);
  }
  const std::size_t ncell = direct_ ? size(dims_[0]) * size(dims_[1]) * size(dims_[2]) : keys_.size();
  resize(first_, ncell + 1);
  std::fill(first_.begin(), first_.end(), 0);
  for (const int c : pcell_) ++first_[size(c) + 1];
  for (std::size_t c = 0; c < ncell; ++c) first_[c + 1] += first_[c];
  resize(sx_, n);
  resize(sy_, n);
  resize(sz_, n);
  resize(simage_, n);
  for (std::size_t k = 0; k < n; ++k) {
    const std::size_t to = size(first_[size(pcell_[k])]++);
    sx_[to] = px_[k];
    sy_[to] = py_[k];
    sz_[to] = pz_[k];
    simage_[to] = pimage_[k];
  }
  // Filling moved every start to the next cell's: move them back.
  for (std::size_t c = ncell; c > 0; --c) first_[c] = first_[c - 1];
  first_[0] = 0;
}

void ImageCells::prepare(const double* x, const int* types, int natoms, const Box& box, double radius, bool keep, const int* ids) {
  radius_ = radius;
  dims_ = {0, 0, 0};
  const ReducedLattice lattice = reduced(box);
  lattice_ = lattice.box;
  t_ = lattice.transform;
  wrap(x, types, natoms, keep, ids);
  start_.assign(x, x + (keep ? 3 * static_cast<Index>(natoms) : 0));
  make_images(types, natoms);
  sort_into_cells();
}

void ImageCells::locate(int i, Search& search) const {
  search.ranges.clear();
  search.total = 0;
  const double* w = &wrapped_[3 * size(i)];
  const Cell home = cell_of(w);
  const double limit = radius_ * radius_ * (1.0 + 1e-6);
  // How far the centre is from the slab of cubes number c along axis a.
  const auto gap = [&](std::size_t a, std::int32_t c) {
    const double below = origin_[a] + c * edge_ - w[a];
    return c == home[a] ? 0.0 : std::max({0.0, below, -below - edge_});
  };
  const auto push = [&](int begin, int end) {
    if (begin == end) return;
    search.ranges.push_back({begin, end});
    search.total += end - begin;
  };
  for (std::int32_t z = home[2] - reach; z <= home[2] + reach; ++z) {
    if (direct_ && (z < 0 || z >= dims_[2])) continue;
    const double gz = direct_ ? gap(2, z) : 0.0;
    for (std::int32_t y = home[1] - reach; y <= home[1] + reach; ++y) {
      if (direct_) {
        if (y < 0 || y >= dims_[1]) continue;
        const double gy = gap(1, y);
        if (gy * gy + gz * gz > limit) continue;
        const int row = (z * dims_[1] + y) * dims_[0];
        const std::int32_t x0 = std::max(0, home[0] - reach), x1 = std::min(dims_[0] - 1, home[0] + reach);
        push(first_[size(row + x0)], first_[size(row + x1) + 1]);
      } else {
        for (std::int32_t x = home[0] - reach; x <= home[0] + reach; ++x) {
          const int id = find({x, y, z});
          if (id >= 0) push(first_[size(id)], first_[size(id) + 1]);
        }
      }
    }
  }
}

// The points in the cubes that were located, within the radius and a little more, into search.hits; their number.
int ImageCells::hit(int i, Search& search) const {
  const double* w = &wrapped_[3 * size(i)];
  const double xi = w[0], yi = w[1], zi = w[2];
  const double limit = radius_ * radius_ * (1.0 + 1e-9);
  const double *sx = sx_.data(), *sy = sy_.data(), *sz = sz_.data();
  // Without a branch: about a third of the points pass, in no predictable order.
  search.hits.resize(size(search.total) + 1);
  int* hits = search.hits.data();
  int nhit = 0;
  for (const std::array<int, 2>& range : search.ranges) {
    for (int s = range[0]; s < range[1]; ++s) {
      const double dx = sx[s] - xi, dy = sy[s] - yi, dz = sz[s] - zi;
      hits[nhit] = s;
      nhit += static_cast<int>(dx * dx + dy * dy + dz * dz <= limit);
    }
  }
  return nhit;
}

// From the wrapped atoms and not from the image: then the edges (i, j) and (j, i) are exact negatives.
Candidate ImageCells::candidate(int i, int j, const Shift& shift) const {
  const double *w = &wrapped_[3 * size(i)], *wj = &wrapped_[3 * size(j)];
  const int *ki = &shift_[3 * size(i)], *kj = &shift_[3 * size(j)];
  Candidate c;
  for (std::size_t a = 0; a < 3; ++a) {
    c.d[a] = (wj[a] - w[a]) + shift.v[a];
    c.n[a] = shift.n[a] - kj[a] + ki[a];
  }
  c.r = std::sqrt(c.d[0] * c.d[0] + c.d[1] * c.d[1] + c.d[2] * c.d[2]);
  c.j = j;
  return c;
}

// The same image after follow(): as many cells away as the two atoms have crossed more or less.
Candidate ImageCells::moved_candidate(int i, const Image& image) const {
  const Shift& shift = shifts_[size(image.shift)];
  const std::array<int, 3>&ei = crossed_[size(i)], &ej = crossed_[size(image.j)];
  if (ei == ej) return candidate(i, image.j, shift);
  return candidate(i, image.j, translation(shift.m[0] + ej[0] - ei[0], shift.m[1] + ej[1] - ei[1], shift.m[2] + ej[2] - ei[2]));
}

int ImageCells::gather(int i, Search& search, Candidate* out) const {
  const int nhit = hit(i, search);
  int n = 0;
  double farthest = 0.0;
  for (int h = 0; h < nhit; ++h) {
    const Image image = simage_[size(search.hits[size(h)])];
    if (image.j == i && image.shift == 0) continue;
    out[n] = candidate(i, image.j, shifts_[size(image.shift)]);
    farthest = std::max(farthest, out[n++].r);
  }
  // Rarely a hit is just outside. Removing it in the loop would make every step wait for the square root before it.
  if (farthest > radius_) n = static_cast<int>(std::remove_if(out, out + n, [this](const Candidate& c) { return c.r > radius_; }) - out);
  return n;
}

void ImageCells::list(int i, Search& search, std::vector<Image>& out) const {
  const int nhit = hit(i, search);
  for (int h = 0; h < nhit; ++h) {
    const Image image = simage_[size(search.hits[size(h)])];
    if (image.j != i || image.shift != 0) out.push_back(image);
  }
}

// Where atom i has moved from its place in prepare(): the lattice vectors that it jumped by, in `cells`, and whether it is
// otherwise within `most` of it. Any choice of lattice vectors that passes is right.
bool ImageCells::displacement(int i, const double* x, double most, double (&cells)[3]) const {
  const double* from = &start_[3 * size(i)];
  Vec3 u{x[0] - from[0], x[1] - from[1], x[2] - from[2]};
  cells[0] = cells[1] = cells[2] = 0.0;
  if (dot(u, u) <= most * most) return true;
  if (lattice_.open()) return false;
  const Vec3 f = lattice_.fractional(u);
  const Mat3& b = lattice_.rows();
  for (std::size_t a = 0; a < 3; ++a)
    if (lattice_.periodic()[a]) cells[a] = std::round(f[a]);
  for (std::size_t c = 0; c < 3; ++c) {
    u[c] -= cells[0] * b[0][c] + cells[1] * b[1][c] + cells[2] * b[2][c];
    if (!(std::abs(cells[c]) < image_limit / 3e5)) return false;
  }
  return dot(u, u) <= most * most;
}

bool ImageCells::close_to(const double* x, const int* types, double most) const {
  const int natoms = static_cast<int>(start_.size() / 3);
  double cells[3];
  for (int i = 0; i < natoms; ++i)
    if (types[i] >= 0 && !displacement(i, x + 3 * static_cast<Index>(i), most, cells)) return false;
  return true;
}

bool ImageCells::follow(const double* x, const int* types, double most, const int* ids) {
  if (!close_to(x, types, most)) return false;
  const int natoms = static_cast<int>(start_.size() / 3);
  near_.resize(3 * size(natoms));
  crossed_.resize(size(natoms));
  for (int i = 0; i < natoms; ++i) {
    const double* xi = x + 3 * static_cast<Index>(i);
    double then[3] = {0.0, 0.0, 0.0}, now[3] = {0.0, 0.0, 0.0};
    if (!lattice_.open() && types[i] >= 0) {
      (void)displacement(i, xi, most, then);
      for (std::size_t a = 0; a < 3; ++a) then[a] += cell_[3 * size(i) + a];
      wrap_atom(i, xi, now, ids);
    } else {
      std::copy_n(xi, 3, &wrapped_[3 * size(i)]);
    }
    const Vec3 place = moved(xi, then);
    for (std::size_t c = 0; c < 3; ++c) {
      near_[3 * size(i) + c] = place[c];
      crossed_[size(i)][c] = static_cast<int>(now[c] - then[c]);
    }
  }
  return true;
}

int ImageCells::measure(int i, const Image* images, int count, double radius, Search& search, Candidate* out) const {
  const double* w = &near_[3 * size(i)];
  const double xi = w[0], yi = w[1], zi = w[2];
  const double limit = radius * radius * (1.0 + 1e-9);
  const double* near = near_.data();
  const Shift* shifts = shifts_.data();
  // Without a branch, as in hit(): which candidates are near is in no predictable order.
  if (search.hits.size() < size(count)) search.hits.resize(2 * size(count));
  int* hits = search.hits.data();
  int nhit = 0;
  for (int k = 0; k < count; ++k) {
    const double *wj = near + 3 * static_cast<Index>(images[k].j), *v = shifts[images[k].shift].v;
    const double x = (wj[0] - xi) + v[0], y = (wj[1] - yi) + v[1], z = (wj[2] - zi) + v[2];
    hits[nhit] = k;
    nhit += static_cast<int>(x * x + y * y + z * z <= limit);
  }
  double farthest = 0.0;
  for (int h = 0; h < nhit; ++h) {
    out[h] = moved_candidate(i, images[hits[h]]);
    farthest = std::max(farthest, out[h].r);
  }
  if (farthest <= radius) return nhit;
  return static_cast<int>(std::remove_if(out, out + nhit, [radius](const Candidate& c) { return c.r > radius; }) - out);
}

}  // namespace dpa2
