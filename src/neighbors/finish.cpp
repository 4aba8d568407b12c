#include "neighbors/finish.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace dpa2 {
namespace {

std::size_t size(std::ptrdiff_t n) { return static_cast<std::size_t>(n); }

// Above this many candidates the general sort is used: the insertion sort must never become quadratic.
constexpr int small_sort = 1024;

}  // namespace

Candidate* Finisher::room(int n) {
  if (candidates_.size() < size(n)) candidates_.resize(size(n) + size(n) / 2);
  return candidates_.data();
}

void Finisher::begin(const NeighborSettings& settings, const int* ids, const int* rows, bool numbered) {
  settings_ = settings;
  ids_ = ids;
  rows_ = rows;
  numbered_ = numbered;
  closest_ = {};
  for (Overflow& worst : worst_) worst = {};
  coincidence_ = {};
  begin_block();
}

void Finisher::begin_block() { count_ = 0; }

void Finisher::reserve(int n) {
  if (j_.size() >= size(count_) + size(n)) return;
  const std::size_t rows = 2 * (size(count_) + size(n));
  j_.resize(rows);
  r_.resize(rows);
  d_.resize(3 * rows);
  image_.resize(3 * rows);
}

// Ascending r into sorted_. Distances are spread over as many buckets as there are candidates, by r^2, which is close to
// their distribution; an insertion sort then repairs the order inside the buckets.
void Finisher::sort(int n) {
  if (keys_.size() < size(n)) {
    keys_.resize(size(n) * 2);
    sorted_.resize(size(n) * 2);
    bucket_.resize(size(n) * 2 + 1);
  }
  const Candidate* c = candidates_.data();
  if (n > small_sort) {
    for (int k = 0; k < n; ++k) sorted_[size(k)] = {c[k].r, k};
    std::sort(sorted_.begin(), sorted_.begin() + n, [](const Key& a, const Key& b) { return a.r < b.r; });
    return;
  }
  Key* keys = keys_.data();
  Key* sorted = sorted_.data();
  int* bucket = bucket_.data();
  const double scale = n / (settings_.repinit.rcut * settings_.repinit.rcut);
  const auto number = [&](double r) { return std::min(n - 1, static_cast<int>(r * r * scale)); };
  std::fill(bucket, bucket + n + 1, 0);
  for (int k = 0; k < n; ++k) {
    keys[k] = {c[k].r, k};
    ++bucket[number(c[k].r) + 1];
  }
  for (int k = 0; k < n; ++k) bucket[k + 1] += bucket[k];
  for (int k = 0; k < n; ++k) sorted[bucket[number(keys[k].r)]++] = keys[k];
  for (int k = 1; k < n; ++k) {
    const Key key = sorted[k];
    int at = k;
    for (; at > 0 && key.r < sorted[at - 1].r; --at) sorted[at] = sorted[at - 1];
    sorted[at] = key;
  }
}

// Number of leading entries within rcut (inclusive). Entries that are equal up to rounding stay together, so that the list is a
// prefix however the ties are ordered.
int Finisher::cut(int n, double rcut) const {
  const Key* sorted = sorted_.data();
  int k = static_cast<int>(
      std::upper_bound(sorted, sorted + n, rcut + distance_tolerance, [](double r, const Key& key) { return r < key.r; }) - sorted);
  while (k > 0 && k < n && sorted[k].r - sorted[k - 1].r <= distance_tolerance) ++k;
  return k;
}

// Orders runs of equal distances by (j, image). Of ghosts that are images of one atom only their places are known: the order of these is
// that of the images in a rectangular cell, and in any cell the same however a system is divided.
void Finisher::order_ties(int n) {
  Key* sorted = sorted_.data();
  const Candidate* c = candidates_.data();
  for (int begin = 0; begin < n;) {
    int end = begin + 1;
    while (end < n && sorted[end].r - sorted[end - 1].r <= distance_tolerance) ++end;
    if (end - begin > 1) {
      std::sort(sorted + begin, sorted + end, [c, this](const Key& ka, const Key& kb) {
        const Candidate &a = c[ka.index], &b = c[kb.index];
        if (a.j != b.j && !numbered_) {
          if (id(a.j) != id(b.j)) return id(a.j) < id(b.j);
          const auto* apart = std::mismatch(a.d, a.d + 3, b.d, [](double x, double y) { return std::abs(x - y) <= distance_tolerance; }).first;
          const std::ptrdiff_t axis = apart - a.d;
          return axis < 3 ? a.d[axis] < b.d[axis] : a.j < b.j;
        }
        return std::lexicographical_compare(a.n, a.n + 3, b.n, b.n + 3);
      });
    }
    begin = end;
  }
}

void Finisher::note(Block block, int atom, int count, int sel, double rcut) {
  Overflow& worst = worst_[static_cast<int>(block)];
  atom = id(atom);
  if (count > sel && (count > worst.count || (count == worst.count && atom < worst.atom))) worst = {block, atom, count, sel, rcut};
}

void Finisher::merge_overflow(Overflow (&worst)[3]) const {
  for (int b = 0; b < 3; ++b) {
    const Overflow& mine = worst_[b];
    Overflow& w = worst[b];
    if (mine.sel > 0 && (mine.count > w.count || (mine.count == w.count && mine.atom < w.atom))) w = mine;
  }
}

void Finisher::finish_empty(int row, Edges& edges) const {
  edges.start[size(row) + 1] = 0;
  edges.n_three[size(row)] = edges.n_repformer[size(row)] = 0;
  edges.pad_repinit[size(row)] = settings_.repinit.nsel;
  edges.pad_three[size(row)] = settings_.use_three ? settings_.three.nsel : 0;
}

void Finisher::finish(int i, int row, int n, const int* types, Edges& edges) {
  if (n == 0) {
    finish_empty(row, edges);
    return;
  }
  const NeighborSettings& s = settings_;
  sort(n);
  // The lists are cut before anything is excluded: excluded neighbours use up slots.
  const int most = s.kept > 0 ? s.kept : s.repinit.nsel;
  const int kept = std::min(n, most);
  const int within_repformer = cut(n, s.repformer.rcut);
  const int within_three = s.use_three ? cut(n, s.three.rcut) : 0;
  const int rep = std::min({within_repformer, s.repformer.nsel, kept});
  const int three = std::min({within_three, s.three.nsel, kept});
  note(Block::repinit, i, n, most, s.repinit.rcut);
  note(Block::repformer, i, within_repformer, s.repformer.nsel, s.repformer.rcut);
  if (s.use_three) note(Block::three_body, i, within_three, s.three.nsel, s.three.rcut);
  order_ties(n);

  reserve(kept);
  const std::size_t type_row = size(types[i]) * size(s.ntypes);
  const char* pair_excluded = s.pair_excluded.empty() ? nullptr : &s.pair_excluded[type_row];
  const char* descr_excluded = s.descr_excluded.empty() ? nullptr : &s.descr_excluded[type_row];
  const Candidate* candidates = candidates_.data();
  const Key* sorted = sorted_.data();
  int* j = j_.data() + count_;
  double* r = r_.data() + count_;
  double* d = d_.data() + 3 * count_;
  int* image = image_.data() + 3 * count_;
  int used = 0, used_three = 0, stored = 0, stored_three = 0, stored_repformer = 0;
  bool looked = false;  // at the pair that may be the closest
  for (int k = 0; k < kept; ++k) {
    const Candidate& c = candidates[sorted[k].index];
    if (pair_excluded != nullptr && pair_excluded[types[c.j]] != 0) continue;
    ++used;
    used_three += static_cast<int>(k < three);
    if (descr_excluded != nullptr && descr_excluded[types[c.j]] != 0) continue;
    stored_three += static_cast<int>(k < three);
    stored_repformer += static_cast<int>(k < rep);
    j[stored] = rows_ != nullptr ? rows_[c.j] : c.j;
    if (!looked && (s.first_virtual == 0 || std::max(types[i], types[c.j]) < s.first_virtual)) {
      looked = true;
      const ClosestPair nearest{c.r, id(i), id(c.j)};
      if (nearest.before(closest_)) closest_ = nearest;
    }
    if (stored == 0) {
      if (s.env_protection == 0.0 && c.r <= distance_tolerance && (coincidence_.centre < 0 || id(i) < coincidence_.centre))
        coincidence_ = {id(i), id(c.j)};
    }
    r[stored] = c.r;
    for (int a = 0; a < 3; ++a) {
      d[3 * stored + a] = c.d[a];
      image[3 * stored + a] = c.n[a];
    }
    ++stored;
  }
  count_ += stored;
  edges.start[size(row) + 1] = stored;
  edges.n_three[size(row)] = stored_three;
  edges.n_repformer[size(row)] = stored_repformer;
  edges.pad_repinit[size(row)] = s.repinit.nsel - used;
  edges.pad_three[size(row)] = s.use_three ? s.three.nsel - used_three : 0;
}

void Finisher::copy_to(Edges& edges, std::int64_t first) const {
  std::copy_n(j_.begin(), count_, edges.j.begin() + first);
  std::copy_n(r_.begin(), count_, edges.r.begin() + first);
  std::copy_n(d_.begin(), 3 * static_cast<std::ptrdiff_t>(count_), edges.d.begin() + 3 * first);
  if (edges.keep_image) std::copy_n(image_.begin(), 3 * static_cast<std::ptrdiff_t>(count_), edges.image.begin() + 3 * first);
}

}  // namespace dpa2
