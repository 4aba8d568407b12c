// Gradients of weighted sums of energies, descriptors and rotation matrices: the way back through the whole graph.
//
// The weighted sum along a direction is an analytic function where no pair of atoms comes near a cutoff. Central differences of
// high order with a wide step then give its derivative to rounding, and the adjoint test needs no other implementation.
#include <array>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "fold/folded.hpp"
#include "model/evaluate.hpp"
#include "model/model.hpp"
#include "neighbors/build.hpp"
#include "small.hpp"

namespace {

using namespace dpa2;
using namespace small;

using Vector = std::vector<double>;

/// Atoms in open space, some of them virtual. No distance of two lies near one of the cutoffs.
struct Cluster {
  Vector x, aparam;
  std::vector<int> types;
  [[nodiscard]] int n() const { return static_cast<int>(types.size()); }

  Cluster(int count, const NeighborSettings& s, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> place(0.0, 4.6), unit(0.0, 1.0);
    constexpr double margin = 0.1;
    while (n() < count) {
      const std::array<double, 3> v{place(random), place(random), place(random)};
      bool good = true;
      for (std::size_t i = 0; i < x.size(); i += 3) {
        const double r = std::hypot(x[i] - v[0], x[i + 1] - v[1], x[i + 2] - v[2]);
        good = good && r > 1.0 + margin;  // 1 angstrom: where the switches begin
        for (const double rcut : {s.repinit.rcut, s.three.rcut, s.repformer.rcut}) good = good && std::abs(r - rcut) > margin;
      }
      if (!good) continue;
      x.insert(x.end(), v.begin(), v.end());
      aparam.push_back(unit(random));
      types.push_back(n() == 5 ? -1 : n() % 3 == 0 ? 0 : 1);
    }
  }
};

struct SumWeights {
  Vector energy, descriptor, rotation;
};

/// Weights of a model whose energies have no constant parts: those have no gradient, but they would be rounded with it.
Weights weights_of(const Config& config) {
  Weights weights = random_weights(config, 11, true);
  const std::string last = "fitting_net.filter_layers.networks.0.layers." + std::to_string(config.fitting.neuron.size()) + ".bias";
  for (const std::string& name : {std::string("fitting_net.bias_atom_e"), std::string("out_bias"), last})
    for (double& value : weights.at(name).data) value = 0.0;
  return weights;
}

template <class T>
class Case {
 public:
  Case(const Json& json, int keep) : config_(parse_config(json.dump())), model_(config_, fold(config_, weights_of(config_))), keep_(keep) {}
  [[nodiscard]] const Config& config() const { return config_; }

  /// The terms of the weighted sum of outputs: of those that have weights.
  Vector terms(const Cluster& c, const SumWeights& w) const {
    Vector energy(at(c.n())), descriptor(at(c.n() * config_.descriptor_dim())), rotation(at(c.n() * config_.repformer.g2_dim * 3));
    Outputs out;
    out.set("atom_energy", energy.data());
    out.set("descriptor", descriptor.data());
    out.set("rot_mat", rotation.data());
    on(c, [&](const Frame& frame) {
      Evaluator<T> evaluator(config_, model_);
      evaluator.evaluate(frame, 1, nullptr, AtomVirial::none, out);
      evaluator.descriptor(frame, 1, nullptr, out);
    });
    Vector found;
    const auto add = [&](const Vector& weight, const Vector& value) {
      for (std::size_t i = 0; i < weight.size(); ++i) found.push_back(weight[i] * value[i]);
    };
    add(w.energy, energy);
    add(w.descriptor, descriptor);
    add(w.rotation, rotation);
    return found;
  }

  struct Gradient {
    Vector force, virial = Vector(9), atom_virial;
  };
  Gradient gradient(const Cluster& c, const SumWeights& w, int threads = 1) const {
    Gradient g;
    g.force.assign(at(3 * c.n()), NAN);
    g.atom_virial.assign(at(9 * c.n()), NAN);
    Outputs out;
    out.set("force", g.force.data());
    out.set("virial", g.virial.data());
    out.set("atom_virial", g.atom_virial.data());
    Seeds seeds;
    if (!w.energy.empty()) seeds.head = w.energy.data();
    if (!w.descriptor.empty()) seeds.descriptor = w.descriptor.data();
    if (!w.rotation.empty()) seeds.rot_mat = w.rotation.data();
    on(c, [&](const Frame& frame) {
      Evaluator<T> evaluator(config_, model_);
      if (keep_ > 0) evaluator.keep_every(keep_);
      for (int k = 0; k < 2; ++k) evaluator.vjp(frame, threads, nullptr, seeds, out);  // what the first leaves must not matter
    });
    return g;
  }
  /// Energies, forces, virial.
  Gradient forces(const Cluster& c) const {
    Gradient g;
    g.force.assign(at(3 * c.n()), NAN);
    g.atom_virial.assign(at(9 * c.n()), NAN);
    Outputs out;
    out.set("force", g.force.data());
    out.set("virial", g.virial.data());
    out.set("atom_virial", g.atom_virial.data());
    on(c, [&](const Frame& frame) { Evaluator<T>(config_, model_).evaluate(frame, 1, nullptr, AtomVirial::edge, out); });
    return g;
  }

 private:
  template <class F>
  void on(const Cluster& c, F f) const {
    NeighborBuilder builder;
    Edges edges;
    builder.build(c.x.data(), c.types.data(), c.n(), Box(), neighbor_settings(config_), 1, edges);
    Frame frame;
    frame.edges = &edges;
    frame.types = c.types.data();
    frame.aparam = c.aparam.data();
    frame.pad_type = c.types[0];
    f(frame);
  }
  Config config_;
  Prepared<T> model_;
  int keep_;
};

struct Derivative {
  double value = 0, size = 0;  ///< size: the sum of the terms' sizes
};

/// The derivative at 0 of a sum with the terms f(t): from multiples of a step h up to 8 h, with an error of order h^16. Terms are
/// subtracted one by one, a sum's own rounding would be divided by h; that of the terms is averaged over steps.
template <class F>
Derivative derivative(F f) {
  constexpr double c[] = {8.0 / 9, -14.0 / 45, 56.0 / 495, -7.0 / 198, 56.0 / 6435, -2.0 / 1287, 8.0 / 45045, -1.0 / 102960};
  constexpr int steps = 24;
  Vector terms;
  for (int s = 0; s < steps; ++s)
    for (int k = 1; k <= 8; ++k) {
      const double h = 0.0031 + 0.00001 * s;
      const Vector plus = f(k * h), minus = f(-k * h);
      terms.resize(plus.size());
      for (std::size_t i = 0; i < plus.size(); ++i) terms[i] += c[k - 1] / (h * steps) * (plus[i] - minus[i]);
    }
  Derivative d;
  for (const double term : terms) {
    d.value += term;
    d.size += std::abs(term);
  }
  return d;
}

Vector numbers(std::mt19937& random, std::int64_t n) {
  std::uniform_real_distribution<double> unit(-1.0, 1.0);
  Vector v(at(n));
  for (double& x : v) x = unit(random);
  return v;
}

double largest(const Vector& v) {
  double most = 0;
  for (const double x : v) most = std::max(most, std::abs(x));
  return most;
}

void close(const Vector& a, const Vector& b, double tolerance, const std::string& what) {
  double error = a.size() == b.size() ? 0.0 : INFINITY;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) error = std::max(error, std::abs(a[i] - b[i]));
  CHECK_TEXT(error <= tolerance * std::max(largest(a), 1e-3), what + ": " + std::to_string(error / largest(a)));
}

void test_case(const Json& json, int keep, const std::string& name) {
  const Case<double> wide(json, keep), kept(json, 1);
  const Case<float> narrow(json, keep);
  const Config& config = wide.config();
  const Cluster cluster(9, neighbor_settings(config), 21);
  std::mt19937 random(5);
  SumWeights all;
  all.energy = numbers(random, cluster.n());
  all.descriptor = numbers(random, cluster.n() * config.descriptor_dim());
  all.rotation = numbers(random, cluster.n() * config.repformer.g2_dim * 3);
  const std::vector<std::pair<std::string, SumWeights>> seeds{
      {"energy", {all.energy, {}, {}}}, {"descriptor", {{}, all.descriptor, {}}}, {"rotation", {{}, {}, all.rotation}}, {"all", all}};
  for (const auto& seed : seeds) {
    const SumWeights& w = seed.second;
    const std::string what = name + ", " + seed.first;
    const Case<double>::Gradient g = wide.gradient(cluster, w);
    CHECK_TEXT(largest(g.force) > 1e-3, what + ": there is a gradient");
    // The adjoint test, along a direction of all atoms and along a strain.
    const Vector v = numbers(random, 3 * cluster.n()), strain = numbers(random, 9);
    const auto along = [&](auto move) {
      return derivative([&](double t) {
        Cluster moved = cluster;
        for (std::size_t i = 0; i < moved.x.size(); ++i) moved.x[i] += t * move(i);
        return wide.terms(moved, w);
      });
    };
    constexpr double width = 3.0;  // angstrom: of displacements as large as those of `v`
    const auto stretch = [&](std::size_t i) {
      double dx = 0;
      for (std::size_t l = 0; l < 3; ++l) dx += strain[3 * (i % 3) + l] * (cluster.x[i - i % 3 + l] - 2.3) / width;
      return dx;
    };
    double by_force = 0, size = 1e-3, by_virial = 0, virial_size = 1e-3;
    for (std::size_t i = 0; i < v.size(); ++i) {
      by_force -= g.force[i] * v[i];
      size += std::abs(g.force[i] * v[i]);
      virial_size += std::abs(g.force[i] * stretch(i));
    }
    for (std::size_t k = 0; k < 9; ++k) by_virial -= g.virial[k] * strain[k] / width;
    const auto adjoint = [&](const Derivative& d, double found, double scale, const std::string& where) {
      const double error = std::abs(d.value - found) / std::max(d.size, scale);
      CHECK_TEXT(error <= 1e-12, what + where + std::to_string(error * 1e12) + "e-12");
    };
    adjoint(along([&](std::size_t i) { return v[i]; }), by_force, size, ", adjoint: ");
    adjoint(along(stretch), by_virial, virial_size, ", strain: ");
    Vector virial(9);
    for (std::size_t i = 0; i < g.atom_virial.size(); ++i) virial[i % 9] += g.atom_virial[i];
    close(g.virial, virial, 1e-12, what + ", atomic virials add up");
    // One coordinate at a time.
    for (const std::size_t k : {std::size_t{0}, std::size_t{10}, std::size_t{26}}) {
      const auto value = [&](double t) {
        Cluster one = cluster;
        one.x[k] += t;
        return wide.terms(one, w);
      };
      const auto difference = [&](double h) {
        const Vector plus = value(h), minus = value(-h);
        double total = 0;
        for (std::size_t i = 0; i < plus.size(); ++i) total += plus[i] - minus[i];
        return total / (2 * h);
      };
      const double central = (4 * difference(5e-4) - difference(1e-3)) / 3;
      CHECK_TEXT(std::abs(central + g.force[k]) <= 1e-7 * std::max(1.0, largest(g.force)), what + ", coordinate " + std::to_string(k));
    }
    close(g.force, wide.gradient(cluster, w, 3).force, 1e-12, what + ", three threads");
    CHECK_TEXT(g.force == kept.gradient(cluster, w).force, what + ": the same bits with all layers kept");
    close(g.force, narrow.gradient(cluster, w).force, 2e-4, what + ", float32");
  }
  // Ones for the energies are the forces themselves.
  const Case<double>::Gradient f = wide.forces(cluster), g = wide.gradient(cluster, {Vector(at(cluster.n()), 1.0), {}, {}});
  CHECK_TEXT(f.force == g.force && f.virial == g.virial && f.atom_virial == g.atom_virial, name + ": forces, to the bit");
  const Case<double>::Gradient none = wide.gradient(cluster, {});
  CHECK_TEXT(largest(none.force) == 0 && largest(none.virial) == 0, name + ": no weights");
}

}  // namespace

int main() {
  setenv("DPA2_SERIES", "off", 1);  // the networks themselves: no rounding of a table in the differences
  Json j = small_config();
  j["fitting_net"]["atom_ener"] = Json::array();  // nor of large energies that do not change
  const auto with = [&](const char* key, const Json& value) {
    Json other = j;
    other["descriptor"]["repformer"][key] = value;
    return other;
  };
  test_case(j, 0, "all updates");
  test_case(with("direct_dist", true), 0, "direct_dist");
  test_case(with("use_sqrt_nnei", false), 0, "without the root");
  test_case(with("update_h2", false), 0, "h2 as it was");
  test_case(with("update_g1_has_grrg", false), 0, "no moments of g2 in g1");
  test_case(with("nlayers", 1), 0, "one layer");
  test_case(with("nlayers", 5), 2, "five layers, every second kept");
  Json sharp = with("g1_out_conv", true);
  sharp["descriptor"]["smooth"] = false;
  sharp["descriptor"]["concat_output_tebd"] = false;
  test_case(sharp, 0, "without the switch");
  return check::finish();
}
