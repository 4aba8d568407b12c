// Lists refreshed from candidates with skin against lists built anew, along random walks.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "error.hpp"
#include "neighbors/build.hpp"

namespace {

using namespace dpa2;

constexpr double rcut = 4.0, skin = 1.0;

NeighborSettings settings(int nsel) {
  NeighborSettings s;
  s.repinit = {rcut, nsel};
  s.three = {3.2, nsel / 2};
  s.repformer = {3.0, nsel / 3};
  s.use_three = true;
  s.ntypes = 2;
  s.descr_excluded = {0, 1, 1, 0};
  return s;
}

struct Walk {
  std::string name;
  Box box;
  NeighborSettings settings;
  std::vector<double> x;
  std::vector<int> types;
  std::mt19937 random{7};

  Walk(std::string n, const Box& b, const NeighborSettings& s, int natoms) : name(std::move(n)), box(b), settings(s) {
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (int i = 0; i < natoms; ++i) {
      const Vec3 p = box.open() ? Vec3{9 * uniform(random), 9 * uniform(random), 9 * uniform(random)}
                                : box.cartesian({uniform(random), uniform(random), uniform(random)});
      x.insert(x.end(), p.begin(), p.end());
      types.push_back(i % 11 == 5 ? -1 : i % 2);
    }
  }
  [[nodiscard]] int natoms() const { return static_cast<int>(types.size()); }
  void step(double most) {
    std::uniform_real_distribution<double> uniform(-most / std::sqrt(3.0), most / std::sqrt(3.0));
    for (double& c : x) c += uniform(random);
  }
  /// Moves atoms by lattice vectors: all of them into the cell, or some of them anywhere.
  void wrap(bool into_cell) {
    for (std::size_t i = 0; i < types.size(); ++i) {
      const Vec3 f = box.fractional({x[3 * i], x[3 * i + 1], x[3 * i + 2]});
      Vec3 k{};
      for (std::size_t a = 0; a < 3; ++a)
        if (box.periodic()[a]) k[a] = into_cell ? -std::floor(f[a]) : static_cast<double>(random() % 7) - 3.0;
      const Vec3 shift = box.cartesian(k);
      for (std::size_t c = 0; c < 3; ++c)
        if (box.periodic()[0] || box.periodic()[1] || box.periodic()[2]) x[3 * i + c] += shift[c];
    }
  }
};

/// Equal lists, bit by bit.
bool same(const Edges& a, const Edges& b, const std::string& name) {
  bool good = CHECK_CASE(a.start == b.start && a.j == b.j && a.image == b.image, name);
  good =
      CHECK_CASE(a.n_three == b.n_three && a.n_repformer == b.n_repformer && a.pad_repinit == b.pad_repinit && a.pad_three == b.pad_three,
                 name) &&
      good;
  good = CHECK_CASE(a.overflow.size() == b.overflow.size() && a.d.size() == b.d.size() && a.r.size() == b.r.size(), name) && good;
  if (!good) return false;
  for (std::size_t k = 0; k < a.overflow.size(); ++k)
    CHECK_CASE(a.overflow[k].atom == b.overflow[k].atom && a.overflow[k].count == b.overflow[k].count, name);
  CHECK_CASE(a.closest.i == b.closest.i && a.closest.j == b.closest.j && a.closest.r == b.closest.r, name);
  return CHECK_CASE(a.d == b.d && a.r == b.r, name);
}

/// The number of steps that were served from candidates.
int follow(Walk& walk, int steps, double most, int threads, const std::function<void(Walk&, int)>& disturb) {
  NeighborBuilder kept, fresh;
  Edges a, b;
  int reused = 0;
  for (int s = 0; s < steps; ++s) {
    fresh.build(walk.x.data(), walk.types.data(), walk.natoms(), walk.box, walk.settings, 1, b);
    const bool holds = kept.holds(walk.x.data(), walk.types.data(), walk.natoms(), walk.box, walk.settings);
    if (!CHECK_CASE(kept.refresh(walk.x.data(), walk.types.data(), walk.natoms(), walk.box, walk.settings, nullptr, threads, a) == holds,
                    walk.name))
      break;
    if (!holds) {
      kept.build_candidates(walk.x.data(), walk.types.data(), walk.natoms(), walk.box, walk.settings, skin, threads);
      if (!CHECK_CASE(kept.refresh(walk.x.data(), walk.types.data(), walk.natoms(), walk.box, walk.settings, nullptr, threads, a),
                      walk.name))
        break;
    }
    reused += static_cast<int>(holds);
    if (!same(a, b, walk.name + " at step " + std::to_string(s))) break;
    walk.step(most);
    disturb(walk, s);
  }
  return reused;
}

void test_walks() {
  const double cubic[9] = {11, 0, 0, 0, 11, 0, 0, 0, 11}, skewed[9] = {9, 0, 0, 4, 8, 0, -3, 7, 10}, left[9] = {0, 9, 0, 10, 0, 0, 0, 1, 9},
               tiny[9] = {2.5, 0, 0, 0.3, 2.8, 0, 0, 0.2, 3.1};
  const std::array<bool, 3> all{true, true, true}, slab{true, true, false};
  const auto nothing = [](Walk&, int) {};
  const auto wrapped = [](Walk& w, int) { w.wrap(true); };
  const auto jumping = [](Walk& w, int) { w.wrap(false); };
  for (const int threads : {1, 2}) {
    for (const int nsel : {300, 20}) {
      Walk walks[] = {{"open", Box(), settings(nsel), 60},
                      {"cubic", Box(cubic, all), settings(nsel), 45},
                      {"skewed", Box(skewed, all), settings(nsel), 45},
                      {"left-handed", Box(left, all), settings(nsel), 45},
                      {"slab", Box(skewed, slab), settings(nsel), 45},
                      {"tiny", Box(tiny, all), settings(nsel), 3}};
      for (Walk& walk : walks) {
        CHECK_CASE(follow(walk, 40, 0.05, threads, nothing) > 25, walk.name);
        walk.name += ", wrapped";
        CHECK_CASE(follow(walk, 40, 0.05, threads, wrapped) > 25, walk.name);
        walk.name += ", jumping";
        CHECK_CASE(follow(walk, 20, 0.05, threads, jumping) > 12, walk.name);
        walk.name += ", large steps";
        CHECK_CASE(follow(walk, 10, 1.5, threads, nothing) < 5, walk.name);
      }
    }
  }
  // All atoms leave the cell that they were in, together: the same candidates all the way.
  Walk drifting("drifting", Box(skewed, all), settings(300), 60);
  CHECK(follow(drifting, 8, 0.05, 2, [](Walk& w, int) {
          for (double& c : w.x) c += 0.02;
        }) == 7);
}

/// Rows in another order than the atoms': the lists of the atoms in that order.
void test_rows() {
  const double rows[9] = {9, 0, 0, 4, 8, 0, -3, 7, 10};
  Walk walk("rows", Box(rows, {true, true, true}), settings(20), 70);
  std::vector<int> atoms(walk.types.size());
  for (std::size_t k = 0; k < atoms.size(); ++k) atoms[k] = static_cast<int>(k * 27 % atoms.size());
  NeighborBuilder kept, fresh;
  Edges a, b;
  kept.build_candidates(walk.x.data(), walk.types.data(), walk.natoms(), walk.box, walk.settings, skin, 1);
  for (int s = 0; s < 5; ++s) {
    walk.step(0.05);
    std::vector<double> x;
    std::vector<int> types;
    for (const int k : atoms) {
      x.insert(x.end(), walk.x.begin() + 3 * k, walk.x.begin() + 3 * k + 3);
      types.push_back(walk.types[static_cast<std::size_t>(k)]);
    }
    fresh.set_ids(atoms.data());
    fresh.build(x.data(), types.data(), walk.natoms(), walk.box, walk.settings, 1, b);
    CHECK(kept.refresh(walk.x.data(), walk.types.data(), walk.natoms(), walk.box, walk.settings, atoms.data(), 1 + s % 2, a));
    if (!same(a, b, "rows at step " + std::to_string(s))) break;
  }
}

/// Anything else than a moderate movement of the same atoms is refused, and nothing is changed.
void test_refusals() {
  const double rows[9] = {11, 0, 0, 0, 11, 0, 0, 0, 11}, longer[9] = {11, 0, 0, 0, 11.001, 0, 0, 0, 11};
  const Box box(rows, {true, true, true}), other(longer, {true, true, true}), slab(rows, {true, true, false});
  Walk walk("refusals", box, settings(300), 60);
  NeighborBuilder builder;
  Edges edges;
  const double* x = walk.x.data();
  const int *types = walk.types.data(), n = walk.natoms();
  CHECK(!builder.holds(x, types, n, box, walk.settings) && !builder.refresh(x, types, n, box, walk.settings, nullptr, 1, edges));
  builder.build_candidates(x, types, n, box, walk.settings, skin, 1);
  CHECK(builder.refresh(x, types, n, box, walk.settings, nullptr, 1, edges));
  const Edges before = edges;
  CHECK(!builder.refresh(x, types, n - 1, box, walk.settings, nullptr, 1, edges));
  CHECK(!builder.refresh(x, types, n, other, walk.settings, nullptr, 1, edges));
  CHECK(!builder.refresh(x, types, n, slab, walk.settings, nullptr, 1, edges));
  std::vector<int> swapped = walk.types;
  std::swap(swapped[0], swapped[1]);
  CHECK(!builder.refresh(x, swapped.data(), n, box, walk.settings, nullptr, 1, edges));
  NeighborSettings wider = walk.settings;
  wider.repinit.rcut += 0.1;
  CHECK(!builder.refresh(x, types, n, box, wider, nullptr, 1, edges));
  std::vector<double> moved = walk.x;
  moved[0] += 0.5 * skin * 1.0001;
  CHECK(!builder.refresh(moved.data(), types, n, box, walk.settings, nullptr, 1, edges));
  moved[0] = walk.x[0] + 0.5 * skin * 0.9999;
  CHECK(builder.holds(moved.data(), types, n, box, walk.settings));
  moved[0] = std::numeric_limits<double>::quiet_NaN();
  CHECK(!builder.refresh(moved.data(), types, n, box, walk.settings, nullptr, 1, edges));
  CHECK(edges.j == before.j && edges.d == before.d);
  // A virtual atom may be anywhere.
  moved = walk.x;
  moved[3 * 5] += 100.0;
  CHECK(walk.types[5] < 0 && builder.holds(moved.data(), types, n, box, walk.settings));
  // A plain build takes the candidates' memory.
  builder.build(x, types, n, box, walk.settings, 1, edges);
  CHECK(!builder.holds(x, types, n, box, walk.settings));
  CHECK_THROWS(builder.build_candidates(x, types, n, box, walk.settings, -1.0, 1), Status::invalid_input, "skin");
  // Atoms that meet are as much an error as in a new list.
  moved = walk.x;
  for (std::size_t c = 0; c < 3; ++c) moved[c + 6] = moved[c] + (c == 0 ? 0.2 : 0.0);
  builder.build_candidates(moved.data(), types, n, box, walk.settings, skin, 1);
  moved[6] = moved[0];  // of the same type: the others are excluded
  CHECK_THROWS(builder.refresh(moved.data(), types, n, box, walk.settings, nullptr, 1, edges), Status::invalid_input, "at the same place");
}

/// The guard is asked before memory is taken, and its exception goes through.
void test_guard() {
  const double rows[9] = {11, 0, 0, 0, 11, 0, 0, 0, 11};
  Walk walk("guard", Box(rows, {true, true, true}), settings(300), 100);
  NeighborBuilder builder;
  Edges edges;
  std::int64_t asked = 0;
  builder.set_guard([&](std::int64_t bytes) { asked += bytes; });
  builder.build(walk.x.data(), walk.types.data(), walk.natoms(), walk.box, walk.settings, 1, edges);
  CHECK(asked >= edges.nedge() * 48);
  const std::int64_t first = asked;
  builder.build(walk.x.data(), walk.types.data(), walk.natoms(), walk.box, walk.settings, 1, edges);
  CHECK(asked == first);
  builder.set_guard([](std::int64_t) { throw out_of_memory("no"); });
  Edges none;
  CHECK_THROWS(builder.build(walk.x.data(), walk.types.data(), walk.natoms(), walk.box, walk.settings, 1, none), Status::out_of_memory,
               "no");
}

}  // namespace

int main() {
  test_walks();
  test_rows();
  test_refusals();
  test_guard();
  return check::finish();
}
