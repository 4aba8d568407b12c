// A step of molecular dynamics takes no memory: calls of the allocator are counted over evaluations of slightly moved atoms. And
// the limits on memory.
#include <algorithm>
#include <array>
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "allocations.hpp"
#include "check.hpp"
#include "error.hpp"
#include "graph/memory.hpp"
#include "model/model.hpp"
#include "schema/safetensors.hpp"
#include "small.hpp"
#include "threads.hpp"

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
  explicit Results(std::size_t n, int descriptor)
      : energies(n), forces(3 * n), virials(9 * n), rows(n * static_cast<std::size_t>(descriptor)) {}
  void set(Outputs& out) {
    out.set("energy", &energy);
    out.set("virial", virial.data());
    out.set("atom_energy", energies.data());
    out.set("force", forces.data());
    out.set("atom_virial", virials.data());
  }
  double energy = 0;
  std::array<double, 9> virial{};
  std::vector<double> energies, forces, virials, rows;
  Remarks remarks;
};

void test_steady(const SafetensorsFile& file, const char* precision, int threads, double skin) {
  const Model model(parse_config(file.config_json), file.weights, precision, skin);
  Water water(2);
  Results results(water.types.size(), model.config().descriptor_dim());
  results.remarks.overflow.reserve(3);
  Outputs out;
  results.set(out);
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
  rows.set("descriptor", results.rows.data());
  const auto describe = [&] {
    water.move(0.01);
    model.descriptor(water.structure(), threads, rows, results.remarks);
  };
  for (int k = 0; k < 3; ++k) describe();
  const long before = allocations;
  for (int k = 0; k < 6; ++k) describe();
  CHECK_CASE(allocations == before, name + ", descriptor");
}

/// A small model of another kind, and water.
struct OtherKind {
  explicit OtherKind(const char* type) {
    Json j = small::small_config();
    Json& fitting = j["fitting_net"];
    fitting["type"] = type;
    fitting["atom_ener"] = Json::array();
    const std::string kind = type;
    if (kind == "polar") fitting.update({{"fit_diag", false}, {"shift_diag", true}, {"scale", {0.5, 2.0}}});
    if (kind == "dos") fitting["numb_dos"] = 21;
    if (kind == "property") fitting.update({{"property_name", "gap"}, {"task_dim", 3}, {"intensive", true}, {"distinguish_types", false}});
    config = parse_config(j.dump());
    parameters.resize(water.types.size(), 0.3);
  }
  Structure structure() {
    Structure s = water.structure();
    s.aparam = parameters.data();
    return s;
  }
  Config config;
  Water water{2};
  std::vector<double> parameters;
};

/// Likewise of models of other kinds.
void test_steady_kinds() {
  for (const char* type : {"dipole", "polar", "dos", "property", "population"}) {
    OtherKind kind(type);
    const Model model(kind.config, small::random_weights(kind.config, 4, false), "float32");
    std::vector<std::vector<double>> arrays;
    Outputs out;
    for (const OutputSpec& spec : model.outputs()) {
      if (of_descriptor(spec)) continue;
      arrays.emplace_back(static_cast<std::size_t>(spec.size()) * (spec.per_atom ? kind.water.types.size() : 1));
      out.set(spec.name, arrays.back().data());
    }
    Remarks remarks;
    remarks.overflow.reserve(3);
    const auto step = [&](AtomVirial virial) {
      kind.water.move(0.01);
      model.evaluate(kind.structure(), virial, 2, out, remarks);
    };
    for (const AtomVirial virial : {AtomVirial::none, AtomVirial::edge, AtomVirial::deepmd}) {
      for (int k = 0; k < 3; ++k) step(virial);
      const long before = allocations;
      for (int k = 0; k < 6; ++k) step(virial);
      CHECK_CASE(allocations == before, std::string(type) + ": " + std::to_string(allocations - before));
    }
    const auto estimate = [&](AtomVirial virial) { return model.memory_estimate(1000, 50, true, virial, 1); };
    const bool forces = out.array("force") != nullptr;
    CHECK((estimate(AtomVirial::edge) > estimate(AtomVirial::none)) == forces && estimate(AtomVirial::none) > 100000);
    CHECK((model.memory_estimate(1000, 50, false, AtomVirial::none, 1) < estimate(AtomVirial::none)) == forces);
  }
}

/// With a skin the same bits as without, also for two trajectories of the same atoms that take turns. With `molecules`^3 of water:
/// large systems are evaluated in an order of their own.
void test_skin(const SafetensorsFile& file, int molecules, int steps, int threads) {
  const Model plain(parse_config(file.config_json), file.weights, "float64"),
      skinned(parse_config(file.config_json), file.weights, "float64", 1.0);
  CHECK(plain.skin() == 0.0 && skinned.skin() == 1.0);
  Water first(molecules), second(molecules);
  second.move(0.3);
  Remarks remarks;
  for (int k = 0; k < steps; ++k) {
    Water& water = k % 2 == 0 ? first : second;
    water.move(0.08);
    Results a(water.types.size(), 1), b(water.types.size(), 1);
    Outputs out_a, out_b;
    a.set(out_a);
    b.set(out_b);
    plain.evaluate(water.structure(), AtomVirial::edge, threads, out_a, remarks);
    skinned.evaluate(water.structure(), AtomVirial::edge, threads, out_b, remarks);
    CHECK(a.energy == b.energy && a.virial == b.virial);
    CHECK(a.forces == b.forces && a.virials == b.virials);
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
  out.set("force", results.forces.data());
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
  CHECK_THROWS(estimate(1, 50, true, AtomVirial::none, most_threads + 1), Status::invalid_input,
               "threads must be between 1 and 4096, not 4097");
  CHECK_THROWS(estimate(1, 50, true, AtomVirial::none, INT_MAX), Status::invalid_input, "not 2147483647");
  CHECK_THROWS(model.evaluate(water.structure(), AtomVirial::none, INT_MAX, out, results.remarks), Status::invalid_input,
               "threads must be");
}

/// Also for more atoms than there are numbers: the answer is then the largest one.
void test_large_estimates(const SafetensorsFile& file) {
  for (const double skin : {0.0, 1.0}) {
    const Model model(parse_config(file.config_json), file.weights, "float64", skin);
    for (const AtomVirial virial : {AtomVirial::none, AtomVirial::edge, AtomVirial::deepmd})
      for (const int threads : {1, 7, most_threads})
        for (const double neighbors : {0.0, 50.0, 1e6, 1e300}) {
          std::int64_t last = 0;
          for (int power = 32; power <= 63; ++power)
            for (const std::int64_t n : {(std::int64_t{1} << (power - 1)) + 1, power < 63 ? std::int64_t{1} << power : INT64_MAX}) {
              const std::int64_t bytes = model.memory_estimate(n, neighbors, true, virial, threads);
              CHECK(bytes >= last && bytes > n / 2);
              last = bytes;
            }
          CHECK(last == INT64_MAX);
        }
    // In proportion, as long as there are numbers.
    const auto at = [&](double n) {
      return static_cast<double>(model.memory_estimate(static_cast<std::int64_t>(n), 50, true, AtomVirial::none, 1));
    };
    CHECK_NEAR(at(1e14) / at(1e12), 100.0, 1e-3);
  }
}

/// Threads of this process.
std::set<std::string> threads_now() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) names.insert(entry.path().filename().string());
  return names;
}

/// Steps neither end threads nor start others, also where the neighbour search has work for fewer of them.
void test_threads_stay(const SafetensorsFile& file) {
  if (!std::filesystem::exists("/proc/self/task")) return;
  for (const double skin : {0.0, 1.0}) {
    const Model model(parse_config(file.config_json), file.weights, "float32", skin);
    Water water(3);
    Results results(water.types.size(), 1);
    Outputs out;
    out.set("force", results.forces.data());
    std::set<std::string> before;
    for (int k = 0; k < 6; ++k) {
      water.move(0.01);
      model.evaluate(water.structure(), AtomVirial::none, 9, out, results.remarks);
      if (k > 0) CHECK(threads_now() == before);
      before = threads_now();
    }
    CHECK(before.size() >= 9);
  }
}

/// A variable that makes no sense is found when a model is made.
void test_environment(const SafetensorsFile& file) {
  const auto make = [&] { return std::make_unique<Model>(parse_config(file.config_json), file.weights, "float32"); };
  const struct {
    const char *name, *bad, *good;
  } variables[] = {
      {"DPA2_MEMORY_LIMIT", "much", "8G"}, {"DPA2_MEMORY_LIMIT", "-1", "0"}, {"DPA2_SERIES", "of", "off"}, {"DPA2_SERIES", "OFF", "on"}};
  for (const auto& v : variables) {
    setenv(v.name, v.bad, 1);
    CHECK_THROWS(make(), Status::invalid_input, (std::string(v.name) + " is '" + v.bad + "'").c_str());
    for (const char* good : {v.good, ""}) {
      setenv(v.name, good, 1);
      CHECK(make() != nullptr);
    }
    unsetenv(v.name);
  }
}

}  // namespace

int main() {
  const SafetensorsFile file = read_safetensors(DPA2_TEST_MODEL);
  CHECK(allocations > 0);
  for (const char* precision : {"float64", "float32"})
    for (const int threads : {1, 2}) test_steady(file, precision, threads, threads == 1 ? 0.0 : 1.0);
  test_steady(file, "float32", 2, 0.0);
  test_steady_kinds();
  test_skin(file, 2, 12, 1);
  test_skin(file, 7, 10, 2);
  test_bytes();
  test_limits(file);
  test_large_estimates(file);
  test_environment(file);
  test_threads_stay(file);
  return check::finish();
}
