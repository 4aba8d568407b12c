// Neighbour lists against a plain loop over all pairs and images.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "error.hpp"
#include "neighbors/build.hpp"

namespace {

std::atomic<long> allocations{0};

}  // namespace

void* operator new(std::size_t n) {
  ++allocations;
  if (void* p = std::malloc(n == 0 ? 1 : n)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace {

using namespace dpa2;

struct System {
  std::string name;
  std::vector<double> x;
  std::vector<int> types;
  Box box;
  NeighborSettings settings;
  [[nodiscard]] int natoms() const { return static_cast<int>(types.size()); }
};

struct Pair {
  double r;
  int j;
  std::array<int, 3> n;
  Vec3 d;
};

bool excluded(const std::vector<char>& table, int ntypes, int a, int b) {
  return !table.empty() && table[static_cast<std::size_t>(a * ntypes + b)] != 0;
}

// All images that can matter, without wrapping: the difference of two atoms in fractions decides which ones.
std::vector<Pair> all_pairs(const System& s, int i) {
  std::vector<Pair> pairs;
  const double rcut = s.settings.repinit.rcut;
  for (int j = 0; j < s.natoms(); ++j) {
    if (s.types[static_cast<std::size_t>(j)] < 0) continue;
    Vec3 delta{};
    for (std::size_t c = 0; c < 3; ++c) delta[c] = s.x[3 * static_cast<std::size_t>(j) + c] - s.x[3 * static_cast<std::size_t>(i) + c];
    const Vec3 f = s.box.fractional(delta);
    int lo[3] = {0, 0, 0}, hi[3] = {0, 0, 0};
    for (std::size_t a = 0; a < 3; ++a) {
      if (!s.box.periodic()[a]) continue;
      // With open directions the faces of the box say nothing: the length of the dual vector bounds the image number.
      const Mat3& b = s.box.inverse();
      const double dual = std::sqrt(b[0][a] * b[0][a] + b[1][a] * b[1][a] + b[2][a] * b[2][a]);
      const double reach = rcut * dual + 1e-6;
      lo[a] = static_cast<int>(std::ceil(-f[a] - reach));
      hi[a] = static_cast<int>(std::floor(-f[a] + reach));
    }
    for (int n0 = lo[0]; n0 <= hi[0]; ++n0)
      for (int n1 = lo[1]; n1 <= hi[1]; ++n1)
        for (int n2 = lo[2]; n2 <= hi[2]; ++n2) {
          if (i == j && n0 == 0 && n1 == 0 && n2 == 0) continue;
          const Vec3 shift = s.box.cartesian({double(n0), double(n1), double(n2)});
          const Vec3 d{delta[0] + shift[0], delta[1] + shift[1], delta[2] + shift[2]};
          const double r = std::sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
          if (r <= rcut + distance_tolerance) pairs.push_back({r, j, {n0, n1, n2}, d});
        }
  }
  // Distances that agree to 1e-9 count as equal here; the systems are such that no others are this close.
  std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.r < b.r; });
  for (std::size_t begin = 0; begin < pairs.size();) {
    std::size_t end = begin + 1;
    while (end < pairs.size() && pairs[end].r - pairs[end - 1].r < 1e-9) ++end;
    std::sort(pairs.begin() + std::ptrdiff_t(begin), pairs.begin() + std::ptrdiff_t(end),
              [](const Pair& a, const Pair& b) { return a.j != b.j ? a.j < b.j : a.n < b.n; });
    begin = end;
  }
  return pairs;
}

bool compare(const System& s, const Edges& e, double tolerance) {
  const NeighborSettings& t = s.settings;
  bool good = CHECK_CASE(e.nlocal == s.natoms() && e.nall == s.natoms(), s.name);
  good = good && CHECK_CASE(e.start.size() == std::size_t(s.natoms()) + 1 && e.start[0] == 0, s.name);
  good = good && CHECK_CASE(e.j.size() == std::size_t(e.nedge()) && e.d.size() == 3 * e.j.size() && e.r.size() == e.j.size() &&
                                e.image.size() == 3 * e.j.size(),
                            s.name);
  int worst[3] = {0, 0, 0}, who[3] = {-1, -1, -1};
  double closest = HUGE_VAL;
  for (int i = 0; good && i < s.natoms(); ++i) {
    const std::size_t ui = static_cast<std::size_t>(i);
    const int ti = s.types[ui];
    std::vector<Pair> pairs;
    if (ti >= 0) pairs = all_pairs(s, i);
    const auto within = [&](double rcut) {
      return int(std::count_if(pairs.begin(), pairs.end(), [&](const Pair& p) { return p.r <= rcut + 1e-10; }));
    };
    const int count[3] = {int(pairs.size()), t.use_three ? within(t.three.rcut) : 0, within(t.repformer.rcut)};
    const int sel[3] = {t.repinit.nsel, t.three.nsel, t.repformer.nsel};
    for (int b = 0; b < 3; ++b)
      if (count[b] > sel[b] && count[b] > worst[b]) {
        worst[b] = count[b];
        who[b] = i;
      }
    const int kept = std::min(count[0], sel[0]);
    std::vector<Pair> stored;
    int three = 0, rep = 0, pad_repinit = t.repinit.nsel, pad_three = t.use_three ? t.three.nsel : 0;
    for (int k = 0; k < kept; ++k) {
      const Pair& p = pairs[std::size_t(k)];
      const int tj = s.types[std::size_t(p.j)];
      const bool in_three = t.use_three && k < sel[1] && k < count[1], in_rep = k < sel[2] && k < count[2];
      if (excluded(t.pair_excluded, t.ntypes, ti, tj)) continue;
      --pad_repinit;
      pad_three -= in_three;
      if (excluded(t.descr_excluded, t.ntypes, ti, tj)) continue;
      stored.push_back(p);
      three += in_three;
      rep += in_rep;
    }
    if (!stored.empty()) closest = std::min(closest, stored[0].r);
    good = CHECK_CASE(e.count(i) == int(stored.size()), s.name) && CHECK_CASE(e.n_three[ui] == three, s.name) &&
           CHECK_CASE(e.n_repformer[ui] == rep, s.name) && CHECK_CASE(e.pad_repinit[ui] == pad_repinit, s.name) &&
           CHECK_CASE(e.pad_three[ui] == pad_three, s.name);
    for (std::size_t k = 0; good && k < stored.size(); ++k) {
      const std::size_t at = std::size_t(e.start[ui]) + k;
      const Pair& p = stored[k];
      good = CHECK_CASE(e.j[at] == p.j, s.name) && CHECK_CASE(std::abs(e.r[at] - p.r) <= tolerance, s.name);
      for (std::size_t c = 0; good && c < 3; ++c)
        good = CHECK_CASE(std::abs(e.d[3 * at + c] - p.d[c]) <= tolerance, s.name) && CHECK_CASE(e.image[3 * at + c] == p.n[c], s.name);
    }
  }
  if (good && std::isfinite(closest)) {
    good = CHECK_CASE(std::abs(e.closest.r - closest) <= tolerance && e.closest.i >= 0 && e.closest.i < s.natoms(), s.name) &&
           CHECK_CASE(e.j[std::size_t(e.start[std::size_t(e.closest.i)])] == e.closest.j, s.name) &&
           CHECK_CASE(e.r[std::size_t(e.start[std::size_t(e.closest.i)])] == e.closest.r, s.name);
  } else if (good) {
    good = CHECK_CASE(e.closest.i == -1 && e.closest.r == HUGE_VAL, s.name);
  }
  std::size_t entries = 0;
  for (int b = 0; good && b < 3; ++b) {
    if (worst[b] == 0) continue;
    ++entries;
    const auto found = std::find_if(e.overflow.begin(), e.overflow.end(), [&](const Overflow& o) { return int(o.block) == b; });
    good = CHECK_CASE(found != e.overflow.end() && found->count == worst[b] && found->atom == who[b], s.name);
  }
  return good && CHECK_CASE(e.overflow.size() == entries, s.name);
}

bool same(const Edges& a, const Edges& b) {
  return a.start == b.start && a.j == b.j && a.d == b.d && a.r == b.r && a.image == b.image && a.n_three == b.n_three &&
         a.n_repformer == b.n_repformer && a.pad_repinit == b.pad_repinit && a.pad_three == b.pad_three;
}

using Random = std::mt19937_64;

double uniform(Random& rng, double lo, double hi) { return std::uniform_real_distribution<double>(lo, hi)(rng); }
int integer(Random& rng, int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng); }

NeighborSettings settings(double rcut, int nsel, int nrep, int nthree) {
  NeighborSettings s;
  s.repinit = {rcut, nsel};
  s.repformer = {0.7 * rcut, nrep};
  s.three = {0.6 * rcut, nthree};
  s.use_three = nthree > 0;
  s.ntypes = 3;
  return s;
}

System random_system(int seed) {
  Random rng(static_cast<std::uint64_t>(seed));
  System s;
  s.name = "random system " + std::to_string(seed);
  const bool tiny = seed % 5 == 0;
  const int natoms = tiny ? integer(rng, 1, 4) : integer(rng, 2, 60);
  const std::array<bool, 3> pbc{integer(rng, 0, 3) > 0, integer(rng, 0, 3) > 0, integer(rng, 0, 3) > 0};
  const double length = tiny ? uniform(rng, 1.5, 3.5) : uniform(rng, 3.0, 15.0);
  const double rcut = uniform(rng, 2.0, 6.0);
  double rows[9];
  for (;;) {
    for (double& v : rows) v = uniform(rng, -length, length);
    if (seed % 3 == 0)  // right-angled
      for (int k = 0; k < 9; ++k)
        if (k % 4 != 0) rows[k] = 0.0;
    for (int a = 0; a < 3; ++a)
      if (!pbc[std::size_t(a)] && seed % 2 == 0)
        for (int c = 0; c < 3; ++c) rows[3 * a + c] = 0.0;
    try {
      s.box = Box(rows, pbc);
    } catch (const Error&) { continue; }
    const Vec3 h = s.box.face_distance();
    if (std::min({h[0], h[1], h[2]}) > (tiny ? 0.5 : 0.25)) break;
  }
  if (seed % 7 == 0 && pbc[0] && pbc[1] && pbc[2]) {  // an equivalent, very skewed cell
    for (int k = 0; k < 3; ++k) rows[3 + k] += 7.0 * rows[k] - 4.0 * rows[6 + k];
    s.box = Box(rows, pbc);
  }
  const double spread = seed % 4 == 0 ? 30.0 * length : length;  // atoms far outside the cell
  for (int i = 0; i < natoms; ++i) {
    for (int c = 0; c < 3; ++c) s.x.push_back(uniform(rng, -spread, spread));
    s.types.push_back(integer(rng, seed % 6 == 0 ? -1 : 0, 2));
  }
  s.settings = settings(rcut, integer(rng, 8, 200), 0, 0);
  s.settings.repformer.nsel = integer(rng, 1, s.settings.repinit.nsel - 1);
  s.settings.use_three = seed % 3 != 1;
  s.settings.three.nsel = integer(rng, 1, s.settings.repformer.nsel);
  if (seed % 2 == 1) {
    s.settings.pair_excluded.assign(9, 0);
    s.settings.pair_excluded[1] = s.settings.pair_excluded[3] = 1;
  }
  if (seed % 3 == 1) {
    s.settings.descr_excluded.assign(9, 0);
    s.settings.descr_excluded[8] = s.settings.descr_excluded[5] = s.settings.descr_excluded[7] = 1;
  }
  return s;
}

void test_random() {
  NeighborBuilder builder;
  Edges edges, threaded;
  for (int seed = 0; seed < 400; ++seed) {
    const System s = random_system(seed);
    builder.build(s.x.data(), s.types.data(), s.natoms(), s.box, s.settings, 1, edges);
    if (!compare(s, edges, 1e-10)) break;
    builder.build(s.x.data(), s.types.data(), s.natoms(), s.box, s.settings, 3, threaded);
    if (!CHECK_CASE(same(edges, threaded), s.name)) break;
  }
}

System lattice(int cells, double a, double rcut, int nsel, Random& rng, bool periodic) {
  System s;
  s.name = "cubic lattice of " + std::to_string(cells);
  const double length = a * cells;
  const double rows[9] = {length, 0, 0, 0, length, 0, 0, 0, length};
  s.box = Box(rows, {periodic, periodic, periodic});
  for (int i = 0; i < cells * cells * cells; ++i) {
    const int site[3] = {i % cells, i / cells % cells, i / cells / cells};
    for (const int k : site) s.x.push_back(a * k + (periodic ? length * integer(rng, -2, 2) : 0.0));
    s.types.push_back(integer(rng, 0, 2));
  }
  s.settings = settings(rcut, nsel, nsel / 2, nsel / 3);
  return s;
}

// Ties everywhere, at every truncation and cutoff: the order is by (j, image), whatever rounding does to the distances.
void test_ties() {
  Random rng(7);
  NeighborBuilder builder;
  Edges edges, moved;
  for (const bool periodic : {true, false})
    for (const int cells : {1, 2, 3, 4})
      for (const int nsel : {6, 10, 18, 30, 57, 200}) {
        System s = lattice(cells, 3.1, 3.1 * 2, nsel, rng, periodic);  // the second shell is at the cutoff
        builder.build(s.x.data(), s.types.data(), s.natoms(), s.box, s.settings, 1, edges);
        if (!compare(s, edges, 1e-9)) return;
        // A rigid shift changes the rounding of every distance and nothing else.
        for (std::size_t k = 0; k < s.x.size(); ++k) s.x[k] += (k % 3 == 0 ? 0.1234567 : k % 3 == 1 ? -17.7 : 1.0 / 3.0);
        builder.build(s.x.data(), s.types.data(), s.natoms(), s.box, s.settings, 1, moved);
        if (!CHECK_CASE(edges.start == moved.start && edges.j == moved.j && edges.image == moved.image &&
                            edges.n_repformer == moved.n_repformer && edges.n_three == moved.n_three &&
                            edges.pad_repinit == moved.pad_repinit,
                        s.name))
          return;
      }
}

void test_permutation() {
  NeighborBuilder builder;
  Edges edges, permuted;
  for (int seed = 1; seed < 60; seed += 2) {
    System s = random_system(seed);
    builder.build(s.x.data(), s.types.data(), s.natoms(), s.box, s.settings, 1, edges);
    Random rng(static_cast<std::uint64_t>(seed));
    std::vector<int> order(s.types.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    std::shuffle(order.begin(), order.end(), rng);
    System p = s;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const std::size_t from = static_cast<std::size_t>(order[i]);
      p.types[i] = s.types[from];
      for (std::size_t c = 0; c < 3; ++c) p.x[3 * i + c] = s.x[3 * from + c];
    }
    builder.build(p.x.data(), p.types.data(), p.natoms(), p.box, p.settings, 1, permuted);
    bool good = true;
    for (int i = 0; good && i < p.natoms(); ++i) {
      const int from = order[static_cast<std::size_t>(i)];
      good = CHECK_CASE(permuted.count(i) == edges.count(from), s.name);
      for (int k = 0; good && k < edges.count(from); ++k) {
        const std::size_t a = static_cast<std::size_t>(permuted.start[static_cast<std::size_t>(i)] + k);
        const std::size_t b = static_cast<std::size_t>(edges.start[static_cast<std::size_t>(from)] + k);
        good = CHECK_CASE(std::abs(permuted.r[a] - edges.r[b]) < 1e-12, s.name);
      }
    }
    if (!good) break;
  }
}

// Every edge has its reverse, and the two vectors are exact negatives: forces then sum to zero without rounding in the geometry.
void test_reverse_edges() {
  for (int seed = 0; seed < 40; ++seed) {
    System s = random_system(seed);
    s.settings.repinit.nsel = 100000;
    NeighborBuilder builder;
    Edges e;
    builder.build(s.x.data(), s.types.data(), s.natoms(), s.box, s.settings, 1, e);
    std::vector<std::array<double, 5>> forward, backward;
    for (int i = 0; i < s.natoms(); ++i)
      for (std::int64_t at = e.start[std::size_t(i)]; at < e.start[std::size_t(i) + 1]; ++at) {
        const double* d = &e.d[3 * std::size_t(at)];
        const int j = e.j[std::size_t(at)];
        forward.push_back({double(i), double(j), d[0] + 0.0, d[1] + 0.0, d[2] + 0.0});
        backward.push_back({double(j), double(i), 0.0 - d[0], 0.0 - d[1], 0.0 - d[2]});
      }
    std::sort(forward.begin(), forward.end());
    std::sort(backward.begin(), backward.end());
    CHECK_CASE(forward == backward, s.name);
  }
}

void test_small_systems() {
  NeighborBuilder builder;
  Edges e;
  NeighborSettings s = settings(6.0, 20, 10, 5);
  builder.build(nullptr, nullptr, 0, Box(), s, 4, e);
  CHECK(e.nlocal == 0 && e.start.size() == 1 && e.nedge() == 0);
  const double origin[3] = {1e6, -7e6, 3.0};
  const int type = 0, ghost = -1;
  builder.build(origin, &type, 1, Box(), s, 4, e);
  CHECK(e.nedge() == 0 && e.pad_repinit[0] == 20 && e.pad_three[0] == 5 && e.overflow.empty());
  builder.build(origin, &ghost, 1, Box(), s, 1, e);
  CHECK(e.nedge() == 0 && e.nlocal == 1);
  const double cube[9] = {2.9, 0, 0, 0, 2.9, 0, 0, 0, -2.9};
  builder.build(origin, &type, 1, Box(cube, {true, true, true}), s, 1, e);
  CHECK(e.nedge() == 20 && e.overflow.size() == 3 && e.overflow[0].count == 32 && e.overflow[0].sel == 20);
  // Coordinates of a virtual atom may be anything finite, even at the same place as a real one.
  const double pair[6] = {1.0, 1.0, 1.0, 1.0, 1.0, 1.0};
  const int types[2] = {0, -1};
  builder.build(pair, types, 2, Box(), s, 1, e);
  CHECK(e.nedge() == 0);
}

// Memory and time follow the number of atoms, not the volume between them.
void test_far_atoms() {
  Random rng(3);
  System s;
  s.name = "far atoms";
  for (int i = 0; i < 300; ++i) {
    for (int c = 0; c < 3; ++c) s.x.push_back(uniform(rng, 0.0, 15.0));
    s.types.push_back(0);
  }
  const double far[4][3] = {{1e7, 0.0, 0.0}, {1e7, 1.0, 0.0}, {-1e7, 1e7, 1e7}, {9.9e6, -1e7, 1e7}};
  for (const auto& p : far) {
    s.x.insert(s.x.end(), p, p + 3);
    s.types.push_back(1);
  }
  s.settings = settings(5.0, 100, 50, 30);
  NeighborBuilder builder;
  Edges e;
  builder.build(s.x.data(), s.types.data(), s.natoms(), Box(), s.settings, 1, e);
  compare(s, e, 1e-9);
  CHECK(e.count(300) == 1 && e.j[std::size_t(e.start[300])] == 301);
}

void test_steady_state() {
  Random rng(11);
  System s;
  const double length = 12.44;
  const double rows[9] = {length, 0, 0, 0, length, 0, 0, 0, length};
  s.box = Box(rows, {true, true, true});
  for (int i = 0; i < 192; ++i) {
    for (int c = 0; c < 3; ++c) s.x.push_back(uniform(rng, 0.0, length));
    s.types.push_back(i % 3);
  }
  s.settings = settings(6.0, 120, 40, 30);
  s.settings.pair_excluded.assign(9, 0);
  NeighborBuilder builder;
  Edges e;
  for (int step = 0; step < 3; ++step) builder.build(s.x.data(), s.types.data(), 192, s.box, s.settings, 1, e);
  const long before = allocations;
  for (int step = 0; step < 5; ++step) builder.build(s.x.data(), s.types.data(), 192, s.box, s.settings, 1, e);
  const long made = allocations - before;
  CHECK(made == 0);
}

// Candidates from outside: the same lists, whatever the order and reach of the candidates, and with ghosts as rows.
void test_from_list() {
  for (int seed = 3; seed < 60; seed += 3) {
    System s = random_system(seed);
    s.box = Box();
    for (double& v : s.x) v *= 0.3;
    NeighborBuilder builder;
    Edges expected, e;
    builder.build(s.x.data(), s.types.data(), s.natoms(), s.box, s.settings, 1, expected);
    Random rng(static_cast<std::uint64_t>(seed));
    std::vector<std::vector<int>> lists(s.types.size());
    std::vector<int> number;
    std::vector<const int*> first;
    for (int i = 0; i < s.natoms(); ++i) {
      auto& list = lists[std::size_t(i)];
      for (int j = 0; j < s.natoms(); ++j)
        if (j != i) list.push_back(j | (j % 2 << 30));
      std::shuffle(list.begin(), list.end(), rng);
      number.push_back(static_cast<int>(list.size()));
      first.push_back(list.data());
    }
    builder.build_from_list(s.x.data(), s.types.data(), s.natoms(), s.natoms(), number.data(), first.data(), 0x1FFFFFFF, s.settings, 2, e);
    CHECK_CASE(same(e, expected), s.name);
    const int half = s.natoms() / 2;
    builder.build_from_list(s.x.data(), s.types.data(), half, s.natoms(), number.data(), first.data(), 0x1FFFFFFF, s.settings, 1, e);
    CHECK_CASE(e.nlocal == half && e.nall == s.natoms() && e.nedge() == expected.start[std::size_t(half)], s.name);
    CHECK_THROWS(
        builder.build_from_list(s.x.data(), s.types.data(), s.natoms(), s.natoms(), number.data(), first.data(), ~0, s.settings, 1, e),
        Status::invalid_input, "neighbour");
  }
}

void test_errors() {
  NeighborBuilder builder;
  Edges e;
  NeighborSettings s = settings(6.0, 20, 10, 5);
  const double nan = std::nan(""), inf = HUGE_VAL;
  double x[9] = {0, 0, 0, 1, 1, 1, 2, 2, nan};
  int types[3] = {0, 1, 2};
  CHECK_THROWS(builder.build(x, types, 3, Box(), s, 1, e), Status::invalid_input, "atom 2");
  CHECK(e.nlocal == 0 && e.start.empty());
  x[8] = inf;
  CHECK_THROWS(builder.build(x, types, 3, Box(), s, 1, e), Status::invalid_input, "atom 2");
  x[8] = 2.0;
  types[1] = 3;
  CHECK_THROWS(builder.build(x, types, 3, Box(), s, 1, e), Status::invalid_input, "atom 1 has type 3");
  types[1] = 1;
  for (int c = 6; c < 9; ++c) x[c] = 1.0;
  CHECK_THROWS(builder.build(x, types, 3, Box(), s, 1, e), Status::invalid_input, "atoms 1 and 2 are at the same place");
  s.env_protection = 1e-3;
  builder.build(x, types, 3, Box(), s, 1, e);
  CHECK(e.nedge() == 6 && e.r[std::size_t(e.start[1])] == 0.0);
  s.env_protection = 0.0;
  s.pair_excluded.assign(9, 0);
  s.pair_excluded[5] = s.pair_excluded[7] = 1;
  builder.build(x, types, 3, Box(), s, 1, e);  // an excluded pair may coincide
  CHECK(e.nedge() == 4);
  s.pair_excluded.clear();
  const double cube[9] = {5, 0, 0, 0, 5, 0, 0, 0, 5};
  const Box box(cube, {true, true, true});
  for (int c = 6; c < 9; ++c) x[c] = 51.0;  // the same place in another cell
  CHECK_THROWS(builder.build(x, types, 3, box, s, 1, e), Status::invalid_input, "atoms 1 and 2");
  for (const double far : {1.0000001e7, -1e300, 1.7e308}) {
    x[6] = far;
    CHECK_THROWS(builder.build(x, types, 3, box, s, 1, e), Status::invalid_input,
                 "coordinate 0 of atom 2 is too large; coordinates are in angstrom");
    CHECK_THROWS(builder.build(x, types, 3, Box(), s, 1, e), Status::invalid_input, "coordinate 0 of atom 2 is too large");
  }
  x[6] = 1e7;
  const double thin[9] = {0.01, 0, 0, 0, 5, 0, 0, 0, 5};
  CHECK_THROWS(builder.build(x, types, 3, Box(thin, {true, true, true}), s, 1, e), Status::invalid_input, "atom 2 is too far");
  const double dot[9] = {1e-3, 0, 0, 0, 1e-3, 0, 0, 0, 1e-3};
  CHECK_THROWS(builder.build(x, types, 1, Box(dot, {true, true, true}), s, 1, e), Status::invalid_input, "too small");

  const auto make = [](std::array<double, 9> rows, bool a, bool b, bool c) { return Box(rows.data(), {a, b, c}); };
  CHECK_THROWS(make({1, 0, 0, 2, 0, 0, 0, 0, 1}, true, true, true), Status::invalid_input, "singular");
  CHECK_THROWS(make({1, 0, 0, 0, nan, 0, 0, 0, 1}, true, true, true), Status::invalid_input, "(1, 1)");
  CHECK_THROWS(make({0, 0, 0, 0, 0, 0, 0, 0, 0}, true, true, true), Status::invalid_input, "vector 0 is zero");
  CHECK_THROWS(make({1, 0, 0, 2, 0, 0, 0, 0, 0}, true, true, false), Status::invalid_input, "singular");
  CHECK_THROWS(Box(nullptr, {true, false, false}), Status::invalid_input, "no box");
  CHECK_THROWS(make({1e200, 0, 0, 0, 1, 0, 0, 0, 1}, true, true, true), Status::invalid_input,
               "(0, 0) is too large; lengths are in angstrom");
  CHECK_THROWS(make({1, 0, 0, 0, -1.0000001e7, 0, 0, 0, 1}, true, true, true), Status::invalid_input, "(1, 1) is too large");
}

void test_box() {
  const double rows[9] = {3, 1, 0, 0, 0, 0, 0.5, 0, -4};
  const Box slab(rows, {true, false, true});
  const Vec3 f{0.3, -1.7, 2.4};
  const Vec3 back = slab.fractional(slab.cartesian(f));
  for (std::size_t a = 0; a < 3; ++a) CHECK_NEAR(back[a], f[a], 1e-13);
  CHECK_NEAR(slab.face_distance()[1], 1.0, 1e-13);
  const double line[9] = {0, 0, 0, 0, 0, 0, 1, 2, 2};
  const Box chain(line, {false, false, true});
  CHECK_NEAR(chain.volume(), 3.0, 1e-13);
  CHECK_NEAR(chain.face_distance()[2], 3.0, 1e-13);
  const double left[9] = {0, 5, 0, 4, 0, 0, 0, 0, 3};
  CHECK_NEAR(Box(left, {true, true, true}).volume(), 60.0, 1e-12);
  CHECK(Box().open() && !chain.open());
}

}  // namespace

int main() {
  test_box();
  test_random();
  test_ties();
  test_permutation();
  test_reverse_edges();
  test_small_systems();
  test_far_atoms();
  test_steady_state();
  test_from_list();
  test_errors();
  return check::finish();
}
