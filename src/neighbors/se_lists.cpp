#include "neighbors/se_lists.hpp"

#include <algorithm>
#include <cstddef>

#include "neighbors/build.hpp"
#include "neighbors/errors.hpp"
#include "threads.hpp"

namespace dpa2 {
namespace {

std::size_t size(std::ptrdiff_t n) { return static_cast<std::size_t>(n); }

/// What becomes of the slots of one centre after the other; one per thread.
class Slots {
 public:
  Slots(const Edges& whole, const int* types, int pad_type, const SeListSettings& s)
      : whole_(whole), types_(types), pad_type_(std::max(pad_type, 0)), s_(s), seen_(size(s.ntypes)), within_(size(s.ntypes)) {}

  /// Whether the slots are those of single types.
  [[nodiscard]] bool by_type() const { return !s_.sel.empty(); }

  /// store(edge of the whole list, type) for what is stored, in the order of the slots; pads (ntypes) =
  template <class F>
  void centre(int i, int* pads, F store) {
    std::fill_n(pads, s_.ntypes, 0);
    std::fill(seen_.begin(), seen_.end(), 0);
    std::fill(within_.begin(), within_.end(), 0);
    if (by_type())
      std::copy(s_.sel.begin(), s_.sel.end(), pads);
    else
      pads[pad_type_] = s_.nsel;
    if (types_[i] < 0) return;
    const std::size_t row = size(types_[i]) * size(s_.ntypes);
    const int n = s_.kept > 0 ? std::min(s_.kept, whole_.count(i)) : whole_.count(i);
    for (int k = 0; k < n; ++k) {
      const std::int64_t e = whole_.start[size(i)] + k;
      const std::size_t a = size(types_[whole_.j[size(e)]]);
      const bool near = whole_.r[size(e)] <= s_.rcut + distance_tolerance;
      const bool excluded = !s_.pair_excluded.empty() && s_.pair_excluded[row + a] != 0;
      if (by_type() && excluded) continue;  // the next one takes the slot
      const std::size_t counter = by_type() ? a : 0;
      within_[counter] += static_cast<int>(near);
      if (seen_[counter]++ >= (by_type() ? s_.sel[a] : s_.nsel) || excluded) continue;
      --pads[by_type() ? a : size(pad_type_)];
      if (!s_.descr_excluded.empty() && s_.descr_excluded[row + a] != 0) continue;
      if (near)
        store(e, static_cast<int>(a));
      else
        ++pads[a];
    }
    for (std::size_t a = 0; a < within_.size(); ++a) note(i, within_[a], by_type() ? s_.sel[a] : a == 0 ? s_.nsel : 0);
  }
  [[nodiscard]] const Overflow& worst() const { return worst_; }

 private:
  void note(int i, int count, int sel) {
    if (sel > 0 && count > sel && count - sel > worst_.count - worst_.sel) worst_ = {s_.block, i, count, sel, s_.rcut};
  }

  const Edges& whole_;
  const int* types_;
  int pad_type_;
  const SeListSettings& s_;
  std::vector<int> seen_, within_;  // (ntypes) slots that are taken, and neighbours within the cutoff; the first for all together
  Overflow worst_;
};

}  // namespace

void build_se_lists(const Edges& whole, const int* types, const int* ids, int pad_type, const SeListSettings& s, int threads,
                    SeLists& out) {
  const int nlocal = whole.nlocal;
  Edges& edges = out.edges;
  edges.clear();
  edges.nlocal = nlocal;
  edges.nall = whole.nall;
  edges.start.assign(size(nlocal) + 1, 0);
  out.pads.resize(size(nlocal) * size(s.ntypes));
  const int team = std::min(threads, nlocal);
  threads = std::max(1, std::min(threads, nlocal / 16));
  std::vector<Slots> slots(size(threads), Slots(whole, types, pad_type, s));
  const auto first = [&](int t) { return static_cast<int>(static_cast<std::int64_t>(nlocal) * t / threads); };
  parallel(threads, team, [&](int t) {
    for (int i = first(t); i < first(t + 1); ++i)
      slots[size(t)].centre(i, out.pads.data() + static_cast<std::ptrdiff_t>(i) * s.ntypes,
                            [&](std::int64_t, int) { ++edges.start[size(i) + 1]; });
  });
  for (std::size_t i = 0; i < size(nlocal); ++i) edges.start[i + 1] += edges.start[i];
  const std::size_t ne = size(edges.start.back());
  out.slot.resize(ne);
  edges.j.resize(ne);
  edges.r.resize(ne);
  edges.d.resize(3 * ne);
  parallel(threads, team, [&](int t) {
    std::vector<std::int64_t> at(size(s.ntypes));  // where the next edge goes, by type
    for (int i = first(t); i < first(t + 1); ++i) {
      std::fill(at.begin(), at.end(), 0);
      int* const pads = out.pads.data() + static_cast<std::ptrdiff_t>(i) * s.ntypes;
      if (slots[size(t)].by_type()) {
        slots[size(t)].centre(i, pads, [&](std::int64_t, int a) { ++at[size(a)]; });
        std::int64_t next = edges.start[size(i)];
        for (std::int64_t& place : at) {
          const std::int64_t count = place;
          place = next;
          next += count;
        }
      } else {
        at.assign(1, edges.start[size(i)]);
      }
      slots[size(t)].centre(i, pads, [&](std::int64_t e, int a) {
        const std::size_t to = size(at[slots[size(t)].by_type() ? size(a) : 0]++), from = size(e);
        out.slot[to] = static_cast<int>(e - whole.start[size(i)]);
        edges.j[to] = whole.j[from];
        edges.r[to] = whole.r[from];
        std::copy_n(whole.d.begin() + 3 * static_cast<std::ptrdiff_t>(from), 3, edges.d.begin() + 3 * static_cast<std::ptrdiff_t>(to));
      });
    }
  });
  for (const Slots& part : slots) {
    const Overflow& w = part.worst();
    if (w.count <= w.sel) continue;
    if (edges.overflow.empty()) edges.overflow.emplace_back();
    Overflow& worst = edges.overflow.front();
    if (w.count - w.sel > worst.count - worst.sel) worst = w;
  }
  const auto id = [&](int row) { return ids != nullptr ? ids[row] : row; };
  if (!edges.overflow.empty()) edges.overflow.front().atom = id(edges.overflow.front().atom);
  for (int i = 0; i < nlocal; ++i)
    for (std::int64_t e = edges.start[size(i)]; e < edges.start[size(i) + 1]; ++e) {
      const ClosestPair pair{edges.r[size(e)], id(i), id(edges.j[size(e)])};
      if (pair.before(edges.closest)) edges.closest = pair;
    }
  if (s.env_protection == 0.0 && edges.closest.r <= distance_tolerance) throw same_place(edges.closest.i, edges.closest.j);
}

}  // namespace dpa2
