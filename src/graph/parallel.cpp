#include "graph/parallel.hpp"

#include <algorithm>

#include "math/dual.hpp"

namespace dpa2 {

void Partition::build(const Edges& edges, int threads) {
  nlocal_ = edges.nlocal;
  nall_ = edges.nall;
  ranges_.resize(static_cast<std::size_t>(threads));
  // Work of a centre: its edges in the embedding and, dearer, in the repformer.
  const auto cost = [&](int i) { return 40.0 + edges.count(i) + 10.0 * edges.n_repformer[static_cast<std::size_t>(i)]; };
  double total = 0;
  for (int i = 0; i < nlocal_; ++i) total += cost(i);
  int i = 0;
  double done = 0;
  for (int t = 0; t < threads; ++t) {
    ThreadRange& range = ranges_[static_cast<std::size_t>(t)];
    range.begin = i;
    const double limit = total * (t + 1) / threads;
    while (i < nlocal_ && (t == threads - 1 || done + 0.5 * cost(i) < limit)) done += cost(i++);
    range.end = i;
  }
  local_.resize(static_cast<std::size_t>(edges.nedge()));
  if (slot_.size() < ranges_.size()) slot_.resize(ranges_.size());
  parallel(threads, [&](int t) {
    ThreadRange& range = ranges_[static_cast<std::size_t>(t)];
    const std::int64_t e0 = edges.start.empty() ? 0 : edges.start[static_cast<std::size_t>(range.begin)];
    const std::int64_t e1 = edges.start.empty() ? 0 : edges.start[static_cast<std::size_t>(range.end)];
    const auto outside = [&](int j) { return j < range.begin || j >= range.end; };
    range.halo.clear();
    if (range.begin == 0 && range.end == nall_) {  // nothing is outside
      std::copy(edges.j.begin() + e0, edges.j.begin() + e1, local_.data() + e0);
      return;
    }
    int* slot = slot_[static_cast<std::size_t>(t)].resize(static_cast<std::size_t>(nall_));
    std::fill_n(slot, nall_, -1);
    for (std::int64_t e = e0; e < e1; ++e) {
      const int j = edges.j[static_cast<std::size_t>(e)];
      if (outside(j) && slot[j] < 0) {
        slot[j] = 0;
        range.halo.push_back(j);
      }
    }
    std::sort(range.halo.begin(), range.halo.end());
    for (std::size_t h = 0; h < range.halo.size(); ++h) slot[range.halo[h]] = range.end - range.begin + static_cast<int>(h);
    for (std::int64_t e = e0; e < e1; ++e) {
      const int j = edges.j[static_cast<std::size_t>(e)];
      local_.data()[e] = outside(j) ? slot[j] : j - range.begin;
    }
  });
}

template <class T, class Out>
void Partition::merge(const std::vector<Buffer<T>>& parts, int width, Out* out, int stride) const {
  const int n = threads();
  parallel(n, [&](int t) {
    const ThreadRange& own = range(t);
    const auto add_halos = [&](int begin, int end) {
      for (int s = 0; s < n; ++s) {
        const ThreadRange& other = range(s);
        const auto first = std::lower_bound(other.halo.begin(), other.halo.end(), begin);
        const auto last = std::lower_bound(first, other.halo.end(), end);
        for (auto h = first; h != last; ++h) {
          const std::ptrdiff_t row = other.end - other.begin + (h - other.halo.begin());
          const T* from = parts[static_cast<std::size_t>(s)].data() + row * width;
          Out* to = out + static_cast<std::ptrdiff_t>(*h) * stride;
          for (int c = 0; c < width; ++c) to[c] += from[c];
        }
      }
    };
    const T* mine = parts[static_cast<std::size_t>(t)].data();
    const auto row = [&](int i) { return out + static_cast<std::ptrdiff_t>(i) * stride; };
    if (stride == width)
      std::copy_n(mine, static_cast<std::ptrdiff_t>(own.end - own.begin) * width, row(own.begin));
    else
      for (int i = own.begin; i < own.end; ++i) std::copy_n(mine + static_cast<std::ptrdiff_t>(i - own.begin) * width, width, row(i));
    add_halos(own.begin, own.end);
    // Ghost rows belong to no thread: each sums an equal share of them.
    const int ghosts = nall_ - nlocal_;
    const int g0 = nlocal_ + static_cast<int>(static_cast<std::int64_t>(ghosts) * t / n);
    const int g1 = nlocal_ + static_cast<int>(static_cast<std::int64_t>(ghosts) * (t + 1) / n);
    for (int i = g0; i < g1; ++i) std::fill_n(row(i), width, Out(0));
    add_halos(g0, g1);
  });
}

template void Partition::merge(const std::vector<Buffer<double>>&, int, double*, int) const;
template void Partition::merge(const std::vector<Buffer<float>>&, int, float*, int) const;
template void Partition::merge(const std::vector<Buffer<Dual<double>>>&, int, Dual<double>*, int) const;
template void Partition::merge(const std::vector<Buffer<Dual<float>>>&, int, Dual<float>*, int) const;

}  // namespace dpa2
