#include "neighbors/build.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <exception>

#include "error.hpp"
#include "neighbors/cells.hpp"
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
  list("repformer", s.rep);
  if (s.use_three) list("three-body", s.three);
  const std::size_t pairs = size(s.ntypes) * size(s.ntypes);
  if (s.ntypes <= 0 || (!s.pair_excluded.empty() && s.pair_excluded.size() != pairs) ||
      (!s.descr_excluded.empty() && s.descr_excluded.size() != pairs))
    throw internal_error("neighbour lists: the exclusion tables do not match ", s.ntypes, " types");
}

void check_atoms(const double* x, const int* types, int natoms, int ntypes) {
  if (natoms < 0) throw invalid_input("the number of atoms is negative: ", natoms);
  for (std::ptrdiff_t i = 0; i < natoms; ++i) {
    if (types[i] >= ntypes)
      throw invalid_input("atom ", i, " has type ", types[i], ", but the model has ", ntypes, " types");
    for (std::ptrdiff_t c = 0; c < 3; ++c)
      if (!std::isfinite(x[3 * i + c])) throw invalid_input("coordinate ", c, " of atom ", i, " is not finite: ", x[3 * i + c]);
  }
}

void prepare(Edges& edges, int nlocal, int nall) {
  edges.nlocal = nlocal;
  edges.nall = nall;
  edges.start.resize(size(nlocal) + 1);
  edges.start[0] = 0;
  edges.n_three.resize(size(nlocal));
  edges.n_rep.resize(size(nlocal));
  edges.pad1.resize(size(nlocal));
  edges.pad3.resize(size(nlocal));
  edges.overflow.clear();
}

void resize_edges(Edges& edges, std::size_t n) {
  edges.j.resize(n);
  edges.r.resize(n);
  edges.d.resize(3 * n);
  edges.image.resize(3 * n);
}

}  // namespace

struct NeighborBuilder::Scratch {
  ImageCells cells;
  std::vector<Finisher> workers;
  std::vector<std::exception_ptr> failures;

  template <class Candidates>
  void run(int nlocal, const int* types, const NeighborSettings& settings, int threads, Edges& edges, Candidates candidates);

 private:
  template <class Candidates>
  void run_block(std::size_t worker, int begin, int end, const int* types, Edges& edges, Candidates& candidates) noexcept;
  void check_workers(int threads) const;
};

template <class Candidates>
void NeighborBuilder::Scratch::run_block(std::size_t worker, int begin, int end, const int* types, Edges& edges,
                                         Candidates& candidates) noexcept {
  try {
    Finisher& finisher = workers[worker];
    finisher.begin_block();
    for (int i = begin; i < end; ++i) {
      if (types[i] < 0)
        finisher.finish_empty(i, edges);
      else
        finisher.finish(i, candidates(i, finisher), types, edges);
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
  if (first.centre >= 0)
    throw invalid_input("atoms ", first.centre, " and ", first.neighbor,
                        " are at the same place: the model is not defined at distance 0");
}

// candidates(i, finisher) writes the candidates of centre i to finisher.room(...) and returns their number.
template <class Candidates>
void NeighborBuilder::Scratch::run(int nlocal, const int* types, const NeighborSettings& settings, int threads, Edges& edges,
                                   Candidates candidates) {
#ifdef _OPENMP
  threads = std::max(1, std::min(threads, nlocal / 16));
#else
  threads = 1;
#endif
  if (workers.size() < size(threads)) workers.resize(size(threads));
  failures.assign(size(threads), nullptr);
  for (std::size_t t = 0; t < size(threads); ++t) workers[t].begin(settings);

  const int block = std::min(block_size, (nlocal + threads - 1) / std::max(1, threads));
  std::int64_t total = 0;
  for (int done = 0; done < nlocal;) {
    const int first = done;
    const auto begin = [=](int t) { return std::min(nlocal, first + t * block); };
    parallel(threads, [&](int t) { run_block(size(t), begin(t), begin(t + 1), types, edges, candidates); });
    check_workers(threads);
    done = begin(threads);

    std::int64_t needed = total;
    for (int t = 0; t < threads; ++t) needed += workers[size(t)].edge_count();
    if (edges.j.size() < size(needed)) {
      // As many edges per centre for the rest as so far, and a little more.
      const double estimate = 1.05 * static_cast<double>(needed) / done * nlocal;
      resize_edges(edges, std::max(size(needed), static_cast<std::size_t>(estimate)));
    }
    parallel(threads, [&](int t) {
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
}

NeighborBuilder::NeighborBuilder() : scratch_(std::make_unique<Scratch>()) {}
NeighborBuilder::~NeighborBuilder() = default;
NeighborBuilder::NeighborBuilder(NeighborBuilder&&) noexcept = default;
NeighborBuilder& NeighborBuilder::operator=(NeighborBuilder&&) noexcept = default;

void NeighborBuilder::build(const double* x, const int* types, int natoms, const Box& box, const NeighborSettings& settings,
                            int threads, Edges& edges) {
  try {
    check_settings(settings);
    check_atoms(x, types, natoms, settings.ntypes);
    prepare(edges, natoms, natoms);
    ImageCells& cells = scratch_->cells;
    cells.prepare(x, types, natoms, box, settings.repinit.rcut + distance_tolerance);
    scratch_->run(natoms, types, settings, threads, edges, [&cells](int i, Finisher& finisher) {
      cells.locate(i, finisher.search);
      return cells.gather(i, finisher.search, finisher.room(finisher.search.total + 1));
    });
  } catch (...) {
    edges.clear();
    throw;
  }
}

void NeighborBuilder::build_from_list(const double* x_all, const int* types_all, int nlocal, int nall, const int* numneigh,
                                      const int* const* firstneigh, int index_mask, const NeighborSettings& settings,
                                      int threads, Edges& edges) {
  try {
    check_settings(settings);
    check_atoms(x_all, types_all, nall, settings.ntypes);
    if (nlocal < 0 || nlocal > nall) throw invalid_input(nlocal, " centres among ", nall, " atoms");
    prepare(edges, nlocal, nall);
    const double radius = settings.repinit.rcut + distance_tolerance;
    scratch_->run(nlocal, types_all, settings, threads, edges, [=](int i, Finisher& finisher) {
      Candidate* out = finisher.room(numneigh[i] + 1);
      const double* xi = x_all + 3 * static_cast<std::ptrdiff_t>(i);
      int n = 0;
      for (int k = 0; k < numneigh[i]; ++k) {
        const int j = firstneigh[i][k] & index_mask;
        if (j < 0 || j >= nall)
          throw invalid_input("neighbour ", k, " of atom ", i, " is number ", j, ", but there are ", nall, " atoms");
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

}  // namespace dpa2
