#include "graph/hybrid.hpp"

#include <algorithm>
#include <utility>

#include "graph/lanes.hpp"
#include "neighbors/settings.hpp"
#include "threads.hpp"

namespace dpa2 {

template <class R>
PreparedHybrid<R>::PreparedHybrid(const Config& config, Folded folded)
    : head(config, folded.fitting, std::move(folded.head)), rcut(config.rcut()) {
  int column = 0, row = 0;
  for (std::size_t k = 0; k < config.descriptors.size(); ++k) {
    Config own = config.descriptors[k];
    own.pair_exclude_types = config.pair_exclude_types;
    HybridPart<R> part;
    part.network = own.descriptor_type == "dpa2";
    part.column = column;
    part.row = row;
    column += own.descriptor_dim();
    row += own.g2_dim();
    if (part.network) {
      part.lists = neighbor_settings(own);
      part.lists.kept = 0;  // a hybrid in another one has at least as many
    } else {
      part.se_lists = se_settings(own);
    }
    part.model = std::make_unique<Prepared<R>>(own, std::move(folded.descriptors[k]));
    parts.push_back(std::move(part));
  }
}

template <class R>
int PreparedHybrid<R>::widest() const noexcept {
  int most = 0;
  for (const HybridPart<R>& part : parts)
    if (part.network) most = std::max(most, part.model->n1);
  return most;
}

namespace {

/// Puts the rows of a network beside those of the others.
template <class T>
class Columns : public Readout<T> {
 public:
  using R = Real<T>;
  Columns(const HybridPart<R>& part, T* g1, T* rot, int n1, int n2) : p_(part), g1_(g1), rot_(rot), n1_(n1), n2_(n2) {}
  [[nodiscard]] bool rotation() const override { return rot_ != nullptr; }
  void tile(int i0, int i1, const Rows<const T>& rows, const Rows<T>*, Arena&) override {
    const Prepared<R>& m = *p_.model;
    for (std::ptrdiff_t i = i0; i < i1; ++i) {
      const std::ptrdiff_t own = i - i0;
      std::copy_n(rows.g1 + own * m.n1, m.n1_real, g1_ + i * n1_ + p_.column);
      for (std::ptrdiff_t x = 0; rot_ != nullptr && x < 3; ++x)
        std::copy_n(rows.rot + (3 * own + x) * m.n2, m.n2_real, rot_ + (3 * i + x) * n2_ + p_.row);
    }
  }

 private:
  const HybridPart<R>& p_;
  T *g1_, *rot_;
  std::ptrdiff_t n1_, n2_;
};

/// Gives a network its share of the gradient.
template <class T>
class ColumnSeeds : public Readout<T> {
 public:
  using R = Real<T>;
  ColumnSeeds(const HybridPart<R>& part, const T* dg1, const T* drot, int n1, int n2)
      : p_(part), dg1_(dg1), drot_(drot), n1_(n1), n2_(n2) {}
  [[nodiscard]] bool rotation() const override { return drot_ != nullptr; }
  void tile(int i0, int i1, const Rows<const T>&, const Rows<T>* gradient, Arena&) override {
    const Prepared<R>& m = *p_.model;
    for (std::ptrdiff_t i = i0; i < i1; ++i) {
      const std::ptrdiff_t own = i - i0;
      T* to = gradient->g1 + own * m.n1;
      std::copy_n(dg1_ + i * n1_ + p_.column, m.n1_real, to);
      std::fill_n(to + m.n1_real, m.n1 - m.n1_real, T(0));
      for (std::ptrdiff_t x = 0; drot_ != nullptr && x < 3; ++x) {
        to = gradient->rot + (3 * own + x) * m.n2;
        std::copy_n(drot_ + (3 * i + x) * n2_ + p_.row, m.n2_real, to);
        std::fill_n(to + m.n2_real, m.n2 - m.n2_real, T(0));
      }
    }
  }

 private:
  const HybridPart<R>& p_;
  const T *dg1_, *drot_;
  std::ptrdiff_t n1_, n2_;
};

int type_of(const Frame& frame, int row) { return std::max(0, frame.types[row]); }

}  // namespace

template <class T>
HybridDescriptor<T>::HybridDescriptor(const Model& model) : m_(model), parts_(model.parts.size()) {
  for (std::size_t k = 0; k < parts_.size(); ++k)
    if (m_.parts[k].network) parts_[k].network = std::make_unique<Descriptor<T>>(*m_.parts[k].model);
}

template <class T>
template <class F>
void HybridDescriptor<T>::for_tiles(F f) {
  parallel(ws_.partition.threads(), [&](int t) {
    const ThreadRange& range = ws_.partition.range(t);
    for (int i0 = range.begin; i0 < range.end; i0 += tile_size)
      f(t, i0, std::min(i0 + tile_size, range.end), *ws_.arenas[static_cast<std::size_t>(t)]);
  });
}

/// The lists of all parts, from the frame's.
template <class T>
void HybridDescriptor<T>::make_lists(int threads) {
  for (std::size_t k = 0; k < parts_.size(); ++k) {
    const HybridPart<R>& p = m_.parts[k];
    Part& part = parts_[k];
    part.frame = *frame_;
    part.frame.edges = &part.lists.edges;
    if (p.network) {
      part.builder.set_ids(frame_->ids);
      part.builder.set_guard([this](std::int64_t bytes) { require_memory(bytes, frame_->edges->nlocal); });
      part.builder.build_from_edges(*frame_->edges, frame_->types, p.lists, threads, part.lists.edges);
    } else {
      build_se_lists(*frame_->edges, frame_->types, frame_->ids, frame_->pad_type, p.se_lists, threads, part.lists);
    }
  }
}

template <class T>
void HybridDescriptor<T>::begin(const Frame& frame, int threads, const Task& task) {
  frame_ = &frame;
  const Edges& edges = *frame.edges;
  const std::size_t held = bytes();
  threads = share_out(ws_, edges, threads);
  std::vector<std::int64_t> rows = std::move(ws_.extent.rows);  // keeps its memory
  rows.clear();
  for (int t = 0; t < threads; ++t) rows.push_back(ws_.partition.range(t).rows());
  Extent extent;  // of what does not belong to one of the parts
  extent.nlocal = edges.nlocal;
  extent.nall = edges.nall;
  extent.nedge = edges.nedge();
  extent.nlayers = 1;
  extent.values = task.values;
  extent.gradient = task.gradient;
  extent.atom_virial = task.atom_virial == AtomVirial::edge;
  extent.deepmd_virial = task.gradient && task.atom_virial == AtomVirial::deepmd;
  extent.rows = std::move(rows);
  Thrift thrift;
  plan(ws_, std::move(extent), thrift);
  make_lists(threads);
  for (Part& part : parts_)
    if (part.network) part.network->begin(part.frame, threads, {task.gradient, AtomVirial::none, 0});
  // What each part has taken by itself must be there for all at once, and for the rows that are made as they are asked for.
  const Count rows_of_all = Count(edges.nlocal) * m_.head.n1 * (task.gradient ? 2 : 1) * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t missing = rows_of_all.value() - static_cast<std::int64_t>(g1_.bytes() + dg1_.bytes());
  require_memory(static_cast<std::int64_t>(bytes() - held) + std::max<std::int64_t>(0, missing), edges.nlocal);
  have_g1_ = have_rot_ = false;
}

template <class T>
void HybridDescriptor<T>::forward(Exchange* exchange) {
  for (Part& part : parts_)
    if (part.network) part.network->forward(exchange);
}

/// What the padded slots of centre i add, in memory of the arena.
template <class T>
auto HybridDescriptor<T>::padding(const HybridPart<R>& p, const Part& part, int i, Arena& arena) const -> RepinitPad<R> {
  const Prepared<R>& m = *p.model;
  RepinitPad<R> pad;
  if (!m.has_pad_repinit) return pad;
  const int ti = type_of(*frame_, i), ng = m.repinit.ng;
  R* G = arena.take<R>(ng);
  std::fill_n(G, ng, R(0));
  for (int a = 0; a < m.ntypes; ++a) {
    const R count =
        static_cast<R>(part.lists.pads[static_cast<std::size_t>(i) * static_cast<std::size_t>(m.ntypes) + static_cast<std::size_t>(a)]);
    const R* of_type = m.pad_G + (static_cast<long>(a) * m.ntypes + ti) * ng;
    for (int c = 0; c < ng; ++c) G[c] += count * of_type[c];
  }
  pad.weight = m.repinit.inv_nsel;
  pad.R = m.pad_R + 4L * ti;
  pad.G = G;
  return pad;
}

/// Unless null, row (n1) and rot (3, n2) of centre i, as far as they are this part's: those of all begin there.
template <class T>
void HybridDescriptor<T>::se_forward(const HybridPart<R>& p, const Part& part, int i, T* row, T* rot, Arena& arena) const {
  const Arena::Mark mark = arena.mark();
  const Prepared<R>& m = *p.model;
  const Lanes<T> e = repinit_lanes(m, kernels<T>(), part.frame, i, arena);
  T* D = arena.take<T>(m.n1_real);
  T* M = arena.take<T>(4L * m.n2);
  kernels<T>().repinit(m.repinit, e.n, e.m, D, M, e.R, e.sw, e.index, padding(p, part, i, arena), arena);
  if (row != nullptr) std::copy_n(D, m.n1_real, row + p.column);
  for (int x = 0; rot != nullptr && x < 3; ++x)
    std::copy_n(M + static_cast<std::ptrdiff_t>(x + 1) * m.n2, m.n2_real, rot + static_cast<std::ptrdiff_t>(x) * m_.head.n2 + p.row);
  arena.release(mark);
}

/// gamma += the gradient with respect to the edge vectors of centre i, given those of its row and rot, or null.
template <class T>
void HybridDescriptor<T>::se_backward(const HybridPart<R>& p, const Part& part, int i, const T* row, const T* rot, double* gamma,
                                      Arena& arena) const {
  const Arena::Mark mark = arena.mark();
  const Prepared<R>& m = *p.model;
  const Kernels<T>& k = kernels<T>();
  const Lanes<T> e = repinit_lanes(m, k, part.frame, i, arena);
  T* dR = arena.take<T>(4L * e.m);
  T* dsw = arena.take<T>(e.m);
  T* g = arena.take<T>(3L * e.m);
  T* dV = rot != nullptr ? arena.take<T>(3L * m.n2) : nullptr;
  std::fill_n(dR, 4L * e.m, T(0));
  std::fill_n(dsw, e.m, T(0));
  std::fill_n(g, 3L * e.m, T(0));
  for (std::ptrdiff_t x = 0; dV != nullptr && x < 3; ++x) {
    std::copy_n(rot + x * m_.head.n2 + p.row, m.n2_real, dV + x * m.n2);
    std::fill_n(dV + x * m.n2 + m.n2_real, m.n2 - m.n2_real, T(0));
  }
  k.repinit_backward(m.repinit, e.n, e.m, dR, dsw, nullptr, row + p.column, dV, e.R, e.sw, e.index, padding(p, part, i, arena), arena);
  k.env_mat_backward(e.m, g, dR, dsw, e.d, e.r, m.stats_repinit.cut, m.stats_repinit.inv_std + 4L * type_of(*frame_, i));
  const std::size_t own = static_cast<std::size_t>(part.lists.edges.start[static_cast<std::size_t>(i)]);
  const std::int64_t whole = frame_->edges->start[static_cast<std::size_t>(i)];
  for (int l = 0; l < e.n; ++l) {
    double* to = gamma + 3 * (whole + part.lists.slot[own + static_cast<std::size_t>(l)]);
    for (int x = 0; x < 3; ++x) to[x] += static_cast<double>(math::gradient_of(g[x * e.m + l]));
  }
  arena.release(mark);
}

/// The rows of all parts, as far as they are not there yet.
template <class T>
void HybridDescriptor<T>::collect(bool rotation) {
  const bool g1 = !have_g1_, rot = rotation && !have_rot_;
  if (!g1 && !rot) return;
  const Prepared<R>& h = m_.head;
  const std::size_t nlocal = static_cast<std::size_t>(frame_->edges->nlocal);
  const std::size_t size = nlocal * static_cast<std::size_t>(h.n1), moments = nlocal * 3 * static_cast<std::size_t>(h.n2);
  if (g1) g1_.zeros(size);
  if (rot) rot_.zeros(moments);
  have_g1_ = true;
  have_rot_ = have_rot_ || rot;
  T* const all_rot = rot ? rot_.data() : nullptr;
  for (std::size_t k = 0; k < parts_.size(); ++k) {
    const HybridPart<R>& p = m_.parts[k];
    if (p.network) {
      Columns<T> columns(p, g1_.data(), all_rot, h.n1, h.n2);
      parts_[k].network->read(columns);
    }
    const Prepared<R>& m = *p.model;
    for_tiles([&](int, int i0, int i1, Arena& arena) {
      for (std::ptrdiff_t i = i0; i < i1; ++i) {
        T* row = g1_.data() + i * h.n1;
        if (!p.network) se_forward(p, parts_[k], static_cast<int>(i), row, all_rot != nullptr ? all_rot + i * 3 * h.n2 : nullptr, arena);
        const R* types = m.tebd + static_cast<std::ptrdiff_t>(type_of(*frame_, static_cast<int>(i))) * m.tebd_dim;
        for (int c = 0; m.concat_tebd && c < m.tebd_dim; ++c) row[p.column + m.n1_real + c] = types[c];
      }
    });
  }
}

template <class T>
void HybridDescriptor<T>::read(Readout<T>& readout) {
  collect(readout.rotation());
  const Prepared<R>& h = m_.head;
  for_tiles([&](int, int i0, int i1, Arena& arena) {
    const std::ptrdiff_t first = i0;
    readout.tile(i0, i1, {g1_.data() + first * h.n1, readout.rotation() ? rot_.data() + first * 3 * h.n2 : nullptr}, nullptr, arena);
  });
}

/// gamma (nedge, 3) = the gradients of the edge vectors of the frame.
template <class T>
void HybridDescriptor<T>::gradients(Exchange* exchange, Readout<T>& readout, double* gamma) {
  const bool rotation = readout.rotation();
  collect(rotation);
  const Prepared<R>& h = m_.head;
  const Edges& whole = *frame_->edges;
  const std::size_t nlocal = static_cast<std::size_t>(whole.nlocal);
  dg1_.resize(nlocal * static_cast<std::size_t>(h.n1));
  if (rotation) drot_.resize(nlocal * 3 * static_cast<std::size_t>(h.n2));
  for_tiles([&](int, int i0, int i1, Arena& arena) {
    const std::ptrdiff_t first = i0;
    const Rows<T> gradient{dg1_.data() + first * h.n1, rotation ? drot_.data() + first * 3 * h.n2 : nullptr};
    readout.tile(i0, i1, {g1_.data() + first * h.n1, rotation ? rot_.data() + first * 3 * h.n2 : nullptr}, &gradient, arena);
    for (std::int64_t e = 3 * whole.start[static_cast<std::size_t>(i0)]; e < 3 * whole.start[static_cast<std::size_t>(i1)]; ++e)
      gamma[e] = 0;
  });
  T* const drot = rotation ? drot_.data() : nullptr;
  for (std::size_t k = 0; k < parts_.size(); ++k) {
    const HybridPart<R>& p = m_.parts[k];
    Part& part = parts_[k];
    const Edges& edges = part.lists.edges;
    if (p.network) {
      ColumnSeeds<T> seeds(p, dg1_.data(), drot, h.n1, h.n2);
      double* own = part.gamma.resize(3 * static_cast<std::size_t>(edges.nedge()) + 1);
      part.network->backward(exchange, seeds, own);
      for_tiles([&](int, int i0, int i1, Arena&) {
        for (std::size_t i = static_cast<std::size_t>(i0); i < static_cast<std::size_t>(i1); ++i)
          for (std::int64_t e = edges.start[i]; e < edges.start[i + 1]; ++e) {
            double* to = gamma + 3 * (whole.start[i] + edges.image[3 * static_cast<std::size_t>(e)]);
            for (int x = 0; x < 3; ++x) to[x] += own[3 * e + x];
          }
      });
      continue;
    }
    for_tiles([&](int, int i0, int i1, Arena& arena) {
      for (std::ptrdiff_t i = i0; i < i1; ++i)
        se_backward(p, part, static_cast<int>(i), dg1_.data() + i * h.n1, drot != nullptr ? drot + i * 3 * h.n2 : nullptr, gamma, arena);
    });
  }
}

template <class T>
void HybridDescriptor<T>::backward(Exchange* exchange, Readout<T>& readout, double* gamma) {
  gradients(exchange, readout, gamma);
}

template <class T>
void HybridDescriptor<T>::backward(Exchange* exchange, Readout<T>& readout, const Forces& out) {
  const Edges& edges = *frame_->edges;
  double* gamma = gamma_.resize(3 * static_cast<std::size_t>(edges.nedge()) + 1);
  gradients(exchange, readout, gamma);
  clear_sums(ws_, out);
  for_tiles([&](int t, int i0, int i1, Arena& arena) {
    for (int i = i0; i < i1; ++i) {
      const Arena::Mark mark = arena.mark();
      const std::size_t s = static_cast<std::size_t>(t), e0 = static_cast<std::size_t>(edges.start[static_cast<std::size_t>(i)]);
      const int n = edges.count(i), m = padded<double>(n);
      double* lanes = arena.take<double>(3L * m);
      for (int e = 0; e < m; ++e)
        for (int x = 0; x < 3; ++x) lanes[x * m + e] = e < n ? gamma[3 * (static_cast<std::ptrdiff_t>(e0) + e) + x] : 0.0;
      kernels<double>().assemble(n, m, ws_.force[s].data(), i - ws_.partition.range(t).begin, ws_.partition.local() + e0,
                                 ws_.virial[s].data(), out.atom_virial != nullptr ? ws_.atom_virial[s].data() : nullptr, lanes,
                                 edges.d.data() + 3 * e0);
      arena.release(mark);
    }
  });
  merge_sums(ws_, out);
}

template <class T>
void HybridDescriptor<T>::require(std::int64_t natoms, const Task& task) {
  for (Part& part : parts_)
    if (part.network) part.network->require(natoms, {task.gradient, AtomVirial::none, 0});
}

template <class T>
void HybridDescriptor<T>::save(const Thrift& thrift) noexcept {
  for (Part& part : parts_)
    if (part.network) part.network->save(thrift);
}

template <class T>
std::size_t HybridDescriptor<T>::bytes() {
  std::size_t bytes = ws_.held() + g1_.bytes() + rot_.bytes() + dg1_.bytes() + drot_.bytes() + gamma_.bytes();
  for (Part& part : parts_) bytes += part.gamma.bytes() + (part.network ? part.network->bytes() : 0);
  return bytes;
}

template <class T>
std::int64_t HybridDescriptor<T>::memory_estimate(const Task& task, const MemoryQuestion& q) const {
  const Prepared<R>& h = m_.head;
  const int passes = task.gradient ? 2 : 1;
  const Count rows = Count(q.natoms) * (h.n1 + 3 * h.n2) * passes * static_cast<std::int64_t>(sizeof(T));
  const Count coefficients =
      Count(8) * std::max(h.fitting.in, h.fitting.stride) * tile_size * q.threads * static_cast<std::int64_t>(sizeof(T));
  Count bytes = rows + coefficients + Count(q.nedge) * 24 * passes + partition_bytes(q) + neighbor_bytes(q) + result_bytes(q);
  for (const HybridPart<R>& p : m_.parts) {
    const double rcut = p.network ? p.lists.repinit.rcut : p.se_lists.rcut, ratio = rcut / m_.rcut;
    const int nsel = p.network ? p.lists.repinit.nsel : p.se_lists.nsel;
    const auto edges = [&](int most, double share) {
      return std::min((Count(q.natoms) * most).value(), Count::of(static_cast<double>(q.nedge) * share * share * share).value());
    };
    MemoryQuestion own = q;
    own.candidates = 0;
    own.images = 0;
    own.values = 1;
    own.quantities = 0;
    own.nedge = edges(nsel, ratio);
    if (!p.network) {
      bytes = bytes + Count(own.nedge) * 44 + Count(q.natoms) * 4 * h.ntypes;
      continue;
    }
    own.nedge_repformer = edges(p.lists.repformer.nsel, p.lists.repformer.rcut / m_.rcut);
    own.atom_virial = AtomVirial::none;
    bytes = bytes + dpa2::memory_estimate(*p.model, {task.gradient, AtomVirial::none, 0}, own) + Count(own.nedge) * 36;
  }
  return bytes.value();
}

template <class T>
void HybridDescriptor<T>::remark(const Frame& frame, Remarks& remarks) const {
  remarks.overflow.clear();
  remarks.closest = {};
  bool said = false;  // the list of the whole is that of one of the parts
  for (std::size_t k = 0; k < parts_.size(); ++k) {
    const Edges& edges = parts_[k].lists.edges;
    for (const Overflow& o : edges.overflow) {
      const auto same =
          std::find_if(remarks.overflow.begin(), remarks.overflow.end(), [&](const Overflow& w) { return w.block == o.block; });
      if (same == remarks.overflow.end())
        remarks.overflow.push_back(o);
      else if (o.count - o.sel > same->count - same->sel)
        *same = o;
      said = said || (o.block == Block::repinit && o.rcut == m_.rcut);
    }
    if (edges.closest.before(remarks.closest)) remarks.closest = edges.closest;
  }
  for (const Overflow& o : frame.edges->overflow)
    if (o.block == Block::repinit && !said) remarks.overflow.push_back({Block::hybrid, o.atom, o.count, o.sel, o.rcut});
}

template struct PreparedHybrid<double>;
template struct PreparedHybrid<float>;
template class HybridDescriptor<double>;
template class HybridDescriptor<float>;
template class HybridDescriptor<Dual<double>>;
template class HybridDescriptor<Dual<float>>;

}  // namespace dpa2
