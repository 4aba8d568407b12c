// A step of molecular dynamics takes no memory: calls of the allocator are counted over evaluations of slightly moved atoms. And
// the limits on memory.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "allocations.hpp"
#include "check.hpp"
#include "error.hpp"
#include "model/memory.hpp"
#include "model/model.hpp"
#include "model/safetensors.hpp"

namespace {

using namespace dpa2;
using check::allocations;

/// Water molecules on a lattice, turned at random: n^3 of them in a periodic box.
struct Water {
  std::vector<double> x;
  std::vector<int> types;
  Box box;
  std::mt19937 random{3};

  explicit Water(int n) {
    const double a = 3.1, rows[9] = {a * n, 0, 0, 0, a * n, 0, 0, 0, a * n};
    box = Box(rows, {true, true, true});
    std::normal_distribution<double> normal;
    for (int i = 0; i < n * n * n; ++i) {
      const double centre[3] = {a * (i % n), a * (i / n % n), a * (i / n / n)};
      for (int atom = 0; atom < 3; ++atom) {
        double d[3], r = 0.0;
        for (double& c : d) {
          c = normal(random);
          r += c * c;
        }
        for (int c = 0; c < 3; ++c) x.push_back(centre[c] + (atom == 0 ? 0.0 : d[c] / std::sqrt(r)));
        types.push_back(atom == 0 ? 0 : 1);
      }
    }
  }
  void move(double most) {
    std::uniform_real_distribution<double> uniform(-most, most);
    for (double& c : x) c += uniform(random);
  }
  [[nodiscard]] Structure structure() const {
    Structure s;
    s.natoms = static_cast<int>(types.size());
    s.coords = x.data();
    s.types = types.data();
    s.box = box;
    return s;
  }
};

struct Results {
  explicit Results(std::size_t n, int descriptor) : energies(n), forces(3 * n), virials(9 * n), rows(n * static_cast<std::size_t>(descriptor)) {}
  std::vector<double> energies, forces, virials, rows;
  Remarks remarks;
};

void test_steady(const SafetensorsFile& file, const char* precision, int threads, double skin) {
  const Model model(parse_config(file.config_json), file.weights, precision, skin);
  Water water(2);
  Results results(water.types.size(), model.config().descriptor_dim());
  results.remarks.overflow.reserve(3);
  Outputs out;
  out.atom_energy = results.energies.data();
  out.force = results.forces.data();
  out.atom_virial = results.virials.data();
  const auto step = [&](AtomVirial virial) {
    water.move(0.01);
    model.evaluate(water.structure(), virial, threads, out, results.remarks);
  };
  const std::string name = std::string(precision) + ", " + std::to_string(threads) + " threads, skin " + std::to_string(skin);
  for (const AtomVirial virial : {AtomVirial::none, AtomVirial::edge, AtomVirial::deepmd}) {
    for (int k = 0; k < 3; ++k) step(virial);
    const long before = allocations;
    for (int k = 0; k < 6; ++k) step(virial);
    CHECK_CASE(allocations == before, name + ": " + std::to_string(allocations - before));
  }
  Outputs rows;
  rows.descriptor = results.rows.data();
  const auto describe = [&] {
    water.move(0.01);
    model.descriptor(water.structure(), threads, rows, results.remarks);
  };
  for (int k = 0; k < 3; ++k) describe();
  const long before = allocations;
  for (int k = 0; k < 6; ++k) describe();
  CHECK_CASE(allocations == before, name + ", descriptor");
}

/// With a skin the same results as without, also for two trajectories of the same atoms that take turns.
void test_skin(const SafetensorsFile& file) {
  const Model plain(parse_config(file.config_json), file.weights, "float64"), skinned(parse_config(file.config_json), file.weights, "float64", 1.0);
  CHECK(plain.skin() == 0.0 && skinned.skin() == 1.0);
  Water first(2), second(2);
  second.move(0.3);
  Remarks remarks;
  for (int k = 0; k < 12; ++k) {
    Water& water = k % 2 == 0 ? first : second;
    water.move(0.08);
    Results a(water.types.size(), 1), b(water.types.size(), 1);
    Outputs out_a, out_b;
    out_a.force = a.forces.data();
    out_b.force = b.forces.data();
    plain.evaluate(water.structure(), AtomVirial::none, 1, out_a, remarks);
    skinned.evaluate(water.structure(), AtomVirial::none, 1, out_b, remarks);
    CHECK_NEAR(out_a.energy, out_b.energy, 1e-9);
    double worst = 0.0;
    for (std::size_t i = 0; i < a.forces.size(); ++i) worst = std::max(worst, std::abs(a.forces[i] - b.forces[i]));
    CHECK_NEAR(worst, 0.0, 1e-9);
  }
  for (const double bad : {-1.0, 1e9, std::nan("")})
    CHECK_THROWS(Model(parse_config(file.config_json), file.weights, "float64", bad), Status::invalid_input, "skin must be between 0");
}

void test_bytes() {
  CHECK(parse_bytes("0") == 0 && parse_bytes("123") == 123 && parse_bytes("10B") == 10);
  CHECK(parse_bytes("2k") == 2048 && parse_bytes("1.5 GiB") == 1610612736 && parse_bytes("16G") == (std::int64_t{16} << 30));
  CHECK(parse_bytes("1 TB") == std::int64_t{1} << 40 && parse_bytes("3MB") == 3 << 20);
  for (const char* bad : {"", "G", "-1", "nan", "inf", "1X", "1GG", "1e30", "12 parsecs"}) CHECK_CASE(parse_bytes(bad) < 0, bad);
}

void test_limits(const SafetensorsFile& file) {
  CHECK(available_memory().bytes > 0);
  require_memory(unchecked_growth - 1, 1);
  CHECK_THROWS(require_memory(std::int64_t{1} << 60, 5), Status::out_of_memory, "evaluating 5 atoms needs");
  setenv("DPA2_MEMORY_LIMIT", "1M", 1);
  CHECK(available_memory().bytes == 0 && std::string(available_memory().limit) == "DPA2_MEMORY_LIMIT");
  require_memory(1000, 1);  // small steps are never refused
  CHECK_THROWS(require_memory(unchecked_growth, 1), Status::out_of_memory, "DPA2_MEMORY_LIMIT leaves 0 MiB");
  const Model model(parse_config(file.config_json), file.weights, "float64");
  Water water(12);
  Results results(water.types.size(), 1);
  Outputs out;
  out.force = results.forces.data();
  CHECK(model.memory_estimate(water.structure().natoms, 90.0, true, AtomVirial::none, 1) > unchecked_growth);
  CHECK_THROWS(model.evaluate(water.structure(), AtomVirial::none, 1, out, results.remarks), Status::out_of_memory, "evaluate fewer atoms");
  setenv("DPA2_MEMORY_LIMIT", "much", 1);
  CHECK_THROWS(available_memory(), Status::invalid_input, "DPA2_MEMORY_LIMIT is 'much'");
  unsetenv("DPA2_MEMORY_LIMIT");
  // More of anything takes more memory.
  const auto estimate = [&](std::int64_t n, double neighbors, bool gradient, AtomVirial virial, int threads) {
    return model.memory_estimate(n, neighbors, gradient, virial, threads);
  };
  const std::int64_t base = estimate(1000, 50, true, AtomVirial::none, 1);
  CHECK(estimate(2000, 50, true, AtomVirial::none, 1) > base && estimate(1000, 60, true, AtomVirial::none, 1) > base);
  CHECK(estimate(1000, 50, true, AtomVirial::edge, 1) > base && estimate(1000, 50, true, AtomVirial::none, 2) > base);
  CHECK(estimate(1000, 50, false, AtomVirial::none, 1) < base);
  CHECK_THROWS(estimate(-1, 50, true, AtomVirial::none, 1), Status::invalid_input, "negative");
  CHECK_THROWS(estimate(1, std::nan(""), true, AtomVirial::none, 1), Status::invalid_input, "neighbours");
}

}  // namespace

int main() {
  const SafetensorsFile file = read_safetensors(DPA2_TEST_MODEL);
  CHECK(allocations > 0);
  for (const char* precision : {"float64", "float32"})
    for (const int threads : {1, 2})
      test_steady(file, precision, threads, threads == 1 ? 0.0 : 1.0);
  test_steady(file, "float32", 2, 0.0);
  test_skin(file);
  test_bytes();
  test_limits(file);
  return check::finish();
}
