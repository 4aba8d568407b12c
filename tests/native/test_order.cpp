// The spatial order: a permutation that brings neighbours together, whose gather and restore undo each other; and lists made in
// such an order, which must be those of the caller's.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "error.hpp"
#include "neighbors/build.hpp"
#include "neighbors/order.hpp"

namespace {

using namespace dpa2;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::vector<double> random_points(int n, double width, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> unit(0.0, width);
  std::vector<double> x(at(3L * n));
  for (double& c : x) c = unit(random);
  return x;
}

void check_order(const Box& box, const std::vector<double>& x, const std::string& name) {
  const int n = static_cast<int>(x.size() / 3);
  SpatialOrder order;
  CHECK_CASE(!order.active() && order.atoms() == nullptr, name);
  order.choose(x.data(), n, box, 4.0);
  CHECK_CASE(order.natoms() == n && order.active() == (n > 0), name);
  std::vector<int> seen(order.atoms(), order.atoms() + n);
  std::sort(seen.begin(), seen.end());
  for (int i = 0; i < n; ++i) CHECK_CASE(seen[at(i)] == i, name);
  for (const int width : {1, 3, 7}) {
    std::vector<double> rows(at(static_cast<std::int64_t>(n) * width)), sorted(rows.size());
    for (std::size_t k = 0; k < rows.size(); ++k) rows[k] = static_cast<double>(k);
    order.gather(sorted.data(), rows.data(), width);
    for (int k = 0; k < n; ++k)
      CHECK_CASE(sorted[at(static_cast<std::int64_t>(k) * width)] == static_cast<double>(order.atoms()[k]) * width, name);
    order.restore(sorted.data(), width);
    CHECK_CASE(sorted == rows, name);
  }
  order.clear();
  CHECK_CASE(!order.active(), name);
}

void test_permutations() {
  const double skewed[9] = {40, 0, 0, 11, 35, 0, -7, 5, 50}, left[9] = {0, 30, 0, 30, 0, 0, 0, 0, 30};
  const Box periodic(skewed, {true, true, true}), slab(skewed, {true, false, true}), mirrored(left, {true, true, true});
  for (const int n : {0, 1, 2, 50, 3000}) {
    std::vector<double> x = random_points(n, 90.0, 5);
    check_order(Box(), x, "open");
    check_order(periodic, x, "periodic");
    check_order(slab, x, "slab");
    check_order(mirrored, x, "left-handed");
    for (double& c : x) c = 1.0;
    check_order(Box(), x, "all at one place");
    if (n > 2) x[4] = -1e15;
    check_order(Box(), x, "one far away");
  }
}

/// Atoms next to each other in the order are close in space: a few cubes apart on average, not half a box.
void test_locality() {
  const double width = 60.0, rows[9] = {width, 0, 0, 0, width, 0, 0, 0, width};
  std::vector<double> x = random_points(8000, width, 6);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] += width * static_cast<double>(static_cast<int>(i % 5) - 2);  // anywhere
  SpatialOrder order;
  order.choose(x.data(), 8000, Box(rows, {true, true, true}), 4.0);
  double sum = 0;
  for (int k = 1; k < 8000; ++k) {
    double square = 0;
    for (int c = 0; c < 3; ++c) {
      double d = x[at(3L * order.atoms()[k] + c)] - x[at(3L * order.atoms()[k - 1] + c)];
      d -= width * std::round(d / width);
      square += d * d;
    }
    sum += std::sqrt(square);
  }
  CHECK_CASE(sum / 8000 < 6.0, std::to_string(sum / 8000));
}

NeighborSettings settings() {
  NeighborSettings s;
  s.repinit = {5.0, 40};
  s.three = s.repformer = {3.0, 12};
  s.use_three = true;
  s.ntypes = 2;
  return s;
}

/// A lattice full of equal distances, with more neighbours than are kept: the ids decide which, so lists do not depend on the
/// order that the rows are in.
void test_names() {
  const int side = 8, n = side * side * side;
  const double a = 2.0, rows[9] = {a * side, 0, 0, 0, a * side, 0, 0, 0, a * side};
  const Box box(rows, {true, true, true});
  std::vector<double> x, shuffled(at(3L * n));
  std::vector<int> types(at(n)), ids(at(n)), shuffled_types(at(n));
  for (int i = 0; i < n; ++i) {
    for (const int c : {i % side, i / side % side, i / side / side}) x.push_back(a * c);
    types[at(i)] = i % 2;
    ids[at(i)] = i;
  }
  std::shuffle(ids.begin(), ids.end(), std::mt19937(4));
  for (int k = 0; k < n; ++k) {
    std::copy_n(x.begin() + 3L * ids[at(k)], 3, shuffled.begin() + 3L * k);
    shuffled_types[at(k)] = types[at(ids[at(k)])];
  }
  NeighborBuilder builder;
  Edges plain, named;
  builder.build(x.data(), types.data(), n, box, settings(), 2, plain);
  builder.set_ids(ids.data());
  builder.build(shuffled.data(), shuffled_types.data(), n, box, settings(), 2, named);
  for (int k = 0; k < n; ++k) {
    const int i = ids[at(k)];
    const std::int64_t p = plain.start[at(i)], q = named.start[at(k)];
    CHECK(plain.count(i) == named.count(k) && plain.n_repformer[at(i)] == named.n_repformer[at(k)]);
    for (int e = 0; e < plain.count(i); ++e) CHECK(ids[at(named.j[at(q + e)])] == plain.j[at(p + e)]);
  }
  CHECK(plain.overflow.size() == named.overflow.size() && !plain.overflow.empty());
  for (std::size_t k = 0; k < plain.overflow.size(); ++k) CHECK(plain.overflow[k].atom == named.overflow[k].atom);

  const auto place_of = [&](int atom) { return std::find(ids.begin(), ids.end(), atom) - ids.begin(); };
  std::copy_n(shuffled.begin() + 3 * place_of(17), 3, shuffled.begin() + 3 * place_of(400));
  bool told = false;
  try {
    builder.build(shuffled.data(), shuffled_types.data(), n, box, settings(), 1, named);
  } catch (const Error& error) {
    const std::string what = error.what();
    told = what.find("atoms 17 and 400 are") != what.npos || what.find("atoms 400 and 17 are") != what.npos;
  }
  CHECK(told);
  shuffled[at(3 * place_of(33))] = NAN;
  CHECK_THROWS(builder.build(shuffled.data(), shuffled_types.data(), n, box, settings(), 1, named), Status::invalid_input,
               "coordinate 0 of atom 33 is not finite");
  shuffled[at(3 * place_of(33))] = 1e300;
  CHECK_THROWS(builder.build(shuffled.data(), shuffled_types.data(), n, box, settings(), 1, named), Status::invalid_input,
               "coordinate 0 of atom 33 is too large");
  builder.set_ids(nullptr);
  CHECK_THROWS(check_atoms(x.data(), types.data(), n, 1, nullptr), Status::invalid_input, "atom 1 has type 1");
}

}  // namespace

int main() {
  test_permutations();
  test_locality();
  test_names();
  return check::finish();
}
