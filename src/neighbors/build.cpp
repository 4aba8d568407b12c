#include "neighbors/build.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>
#include <utility>

#include "error.hpp"
#include "math/limits.hpp"
#include "neighbors/cells.hpp"
#include "neighbors/errors.hpp"
#include "neighbors/finish.hpp"
#include "threads.hpp"

namespace dpa2 {
namespace {

// Centres that one thread finishes before their edges are copied to the result: the edges of a block stay in its cache, and
// the scratch memory does not grow with the system.
constexpr int block_size = 128;

std::size_t size(std::ptrdiff_t n) { return static_cast<std::size_t>(n); }

void check_settings(const NeighborSettings& s) {
  const auto list = [](const char* name, const ListSpec& spec) {
    if (!(spec.rcut > 0.0) || !std::isfinite(spec.rcut) || spec.nsel <= 0)
      throw invalid_input("neighbour list of ", name, ": rcut ", spec.rcut, " and nsel ", spec.nsel, " must be positive");
  };
  list("repinit", s.repinit);
  list("repformer", s.repformer);
  if (s.use_three) list("three-body", s.three);
  const std::size_t pairs = size(s.ntypes) * size(s.ntypes);
  if (s.ntypes <= 0 || (!s.pair_excluded.empty() && s.pair_excluded.size() != pairs) ||
      (!s.descr_excluded.empty() && s.descr_excluded.size() != pairs))
    throw internal_error("neighbour lists: the exclusion tables do not match ", s.ntypes, " types");
}

void prepare(Edges& edges, int nlocal, int nall) {
  edges.nlocal = nlocal;
  edges.nall = nall;
  edges.start.resize(size(nlocal) + 1);
  edges.start[0] = 0;
  edges.n_three.resize(size(nlocal));
  edges.n_repformer.resize(size(nlocal));
  edges.pad_repinit.resize(size(nlocal));
  edges.pad_three.resize(size(nlocal));
  edges.overflow.clear();
  edges.closest = {};
}

// How many threads share the centres: fewer than there are, where each would have little to do.
int shares([[maybe_unused]] int threads, [[maybe_unused]] int centres) {
#ifdef _OPENMP
  return std::max(1, std::min(threads, centres / 16));
#else
  return 1;
#endif
}

std::size_t bytes_per_edge(const Edges& edges) { return (edges.keep_image ? 4 : 1) * sizeof(int) + 4 * sizeof(double); }

void resize_edges(Edges& edges, std::size_t n) {
  edges.j.resize(n);
  edges.r.resize(n);
  edges.d.resize(3 * n);
  if (edges.keep_image) edges.image.resize(3 * n);
}

}  // namespace

void check_atoms(const double* x, const int* types, int natoms, int ntypes, const int* ids) {
  if (natoms < 0) throw invalid_input("the number of atoms is negative: ", natoms);
  const auto id = [&](std::ptrdiff_t i) { return ids != nullptr ? ids[i] : static_cast<int>(i); };
  for (std::ptrdiff_t i = 0; i < natoms; ++i) {
    if (types[i] >= ntypes) throw unknown_type(id(i), types[i], ntypes);
    for (std::ptrdiff_t c = 0; c < 3; ++c)
      if (const double v = x[3 * i + c]; !(std::abs(v) <= largest_length)) throw bad_coordinate(id(i), static_cast<int>(c), v);
  }
}

struct NeighborBuilder::Scratch {
  ImageCells cells;
  std::vector<Finisher> workers;
  std::vector<std::exception_ptr> failures;
  std::function<void(std::int64_t)> guard;
  const int* ids = nullptr;
  std::vector<int> row_of;  // (natoms) in the lists, where another order is asked for

  // The candidates of centre i: count[i] images from first[i] of lists[i / block].
  struct Verlet {
    bool valid = false;
    double rcut = 0.0, skin = 0.0;
    Box box;
    std::vector<int> types;
    std::vector<std::vector<ImageCells::Image>> lists;
    std::vector<std::int64_t> first;
    std::vector<int> count;
    int block = 1;
  } verlet;

  template <class Candidates>
  void run(int nlocal, const int* types, const NeighborSettings& settings, const int* atoms, int threads, Edges& edges,
           Candidates candidates, bool numbered = false);

 private:
  template <class Candidates>
  void run_block(std::size_t worker, int begin, int end, const int* types, const int* atoms, Edges& edges, Candidates& candidates) noexcept;
  void check_workers(int threads) const;
};

template <class Candidates>
void NeighborBuilder::Scratch::run_block(std::size_t worker, int begin, int end, const int* types, const int* atoms, Edges& edges,
                                         Candidates& candidates) noexcept {
  try {
    Finisher& finisher = workers[worker];
    finisher.begin_block();
    for (int row = begin; row < end; ++row) {
      const int i = atoms != nullptr ? atoms[row] : row;
      if (types[i] < 0)
        finisher.finish_empty(row, edges);
      else
        finisher.finish(i, row, candidates(i, finisher), types, edges);
    }
  } catch (...) {
    failures[worker] = std::current_exception();  // must not leave a parallel region
  }
}

void NeighborBuilder::Scratch::check_workers(int threads) const {
  Finisher::Coincidence first;
  for (std::size_t t = 0; t < size(threads); ++t) {
    if (failures[t]) std::rethrow_exception(failures[t]);
    const Finisher::Coincidence c = workers[t].coincidence();
    if (c.centre >= 0 && (first.centre < 0 || c.centre < first.centre)) first = c;
  }
  if (first.centre >= 0) throw same_place(first.centre, first.neighbor);
}

// candidates(i, finisher) writes the candidates of atom i to finisher.room(...) and returns their number. atoms: see refresh().
template <class Candidates>
void NeighborBuilder::Scratch::run(int nlocal, const int* types, const NeighborSettings& settings, const int* atoms, int threads,
                                   Edges& edges, Candidates candidates, bool numbered) {
  if (atoms != nullptr) {
    row_of.resize(size(nlocal));
    for (int row = 0; row < nlocal; ++row) row_of[size(atoms[row])] = row;
  }
  const int team = std::min(threads, nlocal);
  threads = shares(threads, nlocal);
  if (workers.size() < size(threads)) workers.resize(size(threads));
  failures.assign(size(threads), nullptr);
  for (std::size_t t = 0; t < size(threads); ++t) workers[t].begin(settings, ids, atoms != nullptr ? row_of.data() : nullptr, numbered);

  const int block = std::min(block_size, (nlocal + threads - 1) / std::max(1, threads));
  std::int64_t total = 0;
  for (int done = 0; done < nlocal;) {
    const int first = done;
    const auto begin = [=](int t) { return std::min(nlocal, first + t * block); };
    parallel(threads, team, [&](int t) { run_block(size(t), begin(t), begin(t + 1), types, atoms, edges, candidates); });
    check_workers(threads);
    done = begin(threads);

    std::int64_t needed = total;
    for (int t = 0; t < threads; ++t) needed += workers[size(t)].edge_count();
    if (edges.j.size() < size(needed)) {
      // As many edges per centre for the rest as so far, and a little more.
      const double estimate = 1.05 * static_cast<double>(needed) / done * nlocal;
      std::size_t rows = std::max(size(needed), static_cast<std::size_t>(estimate));
      // What earlier steps took is used before more is taken.
      if (rows > edges.j.capacity()) {
        if (edges.j.capacity() >= size(needed))
          rows = edges.j.capacity();
        else if (guard)
          guard(static_cast<std::int64_t>((rows - edges.j.capacity()) * bytes_per_edge(edges)));
      }
      resize_edges(edges, rows);
    }
    parallel(threads, team, [&](int t) {
      std::int64_t at = total;
      for (int before = 0; before < t; ++before) at += workers[size(before)].edge_count();
      workers[size(t)].copy_to(edges, at);
    });
    total = needed;
  }
  resize_edges(edges, size(total));
  for (std::size_t i = 0; i < size(nlocal); ++i) edges.start[i + 1] += edges.start[i];

  Overflow worst[3];
  for (std::size_t t = 0; t < size(threads); ++t) workers[t].merge_overflow(worst);
  for (const Overflow& w : worst)
    if (w.sel > 0) edges.overflow.push_back(w);
  for (std::size_t t = 0; t < size(threads); ++t)
    if (workers[t].closest().before(edges.closest)) edges.closest = workers[t].closest();
}

NeighborBuilder::NeighborBuilder() : scratch_(std::make_unique<Scratch>()) {}
NeighborBuilder::~NeighborBuilder() = default;
NeighborBuilder::NeighborBuilder(NeighborBuilder&&) noexcept = default;
NeighborBuilder& NeighborBuilder::operator=(NeighborBuilder&&) noexcept = default;

void NeighborBuilder::build(const double* x, const int* types, int natoms, const Box& box, const NeighborSettings& settings, int threads,
                            Edges& edges) {
  try {
    check_settings(settings);
    check_atoms(x, types, natoms, settings.ntypes, scratch_->ids);
    prepare(edges, natoms, natoms);
    ImageCells& cells = scratch_->cells;
    scratch_->verlet.valid = false;
    cells.prepare(x, types, natoms, box, settings.repinit.rcut + distance_tolerance, false, scratch_->ids);
    scratch_->run(natoms, types, settings, nullptr, threads, edges, [&cells](int i, Finisher& finisher) {
      cells.locate(i, finisher.search);
      return cells.gather(i, finisher.search, finisher.room(finisher.search.total + 1));
    });
  } catch (...) {
    edges.clear();
    throw;
  }
}

void NeighborBuilder::build_from_list(const double* x_all, const int* types_all, int nlocal, int nall, const int* numneigh,
                                      const int* const* firstneigh, int index_mask, const NeighborSettings& settings, int threads,
                                      Edges& edges) {
  try {
    check_settings(settings);
    check_atoms(x_all, types_all, nall, settings.ntypes, scratch_->ids);
    if (nlocal < 0 || nlocal > nall) throw invalid_input(nlocal, " centres among ", nall, " atoms");
    prepare(edges, nlocal, nall);
    const double radius = settings.repinit.rcut + distance_tolerance;
    scratch_->run(nlocal, types_all, settings, nullptr, threads, edges, [=](int i, Finisher& finisher) {
      Candidate* out = finisher.room(numneigh[i] + 1);
      const double* xi = x_all + 3 * static_cast<std::ptrdiff_t>(i);
      int n = 0;
      for (int k = 0; k < numneigh[i]; ++k) {
        const int j = firstneigh[i][k] & index_mask;
        if (j < 0 || j >= nall) throw invalid_input("neighbour ", k, " of atom ", i, " is number ", j, ", but there are ", nall, " atoms");
        if (types_all[j] < 0 || j == i) continue;
        const double* xj = x_all + 3 * static_cast<std::ptrdiff_t>(j);
        Candidate& c = out[n];
        for (int a = 0; a < 3; ++a) {
          c.d[a] = xj[a] - xi[a];
          c.n[a] = 0;
        }
        c.r = std::sqrt(c.d[0] * c.d[0] + c.d[1] * c.d[1] + c.d[2] * c.d[2]);
        c.j = j;
        n += static_cast<int>(c.r <= radius);
      }
      return n;
    });
  } catch (...) {
    edges.clear();
    throw;
  }
}

void NeighborBuilder::build_from_edges(const Edges& whole, const int* types, const NeighborSettings& settings, int threads, Edges& edges) {
  try {
    check_settings(settings);
    prepare(edges, whole.nlocal, whole.nall);
    const double radius = settings.repinit.rcut + distance_tolerance;
    const auto candidates = [&whole, radius](int i, Finisher& finisher) {
      const std::int64_t first = whole.start[size(i)];
      const int count = whole.count(i);
      Candidate* out = finisher.room(count + 1);
      int n = 0;
      for (int k = 0; k < count; ++k) {
        const std::int64_t e = first + k;
        if (!(whole.r[size(e)] <= radius)) continue;
        Candidate& c = out[n++];
        c.r = whole.r[size(e)];
        std::copy_n(whole.d.begin() + 3 * e, 3, c.d);
        c.j = whole.j[size(e)];
        c.n[0] = k;
        c.n[1] = c.n[2] = 0;
      }
      return n;
    };
    scratch_->run(whole.nlocal, types, settings, nullptr, threads, edges, candidates, true);
  } catch (...) {
    edges.clear();
    throw;
  }
}

void NeighborBuilder::set_ids(const int* ids) { scratch_->ids = ids; }

void NeighborBuilder::set_guard(std::function<void(std::int64_t)> guard) { scratch_->guard = std::move(guard); }

void NeighborBuilder::build_candidates(const double* x, const int* types, int natoms, const Box& box, const NeighborSettings& settings,
                                       double skin, int threads) {
  if (!(skin >= 0.0) || !std::isfinite(skin)) throw invalid_input("the skin must be a length, not ", skin);
  check_settings(settings);
  check_atoms(x, types, natoms, settings.ntypes, scratch_->ids);
  Scratch::Verlet& list = scratch_->verlet;
  const ImageCells& cells = scratch_->cells;
  list.valid = false;
  // Once for the tolerance of the cutoff, once for the rounding of the displacements.
  scratch_->cells.prepare(x, types, natoms, box, settings.repinit.rcut + skin + 2.0 * distance_tolerance, true, scratch_->ids);
  list.rcut = settings.repinit.rcut;
  list.skin = skin;
  list.box = box;
  list.types.assign(types, types + natoms);
  list.first.assign(size(natoms), 0);
  list.count.assign(size(natoms), 0);
  const int team = std::min(threads, natoms);
  threads = shares(threads, natoms);
  list.block = std::max(1, (natoms + threads - 1) / threads);
  if (list.lists.size() < size(threads)) list.lists.resize(size(threads));
  if (scratch_->workers.size() < size(threads)) scratch_->workers.resize(size(threads));
  parallel(threads, team, [&](int t) {
    std::vector<ImageCells::Image>& out = list.lists[size(t)];
    ImageCells::Search& search = scratch_->workers[size(t)].search;
    out.clear();
    const int begin = std::min(natoms, t * list.block), end = std::min(natoms, begin + list.block);
    for (int i = begin; i < end; ++i) {
      list.first[size(i)] = static_cast<std::int64_t>(out.size());
      if (types[i] < 0) continue;
      cells.locate(i, search);
      cells.list(i, search, out);
      list.count[size(i)] = static_cast<int>(static_cast<std::int64_t>(out.size()) - list.first[size(i)]);
    }
  });
  list.valid = true;
}

bool NeighborBuilder::holds(const double* x, const int* types, int natoms, const Box& box, const NeighborSettings& settings) const {
  const Scratch::Verlet& list = scratch_->verlet;
  return list.valid && list.rcut == settings.repinit.rcut && static_cast<std::size_t>(natoms) == list.types.size() &&
         list.box.rows() == box.rows() && list.box.periodic() == box.periodic() &&
         std::equal(list.types.begin(), list.types.end(), types) && scratch_->cells.close_to(x, types, 0.5 * list.skin);
}

bool NeighborBuilder::refresh(const double* x, const int* types, int natoms, const Box& box, const NeighborSettings& settings,
                              const int* atoms, int threads, Edges& edges) {
  const Scratch::Verlet& list = scratch_->verlet;
  if (!holds(x, types, natoms, box, settings)) return false;
  check_settings(settings);
  check_atoms(x, types, natoms, settings.ntypes, scratch_->ids);
  try {
    ImageCells& cells = scratch_->cells;
    if (!cells.follow(x, types, 0.5 * list.skin, scratch_->ids)) return false;
    prepare(edges, natoms, natoms);
    const double radius = settings.repinit.rcut + distance_tolerance;
    scratch_->run(natoms, types, settings, atoms, threads, edges, [&cells, &list, radius](int i, Finisher& finisher) {
      const int count = list.count[size(i)];
      const ImageCells::Image* images = list.lists[size(i / list.block)].data() + list.first[size(i)];
      return cells.measure(i, images, count, radius, finisher.search, finisher.room(count + 1));
    });
  } catch (...) {
    edges.clear();
    throw;
  }
  return true;
}

}  // namespace dpa2
