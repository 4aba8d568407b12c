// The evaluation of a periodic system by several ranks that exchange ghost rows against the evaluation of the whole.
#include <algorithm>
#include <array>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "check.hpp"
#include "exchange.hpp"
#include "model/evaluate.hpp"
#include "model/model.hpp"
#include "neighbors/build.hpp"
#include "small.hpp"

namespace {

using namespace dpa2;
using namespace small;

struct Result {
  double energy = 0;
  std::array<double, 9> virial{};
  std::vector<double> force, atom_virial, deepmd_virial, atom_energy, descriptor, seeded;

  /// Never empty: also a rank without atoms says what is computed, and thereby how often it exchanges.
  Result(int rows, int centres, int width)
      : force(at(3L * rows + 1), NAN),
        atom_virial(at(9L * rows + 1), NAN),
        deepmd_virial(atom_virial),
        atom_energy(at(centres), NAN),
        descriptor(at(static_cast<std::int64_t>(centres) * width), NAN),
        seeded(force) {}
};

template <class T>
void evaluate(const Config& config, const Prepared<T>& model, const Frame& frame, int threads, Exchange* exchange, Result& result,
              int keep = 0) {
  Evaluator<T> evaluator(config, model);
  if (keep > 0) evaluator.keep_every(keep);
  Outputs out;
  std::vector<double> unused(result.force.size());
  out.set("descriptor", result.descriptor.data());
  evaluator.descriptor(frame, threads, exchange, out);
  out.set("energy", &result.energy);
  out.set("virial", result.virial.data());
  out.set("force", result.force.data());
  out.set("atom_virial", result.atom_virial.data());
  out.set("atom_energy", result.atom_energy.data());
  evaluator.evaluate(frame, threads, exchange, AtomVirial::edge, out);
  out.set("force", unused.data());
  out.set("atom_virial", result.deepmd_virial.data());
  evaluator.evaluate(frame, threads, exchange, AtomVirial::deepmd, out);
  // Weights of an atom that every rank knows: by its parameter.
  const int nlocal = frame.edges->nlocal;
  const auto weights = [&](int width) {
    std::vector<double> w(at(static_cast<std::int64_t>(nlocal) * width + 1));
    for (int i = 0; i < nlocal; ++i)
      for (int c = 0; c < width; ++c) w[at(static_cast<std::int64_t>(i) * width + c)] = std::sin(c + 10 * frame.aparam[i]);
    return w;
  };
  const std::vector<double> energy = weights(1), descriptor = weights(model.descriptor_dim), rotation = weights(3 * model.n2_real);
  Seeds seeds;
  seeds.head = energy.data();
  seeds.descriptor = descriptor.data();
  seeds.rot_mat = rotation.data();
  Outputs gradient;
  gradient.set("force", result.seeded.data());
  evaluator.vjp(frame, threads, exchange, seeds, gradient);
  result.force.pop_back();
  result.atom_virial.pop_back();
  result.deepmd_virial.pop_back();
  result.seeded.pop_back();
}

template <class T>
Result whole(const Config& config, const Prepared<T>& model, const System& system, int threads, int keep = 0) {
  NeighborBuilder builder;
  Edges edges;
  const Box box(system.box.data(), {true, true, true});
  builder.build(system.x.data(), system.types.data(), system.n(), box, neighbor_settings(config), threads, edges);
  Frame frame;
  frame.edges = &edges;
  frame.types = system.types.data();
  frame.aparam = system.aparam.data();
  frame.wrapped = system.x.data();
  frame.pad_type = system.types[0];
  Result result(system.n(), system.n(), config.descriptor_dim());
  evaluate(config, model, frame, threads, nullptr, result, keep);
  return result;
}

/// Threads wait here for each other.
class Barrier {
 public:
  explicit Barrier(int count) : count_(count) {}
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    const long round = round_;
    if (++waiting_ == count_) {
      waiting_ = 0;
      ++round_;
      condition_.notify_all();
    } else {
      condition_.wait(lock, [&] { return round_ != round; });
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  int count_, waiting_ = 0;
  long round_ = 0;
};

struct Owner {
  int rank, row;
};

/// The part of the system that one rank has: its atoms, then every image of any atom that its atoms can see.
struct Rank {
  std::vector<int> atoms;
  std::vector<Owner> ghosts;
  std::vector<double> x, aparam;
  std::vector<int> types;
  int nlocal() const { return static_cast<int>(atoms.size()); }
  int nall() const { return static_cast<int>(types.size()); }
};

std::vector<Rank> split(const System& system, const std::vector<int>& rank_of, int nranks, double reach) {
  std::vector<Rank> ranks(at(nranks));
  std::vector<int> row(at(system.n()));
  for (int i = 0; i < system.n(); ++i) {
    Rank& rank = ranks[at(rank_of[at(i)])];
    row[at(i)] = rank.nlocal();
    rank.atoms.push_back(i);
    rank.types.push_back(system.types[at(i)]);
    rank.aparam.push_back(system.aparam[at(i)]);
    rank.x.insert(rank.x.end(), system.x.begin() + 3 * i, system.x.begin() + 3 * i + 3);
  }
  for (int r = 0; r < nranks; ++r)
    System::for_images([&](int a, int b, int c) {
      Rank& rank = ranks[at(r)];
      const std::array<double, 3> s = system.shift(a, b, c);
      for (int i = 0; i < system.n(); ++i) {
        if (rank_of[at(i)] == r && a == 0 && b == 0 && c == 0) continue;
        double v[3], least = 1e30;
        for (int k = 0; k < 3; ++k) v[k] = system.x[at(3L * i + k)] + s[at(k)];
        for (int l = 0; l < rank.nlocal(); ++l)
          least = std::min(least, std::hypot(rank.x[at(3L * l)] - v[0], rank.x[at(3L * l + 1)] - v[1], rank.x[at(3L * l + 2)] - v[2]));
        if (least > reach) continue;
        rank.ghosts.push_back({rank_of[at(i)], row[at(i)]});
        rank.types.push_back(system.types[at(i)]);
        rank.x.insert(rank.x.end(), v, v + 3);
      }
    });
  return ranks;
}

/// What the ranks show each other.
struct World {
  explicit World(const std::vector<Rank>& list) : ranks(list), barrier(static_cast<int>(list.size())), shown(list.size()) {}
  const std::vector<Rank>& ranks;
  Barrier barrier;
  std::vector<void*> shown;
};

class LocalExchange : public Exchange {
 public:
  LocalExchange(World& world, int me) : world_(world), me_(me) {}
  void forward(double* rows, int width) override { fill(rows, width); }
  void forward(float* rows, int width) override { fill(rows, width); }
  void reverse(double* rows, int width) override { add(rows, width); }
  void reverse(float* rows, int width) override { add(rows, width); }
  int forwards = 0, reverses = 0;

 private:
  template <class T>
  void fill(T* rows, std::int64_t width) {
    ++forwards;
    show(rows);
    const Rank& rank = world_.ranks[at(me_)];
    for (std::size_t g = 0; g < rank.ghosts.size(); ++g)
      std::copy_n(static_cast<const T*>(world_.shown[at(rank.ghosts[g].rank)]) + rank.ghosts[g].row * width, width,
                  rows + (rank.nlocal() + static_cast<std::int64_t>(g)) * width);
    world_.barrier.wait();
  }
  template <class T>
  void add(T* rows, std::int64_t width) {
    ++reverses;
    show(rows);
    for (std::size_t r = 0; r < world_.ranks.size(); ++r) {
      const Rank& from = world_.ranks[r];
      for (std::size_t g = 0; g < from.ghosts.size(); ++g) {
        if (from.ghosts[g].rank != me_) continue;
        const T* ghost = static_cast<const T*>(world_.shown[r]) + (from.nlocal() + static_cast<std::int64_t>(g)) * width;
        T* own = rows + from.ghosts[g].row * width;
        for (std::int64_t c = 0; c < width; ++c) own[c] += ghost[c];
      }
    }
    world_.barrier.wait();
  }
  void show(void* rows) {
    world_.shown[at(me_)] = rows;
    world_.barrier.wait();
  }
  World& world_;
  int me_;
};

template <class F>
void on_ranks(std::size_t nranks, F f) {
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < nranks; ++r) threads.emplace_back(f, static_cast<int>(r));
  for (std::thread& thread : threads) thread.join();
}

/// The ranks' results in the order of the whole system; what they add to ghosts goes to the owners.
template <class T>
Result parts(const Config& config, const Prepared<T>& model, const System& system, const std::vector<int>& rank_of, int nranks, int threads,
             int keep = 0) {
  const NeighborSettings settings = neighbor_settings(config);
  const std::vector<Rank> ranks = split(system, rank_of, nranks, settings.repinit.rcut + 0.5);
  const int width = config.descriptor_dim(), nlayers = config.repformer.nlayers;
  World world(ranks);
  std::vector<Result> results;
  for (const Rank& rank : ranks) results.emplace_back(rank.nall(), rank.nlocal(), width);
  std::vector<int> forwards(ranks.size()), reverses(ranks.size());
  on_ranks(ranks.size(), [&](int r) {
    const Rank& rank = ranks[at(r)];
    std::vector<std::vector<int>> lists(at(rank.nlocal()));
    std::vector<int> counts;
    std::vector<const int*> first;
    for (int i = 0; i < rank.nlocal(); ++i) {
      for (int j = rank.nall() - 1; j >= 0; --j)  // all rows, in the wrong order: the builder sorts and cuts
        if (j != i) lists[at(i)].push_back(j);
      counts.push_back(static_cast<int>(lists[at(i)].size()));
      first.push_back(lists[at(i)].data());
    }
    NeighborBuilder builder;
    Edges edges;
    builder.build_from_list(rank.x.data(), rank.types.data(), rank.nlocal(), rank.nall(), counts.data(), first.data(), 0x3fffffff, settings,
                            threads, edges);
    Frame frame;
    frame.edges = &edges;
    frame.types = rank.types.data();
    frame.aparam = rank.aparam.data();
    frame.wrapped = rank.x.data();
    frame.pad_type = system.types[0];
    LocalExchange exchange(world, r);
    evaluate(config, model, frame, threads, &exchange, results[at(r)], keep);
    forwards[at(r)] = exchange.forwards;
    reverses[at(r)] = exchange.reverses;
  });
  CHECK(forwards == std::vector<int>(ranks.size(), 4 * nlayers) && reverses == std::vector<int>(ranks.size(), 7 * nlayers));

  Result sum(system.n(), system.n(), width);
  sum.force.pop_back();
  sum.atom_virial.pop_back();
  sum.deepmd_virial.pop_back();
  sum.seeded.pop_back();
  std::fill(sum.force.begin(), sum.force.end(), 0.0);
  std::fill(sum.atom_virial.begin(), sum.atom_virial.end(), 0.0);
  std::fill(sum.deepmd_virial.begin(), sum.deepmd_virial.end(), 0.0);
  std::fill(sum.seeded.begin(), sum.seeded.end(), 0.0);
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    const Result& result = results[r];
    sum.energy += result.energy;
    for (std::size_t k = 0; k < 9; ++k) sum.virial[k] += result.virial[k];
    for (int row = 0; row < ranks[r].nall(); ++row) {
      const bool local = row < ranks[r].nlocal();
      const Owner owner = local ? Owner{static_cast<int>(r), row} : ranks[r].ghosts[at(row - ranks[r].nlocal())];
      const int i = ranks[at(owner.rank)].atoms[at(owner.row)];
      for (int k = 0; k < 3; ++k) {
        sum.force[at(3L * i + k)] += result.force[at(3L * row + k)];
        sum.seeded[at(3L * i + k)] += result.seeded[at(3L * row + k)];
      }
      for (int k = 0; k < 9; ++k) {
        sum.atom_virial[at(9L * i + k)] += result.atom_virial[at(9L * row + k)];
        sum.deepmd_virial[at(9L * i + k)] += result.deepmd_virial[at(9L * row + k)];
      }
      if (!local) continue;
      sum.atom_energy[at(i)] = result.atom_energy[at(row)];
      std::copy_n(result.descriptor.begin() + static_cast<std::ptrdiff_t>(row) * width, width,
                  sum.descriptor.begin() + static_cast<std::ptrdiff_t>(i) * width);
    }
  }
  return sum;
}

bool same(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  if (a.size() != b.size()) return false;
  double scale = 1.0;
  for (const double v : a) scale = std::max(scale, std::abs(v));
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(std::abs(a[i] - b[i]) <= tolerance * scale)) return false;
  return true;
}

void compare(const Result& a, const Result& b, double tolerance, const std::string& what) {
  CHECK_CASE(std::abs(a.energy - b.energy) <= tolerance * std::max(1.0, std::abs(a.energy)), what);
  CHECK_CASE(same(a.force, b.force, tolerance), what);
  CHECK_CASE(same({a.virial.begin(), a.virial.end()}, {b.virial.begin(), b.virial.end()}, tolerance), what);
  CHECK_CASE(same(a.atom_virial, b.atom_virial, tolerance), what);
  CHECK_CASE(same(a.deepmd_virial, b.deepmd_virial, tolerance), what);
  CHECK_CASE(same(a.atom_energy, b.atom_energy, tolerance), what);
  CHECK_CASE(same(a.descriptor, b.descriptor, tolerance), what);
  CHECK_CASE(same(a.seeded, b.seeded, tolerance), what);
}

template <class T>
void test_ranks(const Config& config, bool means, double tolerance, const std::string& name) {
  const Prepared<T> model(config, fold(config, random_weights(config, 5, means)));
  const System system(24, 3);
  const Result reference = whole(config, model, system, 1);
  double largest = 0;
  for (const double f : reference.force) largest = std::max(largest, std::abs(f));
  CHECK_CASE(std::isfinite(reference.energy) && largest > 1e-3, name);  // there is something to compare
  compare(reference, whole(config, model, system, 3), tolerance, name + ", three threads");

  std::vector<int> left(at(system.n())), odd(left.size()), alone(left.size()), third(left.size());
  for (int i = 0; i < system.n(); ++i) {
    left[at(i)] = system.x[at(3L * i)] > 3.0 ? 1 : 0;
    odd[at(i)] = i % 2;
    third[at(i)] = i == 5 ? 2 : i % 2;
  }
  for (const int threads : {1, 2}) {
    compare(reference, parts(config, model, system, left, 2, threads), tolerance, name + ", two halves");
    compare(reference, parts(config, model, system, odd, 2, threads), tolerance, name + ", every other atom");
    compare(reference, parts(config, model, system, alone, 2, threads), tolerance, name + ", a rank without atoms");
    compare(reference, parts(config, model, system, third, 3, threads), tolerance, name + ", a rank with one atom");
  }
  compare(reference, parts(config, model, system, left, 2, 1, 2), tolerance, name + ", two halves that keep half");
}

/// <forward(a), b> = <a, reverse(b)> over all ranks, for a on the local rows and b on all rows.
void test_adjoint() {
  const System system(20, 9);
  std::vector<int> rank_of;
  for (int i = 0; i < system.n(); ++i) rank_of.push_back(i % 3 == 0 ? 0 : 1);
  const std::vector<Rank> ranks = split(system, rank_of, 3, 4.0);  // the third has no atoms
  World world(ranks);
  std::vector<double> left(ranks.size()), right(ranks.size());
  on_ranks(ranks.size(), [&](int r) {
    const Rank& rank = ranks[at(r)];
    const std::int64_t width = 3, local = rank.nlocal() * width, all = rank.nall() * width;
    std::mt19937 random(static_cast<unsigned>(r));
    std::vector<double> a(at(all), NAN), b(at(all));
    for (std::int64_t i = 0; i < local; ++i) a[at(i)] = static_cast<double>(random() % 100u);  // whole numbers: exact sums
    for (double& v : b) v = static_cast<double>(random() % 100u);
    const std::vector<double> a0 = a, b0 = b;
    LocalExchange exchange(world, r);
    exchange.forward(a.data(), static_cast<int>(width));
    exchange.reverse(b.data(), static_cast<int>(width));
    for (std::int64_t i = 0; i < all; ++i) left[at(r)] += a[at(i)] * b0[at(i)];
    for (std::int64_t i = 0; i < local; ++i) right[at(r)] += a0[at(i)] * b[at(i)];
  });
  CHECK(left[0] + left[1] + left[2] == right[0] + right[1] + right[2] && left[0] > 0);
}

/// Forces are the differences of the energy, and two runs give the same bits.
void test_whole() {
  const Config config = parse_config(small_config().dump());
  const Prepared<double> model(config, fold(config, random_weights(config, 6, true)));
  System system(16, 4);
  const Result a = whole(config, model, system, 2), b = whole(config, model, system, 2);
  CHECK(a.energy == b.energy && a.force == b.force && a.virial == b.virial);
  constexpr double h = 1e-4;
  for (const std::size_t k : {std::size_t{0}, std::size_t{10}, std::size_t{35}}) {
    const double x = system.x[k];
    system.x[k] = x + h;
    const double plus = whole(config, model, system, 1).energy;
    system.x[k] = x - h;
    const double minus = whole(config, model, system, 1).energy;
    system.x[k] = x;
    CHECK_NEAR(a.force[k], (minus - plus) / (2 * h), 1e-6);
  }
}

/// Pair features and norms that are not kept are computed again to the same bits.
template <class T>
void test_keep(Json j, const std::string& name) {
  const System system(20, 7);
  for (const int nlayers : {1, 2, 5}) {
    j["descriptor"]["repformer"]["nlayers"] = nlayers;
    const Config config = parse_config(j.dump());
    const Prepared<T> model(config, fold(config, random_weights(config, 8, true)));
    for (const int threads : {1, 3}) {
      const Result all = whole(config, model, system, threads);
      for (const int keep : {1, 2, 3, 4, 5, 9})
        compare(all, whole(config, model, system, threads, keep), 0.0, name + ", every " + std::to_string(keep));
    }
  }
}

}  // namespace

int main() {
  Json j = small_config();
  test_keep<double>(j, "all updates");
  test_keep<float>(j, "all updates in float32");
  test_ranks<double>(parse_config(j.dump()), false, 1e-10, "all updates");
  test_ranks<double>(parse_config(j.dump()), true, 1e-10, "statistics with a mean");
  test_ranks<float>(parse_config(j.dump()), false, 2e-4, "all updates in float32");
  j["pair_exclude_types"] = {{0, 0}};
  j["descriptor"]["smooth"] = false;
  j["descriptor"]["repinit"]["tebd_input_mode"] = "concat";
  j["descriptor"]["repformer"]["g1_out_conv"] = true;
  j["descriptor"]["repformer"]["update_h2"] = false;
  j["descriptor"]["repformer"]["update_style"] = "res_avg";
  test_ranks<double>(parse_config(j.dump()), false, 1e-10, "without the switch");
  test_keep<double>(j, "without the switch");
  test_adjoint();
  test_whole();
  return check::finish();
}
