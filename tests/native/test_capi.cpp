// The C interface, as a program sees it: models from memory, whole systems, parts of systems with ghosts, errors, and steps that
// take no memory.
#include <algorithm>
#include <array>
#include <climits>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "allocations.hpp"
#include "check.hpp"
#include "dpa2.h"
#include "small.hpp"

namespace {

using namespace small;

struct Free {
  void operator()(dpa2_model* m) const { dpa2_model_free(m); }
  void operator()(dpa2_domain* d) const { dpa2_domain_free(d); }
};
using Handle = std::unique_ptr<dpa2_model, Free>;
using Part = std::unique_ptr<dpa2_domain, Free>;

/// A native file of the small model with random weights; `nsel` of repinit, and of the others less than that.
std::string file(int nsel = 80, unsigned seed = 5) {
  Json j = small_config();
  j["descriptor"]["repinit"]["nsel"] = nsel;
  for (const auto& [block, key] : {std::pair("repinit", "three_body_sel"), std::pair("repformer", "nsel")})
    j["descriptor"][block][key] = std::min(nsel - 1, j["descriptor"][block][key].get<int>());
  return sample::content(random_weights(parse_config(j.dump()), seed, false), j.dump(), false).bytes();
}

Handle load(const std::string& bytes, const char* precision) {
  dpa2_model* model = nullptr;
  CHECK_CASE(dpa2_model_load_buffer(bytes.data(), bytes.size(), "the buffer", precision, 0.0, &model) == DPA2_OK, dpa2_last_error());
  return Handle(model);
}

Part new_domain() {
  dpa2_domain* domain = nullptr;
  CHECK(dpa2_domain_create(&domain) == DPA2_OK);
  return Part(domain);
}

struct Answer {
  double energy = NAN;
  std::vector<double> forces, atom_energy, atom_virial, descriptor, rot_mat;
  std::array<double, 9> virial{};

  Answer(const dpa2_model* model, int rows, int centres)
      : forces(at(3L * rows), NAN),
        atom_energy(at(centres), NAN),
        atom_virial(at(9L * rows), NAN),
        descriptor(at(static_cast<std::int64_t>(centres) * dpa2_model_descriptor_dim(model)), NAN),
        rot_mat(at(3L * centres * dpa2_model_g2_dim(model)), NAN) {}
};

bool refused(dpa2_status status, dpa2_status expected, const char* part) {
  return CHECK_CASE(status == expected, dpa2_last_error()) &&
         CHECK_CASE(std::strstr(dpa2_last_error(), part) != nullptr, std::string(part) + " is in: " + dpa2_last_error());
}

Answer whole(const dpa2_model* model, const System& s, int threads) {
  Answer a(model, s.n(), s.n());
  CHECK_CASE(dpa2_evaluate(model, s.n(), s.x.data(), s.types.data(), s.box.data(), nullptr, nullptr, s.aparam.data(), threads, &a.energy,
                           a.forces.data(), a.virial.data(), a.atom_energy.data(), a.atom_virial.data()) == DPA2_OK,
             dpa2_last_error());
  CHECK(dpa2_descriptor(model, s.n(), s.x.data(), s.types.data(), s.box.data(), nullptr, threads, a.descriptor.data(), a.rot_mat.data()) ==
        DPA2_OK);
  return a;
}

/// The system with its periodic images as ghosts, and exchanges inside of the process.
struct Parts {
  int nlocal = 0, nall = 0;
  std::vector<double> x;
  std::vector<int> types, owner, numneigh;
  std::vector<std::vector<int>> lists;
  std::vector<const int*> firstneigh;
  dpa2_exchange exchange{};
  int size = 8, forwards = 0, reverses = 0, fail_at = -1;  // the call that fails

  Parts(const System& s, double reach) : nlocal(s.n()), x(s.x), types(s.types) {
    for (int i = 0; i < nlocal; ++i) owner.push_back(i);
    System::for_images([&](int a, int b, int c) {
      if (a == 0 && b == 0 && c == 0) return;
      const std::array<double, 3> shift = s.shift(a, b, c);
      for (int j = 0; j < s.n(); ++j) {
        double v[3], least = 1e30;
        for (std::size_t k = 0; k < 3; ++k) v[k] = s.x[at(3L * j) + k] + shift[k];
        for (int i = 0; i < nlocal; ++i) least = std::min(least, distance(&s.x[at(3L * i)], v));
        if (least > reach) continue;
        owner.push_back(j);
        types.push_back(s.types[at(j)]);
        x.insert(x.end(), v, v + 3);
      }
    });
    nall = static_cast<int>(types.size());
    lists.resize(at(nlocal));
    for (int i = 0; i < nlocal; ++i) {
      for (int j = nall - 1; j >= 0; --j)
        if (j != i && distance(&x[at(3L * i)], &x[at(3L * j)]) < reach)
          lists[at(i)].push_back(j | 1 << 30);  // a bit that the mask takes away
      numneigh.push_back(static_cast<int>(lists[at(i)].size()));
      firstneigh.push_back(lists[at(i)].data());
    }
    exchange = {this,
                [](void* self, void* rows, int width, int bytes) { return static_cast<Parts*>(self)->call(rows, width, bytes, true); },
                [](void* self, void* rows, int width, int bytes) { return static_cast<Parts*>(self)->call(rows, width, bytes, false); }};
  }
  Parts(const Parts&) = delete;
  Parts& operator=(const Parts&) = delete;

  dpa2_status set(dpa2_domain* domain) const {
    return dpa2_domain_set_atoms(domain, nlocal, nall, x.data(), owner.data(), numneigh.data(), firstneigh.data(), 0x3fffffff);
  }
  dpa2_status evaluate(dpa2_domain* domain, const dpa2_model* model, const System& s, int threads, Answer& a) {
    return dpa2_domain_evaluate(domain, model, types.data(), types[0], nullptr, s.aparam.data(), &exchange, threads, &a.energy,
                                a.forces.data(), a.virial.data(), a.atom_energy.data(), a.atom_virial.data());
  }
  void describe(dpa2_domain* domain, const dpa2_model* model, int threads, Answer& a) {
    CHECK(dpa2_domain_descriptor(domain, model, types.data(), types[0], &exchange, threads, a.descriptor.data(), a.rot_mat.data()) ==
          DPA2_OK);
  }
  /// Adds ghosts' rows to their owners'.
  void gather(std::vector<double>& rows, std::size_t width) const {
    for (int g = nlocal; g < nall; ++g)
      for (std::size_t k = 0; k < width; ++k) rows[at(owner[at(g)]) * width + k] += rows[at(g) * width + k];
    rows.resize(at(nlocal) * width);
  }

 private:
  static double distance(const double* a, const double* b) { return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]); }
  int call(void* rows, int width, int bytes, bool forward) {
    CHECK(bytes == size);
    if (forwards + reverses == fail_at) return 7;
    ++(forward ? forwards : reverses);
    if (bytes == 8)
      move(static_cast<double*>(rows), width, forward);
    else
      move(static_cast<float*>(rows), width, forward);
    return 0;
  }
  template <class T>
  void move(T* rows, std::int64_t width, bool forward) const {
    for (int g = nlocal; g < nall; ++g)
      for (std::int64_t k = 0; k < width; ++k) {
        T &ghost = rows[g * width + k], &own = rows[owner[at(g)] * width + k];
        if (forward)
          ghost = own;
        else
          own += ghost;
      }
  }
};

double difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0, scale = 1;
  for (std::size_t k = 0; k < a.size(); ++k) {
    if (!std::isfinite(a[k]) || !std::isfinite(b[k])) return INFINITY;
    worst = std::max(worst, std::abs(a[k] - b[k]));
    scale = std::max(scale, std::abs(b[k]));
  }
  return worst / scale;
}

void compare(const Answer& a, const Answer& b, double tolerance, const std::string& name) {
  CHECK_CASE(difference({a.energy}, {b.energy}) <= tolerance, name);
  CHECK_CASE(difference({a.virial.begin(), a.virial.end()}, {b.virial.begin(), b.virial.end()}) <= tolerance, name);
  CHECK_CASE(difference(a.forces, b.forces) <= tolerance, name);
  CHECK_CASE(difference(a.atom_energy, b.atom_energy) <= tolerance, name);
  CHECK_CASE(difference(a.atom_virial, b.atom_virial) <= tolerance, name);
  CHECK_CASE(difference(a.descriptor, b.descriptor) <= tolerance, name);
  CHECK_CASE(difference(a.rot_mat, b.rot_mat) <= tolerance, name);
}

void test_library() {
  CHECK(dpa2_abi_version() == DPA2_ABI_VERSION);
  CHECK(std::strlen(dpa2_version()) > 0 && std::strlen(dpa2_isa()) > 0);
  CHECK(std::strcmp(dpa2_last_warning(), "") == 0);
  dpa2_model_free(nullptr);
  dpa2_domain_free(nullptr);
  CHECK(dpa2_model_ntypes(nullptr) == 0 && dpa2_model_type_index(nullptr, "O") == -1 && dpa2_model_config(nullptr) == nullptr);
  CHECK(dpa2_model_kind(nullptr) == nullptr && dpa2_model_noutputs(nullptr) == 0 && dpa2_model_output(nullptr, 0) == nullptr);
}

void test_questions(const std::string& bytes) {
  const Handle model = load(bytes, nullptr);
  CHECK(dpa2_model_ntypes(model.get()) == 2 && dpa2_model_rcut(model.get()) == 4.0);
  CHECK(std::strcmp(dpa2_model_type_name(model.get(), 1), "H") == 0 && dpa2_model_type_name(model.get(), 2) == nullptr);
  CHECK(dpa2_model_type_index(model.get(), "H") == 1 && dpa2_model_type_index(model.get(), "Cu") == -1);
  CHECK(std::strcmp(dpa2_model_precision(model.get()), "float64") == 0);
  CHECK(dpa2_model_fparam_dim(model.get()) == 2 && dpa2_model_aparam_dim(model.get()) == 1 &&
        dpa2_model_has_default_fparam(model.get()) == 1);
  CHECK(Json::parse(dpa2_model_config(model.get())) == small_config());
  CHECK(dpa2_model_exchange_width(model.get()) >= 10);  // g1_dim, padded
  CHECK(dpa2_model_memory_estimate(model.get(), 1000, 50.0, 0, 1) > 100000 &&
        dpa2_model_memory_estimate(model.get(), -1, 50.0, 0, 1) == -1);
}

/// The periodic system by itself and with ghosts, and a domain that goes on after a callback that failed.
void test_parts(const std::string& bytes, const char* precision, int threads, double tolerance) {
  const std::string name = std::string(precision) + ", " + std::to_string(threads) + " threads";
  const Handle model = load(bytes, precision);
  const System s(24, 3);
  const Answer expected = whole(model.get(), s, threads);
  CHECK_CASE(*std::max_element(expected.forces.begin(), expected.forces.end()) > 1e-3, name);
  Parts parts(s, dpa2_model_rcut(model.get()) + 0.3);
  parts.size = std::strcmp(precision, "float32") == 0 ? 4 : 8;
  const Part domain = new_domain();
  for (int round = 0; round < 2; ++round) {
    CHECK_CASE(parts.set(domain.get()) == DPA2_OK, dpa2_last_error());
    Answer a(model.get(), parts.nall, s.n());
    parts.forwards = parts.reverses = 0;
    parts.fail_at = -1;
    CHECK_CASE(parts.evaluate(domain.get(), model.get(), s, threads, a) == DPA2_OK, dpa2_last_error());
    CHECK_CASE(parts.forwards == 3 && parts.reverses == 3, name);  // one per layer
    parts.describe(domain.get(), model.get(), threads, a);
    parts.gather(a.forces, 3);
    parts.gather(a.atom_virial, 9);
    compare(a, expected, tolerance, name);
    for (parts.fail_at = 0; parts.fail_at < 6; ++parts.fail_at) {
      Answer unused(model.get(), parts.nall, s.n());
      parts.forwards = parts.reverses = 0;
      const dpa2_status status = parts.evaluate(domain.get(), model.get(), s, threads, unused);
      refused(status, DPA2_EXCHANGE,
              parts.fail_at < 3 ? "the forward exchange failed with code 7" : "the reverse exchange failed with code 7");
    }
  }
}

std::string last_warning_of(dpa2_warning kind) { return dpa2_last_warning_of(kind); }

/// Two kinds of warnings, each by itself, and both in one text. The model knows of 0.9 angstrom in its training data.
void test_warnings() {
  const Handle model = load(file(), nullptr), few = load(file(8), nullptr);
  System s(24, 3);
  const auto evaluate = [&](const Handle& m) {
    double energy = 0.0;
    CHECK_CASE(dpa2_evaluate(m.get(), s.n(), s.x.data(), s.types.data(), s.box.data(), nullptr, nullptr, s.aparam.data(), 2, &energy,
                             nullptr, nullptr, nullptr, nullptr) == DPA2_OK,
               dpa2_last_error());
  };
  evaluate(model);
  CHECK(std::strcmp(dpa2_last_warning(), "") == 0 && last_warning_of(DPA2_WARNING_CLOSE_PAIR).empty());
  int pair[2] = {-1, -1};
  for (int i = 0, found = 0; i < s.n() && found < 2; ++i)
    if (s.types[at(i)] >= 0) pair[found++] = i;
  for (int c = 0; c < 3; ++c) s.x[at(3L * pair[1] + c)] = s.x[at(3L * pair[0] + c)] + (c == 0 ? 0.449 : 0.0) + (c == 2 ? 7.0 : 0.0);
  s.x[at(3L * pair[1])] -= 0.4;
  s.x[at(3L * pair[1] + 1)] += 0.9;
  evaluate(model);
  const std::string close = last_warning_of(DPA2_WARNING_CLOSE_PAIR);
  CHECK(dpa2_last_warning() == close && last_warning_of(DPA2_WARNING_OVERFLOW).empty());
  const std::string expected =
      "atoms " + std::to_string(pair[0]) + " and " + std::to_string(pair[1]) + " are 0.449 angstrom from each other";
  CHECK_CASE(
      close.find(expected) == 0 && close.find("0.45 angstrom, half of the least distance in the model's training data") != close.npos,
      close);
  CHECK_CASE(close.find("in nm") != close.npos, close);
  evaluate(few);
  CHECK(last_warning_of(DPA2_WARNING_OVERFLOW).find("more than its sel of 8") != std::string::npos);
  CHECK(last_warning_of(DPA2_WARNING_CLOSE_PAIR) == close);
  CHECK(dpa2_last_warning() == last_warning_of(DPA2_WARNING_OVERFLOW) + "\n" + close);
  CHECK(std::strcmp(dpa2_last_warning_of(static_cast<dpa2_warning>(0)), "") == 0);
}

void test_errors(const std::string& bytes) {
  dpa2_model* none = reinterpret_cast<dpa2_model*>(&none);
  refused(dpa2_model_load_buffer(bytes.data(), bytes.size() - 1, "the buffer", nullptr, 0.0, &none), DPA2_MODEL_FILE, "the buffer");
  CHECK(none == nullptr);
  refused(dpa2_model_load("/nowhere/model.safetensors", nullptr, 0.0, &none), DPA2_MODEL_FILE, "/nowhere/model.safetensors");
  refused(dpa2_model_load_buffer(bytes.data(), bytes.size(), nullptr, "float16", 0.0, &none), DPA2_INVALID_INPUT, "float16");
  refused(dpa2_model_load_buffer(bytes.data(), bytes.size(), nullptr, nullptr, -0.5, &none), DPA2_INVALID_INPUT, "skin");
  refused(dpa2_model_load_buffer(bytes.data(), bytes.size(), nullptr, nullptr, 0.0, nullptr), DPA2_INVALID_INPUT, "model is NULL");

  const Handle model = load(bytes, nullptr);
  System s(24, 3);
  Answer a(model.get(), s.n(), s.n());
  const auto evaluate = [&](const double* aparam) {
    return dpa2_evaluate(model.get(), s.n(), s.x.data(), s.types.data(), s.box.data(), nullptr, nullptr, aparam, 1, &a.energy, nullptr,
                         nullptr, nullptr, nullptr);
  };
  refused(evaluate(nullptr), DPA2_INVALID_INPUT, "aparam");
  s.aparam[3] = NAN;
  refused(evaluate(s.aparam.data()), DPA2_INVALID_INPUT, "number 3 of aparam is not finite");
  s.aparam[3] = 0.5;
  const double place = s.x[3];
  s.x[3] = INFINITY;
  refused(evaluate(s.aparam.data()), DPA2_INVALID_INPUT, "coordinate 0 of atom 1 is not finite");
  s.x[3] = -1.1e7;
  refused(evaluate(s.aparam.data()), DPA2_INVALID_INPUT, "coordinate 0 of atom 1 is too large; coordinates are in angstrom: -1.1e+07");
  s.x[3] = place;
  for (const int threads : {4097, INT_MAX})
    refused(dpa2_evaluate(model.get(), s.n(), s.x.data(), s.types.data(), s.box.data(), nullptr, nullptr, s.aparam.data(), threads,
                          &a.energy, nullptr, nullptr, nullptr, nullptr),
            DPA2_INVALID_INPUT, "threads must be between 1 and 4096");
  CHECK(dpa2_model_memory_estimate(model.get(), 10, 50.0, 0, INT_MAX) == -1);
  CHECK(dpa2_model_memory_estimate(model.get(), INT64_MAX, 50.0, 1, 4096) == INT64_MAX);

  const System fine(24, 3);
  Parts parts(fine, 4.3);
  const Part domain = new_domain();
  Answer b(model.get(), parts.nall, fine.n());
  CHECK(parts.set(domain.get()) == DPA2_OK);
  refused(dpa2_domain_evaluate(domain.get(), model.get(), parts.types.data(), 0, nullptr, fine.aparam.data(), nullptr, 1, &b.energy,
                               nullptr, nullptr, nullptr, nullptr),
          DPA2_INVALID_INPUT, "there is no exchange");
  parts.numneigh[5] = -2;
  refused(parts.set(domain.get()), DPA2_INVALID_INPUT, "atom 5 has -2 neighbours");
  parts.numneigh[5] = 1;
  parts.firstneigh[5] = nullptr;
  refused(parts.set(domain.get()), DPA2_INVALID_INPUT, "the list of neighbours of atom 5 is NULL");
  const int wrong = parts.nall;
  parts.firstneigh[5] = &wrong;
  CHECK(parts.set(domain.get()) == DPA2_OK);
  refused(parts.evaluate(domain.get(), model.get(), fine, 1, b), DPA2_INVALID_INPUT, "neighbour 0 of atom 5");
}

/// Models on one domain: lists are made once for those that want the same, which shows when they can no longer be made.
void test_sharing() {
  const Handle first = load(file(80, 5), nullptr), same = load(file(80, 6), nullptr), other = load(file(79, 6), nullptr);
  const System s(24, 3);
  Parts parts(s, 4.3);
  const Part domain = new_domain();
  CHECK(parts.set(domain.get()) == DPA2_OK);
  Answer a(first.get(), parts.nall, s.n()), b = a, c = a;
  CHECK(parts.evaluate(domain.get(), first.get(), s, 1, a) == DPA2_OK);
  const int entry = parts.lists[0][0];
  parts.lists[0][0] = parts.nall;
  CHECK_CASE(parts.evaluate(domain.get(), same.get(), s, 1, b) == DPA2_OK, dpa2_last_error());
  refused(parts.evaluate(domain.get(), other.get(), s, 1, c), DPA2_INVALID_INPUT, "neighbour 0 of atom");
  parts.lists[0][0] = entry;
  parts.gather(b.forces, 3);
  CHECK(difference(b.forces, whole(same.get(), s, 1).forces) <= 1e-10 && a.energy != b.energy);
}

/// A process without atoms takes part in every exchange.
void test_empty(const std::string& bytes) {
  const Handle model = load(bytes, nullptr);
  const System none(0, 1);
  Parts parts(none, 4.0);
  const Part domain = new_domain();
  double energy = 1.0, unused = 0.0, forces[3] = {}, virial[9];
  const auto evaluate = [&](double* f) {
    return dpa2_domain_evaluate(domain.get(), model.get(), nullptr, -1, nullptr, nullptr, &parts.exchange, 1, &energy, f, nullptr, nullptr,
                                nullptr);
  };
  CHECK(parts.set(domain.get()) == DPA2_OK);
  CHECK_CASE(evaluate(forces) == DPA2_OK, dpa2_last_error());
  CHECK(energy == 0.0 && parts.forwards == 3 && parts.reverses == 3);
  CHECK(evaluate(nullptr) == DPA2_OK && parts.forwards == 6 && parts.reverses == 3);
  energy = 1.0;
  CHECK(dpa2_evaluate(model.get(), 0, nullptr, nullptr, nullptr, nullptr, nullptr, &unused, 1, &energy, forces, virial, nullptr, nullptr) ==
        DPA2_OK);
  CHECK(energy == 0.0 && virial[4] == 0.0);
}

/// After the first steps, evaluations of slightly moved atoms take no memory.
void test_steady(const std::string& bytes, const char* precision, int threads) {
  const Handle model = load(bytes, precision);
  const System s(24, 3);
  Parts parts(s, 4.3);
  parts.size = std::strcmp(precision, "float32") == 0 ? 4 : 8;
  const Part domain = new_domain(), other = new_domain();  // the other without atomic virials
  Answer a(model.get(), parts.nall, s.n());
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform(-0.01, 0.01);
  const auto step = [&] {
    for (int i = 0; i < parts.nall; ++i)
      for (std::size_t k = 0; k < 3; ++k) parts.x[at(3L * i) + k] += i < parts.nlocal ? uniform(random) : 0.0;
    bool good = parts.set(domain.get()) == DPA2_OK && parts.evaluate(domain.get(), model.get(), s, threads, a) == DPA2_OK;
    good = good && dpa2_domain_descriptor(domain.get(), model.get(), parts.types.data(), -1, &parts.exchange, threads, a.descriptor.data(),
                                          a.rot_mat.data()) == DPA2_OK;
    const char* const names[] = {"energy", "force", "descriptor"};
    double* const arrays[] = {&a.energy, a.forces.data(), a.descriptor.data()};
    good = good && parts.set(other.get()) == DPA2_OK;
    good = good && dpa2_domain_compute(other.get(), model.get(), parts.types.data(), -1, nullptr, s.aparam.data(), &parts.exchange, threads,
                                       3, names, arrays) == DPA2_OK;
    const char* const weighted[] = {"descriptor", "atom_energy"};
    const double* const weights[] = {a.descriptor.data(), a.atom_energy.data()};
    good = good && dpa2_domain_vjp(other.get(), model.get(), parts.types.data(), -1, nullptr, s.aparam.data(), &parts.exchange, threads, 2,
                                   weighted, weights, a.forces.data(), a.virial.data()) == DPA2_OK;
    CHECK_CASE(good, dpa2_last_error());
  };
  for (int k = 0; k < 4; ++k) step();
  const long before = check::allocations;
  for (int k = 0; k < 6; ++k) step();
  CHECK_CASE(check::allocations == before,
             std::string(precision) + ", " + std::to_string(threads) + " threads: " + std::to_string(check::allocations - before));
}

}  // namespace

int main() {
  const std::string bytes = file();
  CHECK(check::allocations > 0);
  test_library();
  test_questions(bytes);
  for (const int threads : {1, 2}) {
    test_parts(bytes, "float64", threads, 1e-10);
    test_parts(bytes, "float32", threads, 2e-4);
    test_steady(bytes, "float64", threads);
    test_steady(bytes, "float32", threads);
  }
  test_warnings();
  test_errors(bytes);
  test_sharing();
  test_empty(bytes);
  return check::finish();
}
