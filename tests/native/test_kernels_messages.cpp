// The operations that gather from the neighbours and scatter to them: symmetrization, conv, g1g1, assemble; and the fitting net.
#include "kernels_messages.hpp"
#include "training.hpp"

namespace {

using namespace operation;

/// Whole numbers add up exactly, so every sum can be compared with ==.
template <class T>
void test_assemble(const std::string& level) {
  const Kernels<T>& k = dpa2::kernels<T>(level);
  Random random(5);
  const int rows = 6;
  for (const int n : {0, 1, 2, 7, 16})
    for (const bool atomic : {false, true}) {
      const int m = padded<T>(n), own = random.below(rows);
      const auto whole = [&](long size) {
        Vector v(at(size));
        for (double& x : v) x = random.below(19) - 9;
        return v;
      };
      const Vector g = whole(3L * n), d = whole(3L * n);
      const std::vector<int> places = random.integers(n, rows);
      Rows<T> gamma(g, 3, n, m, NAN);
      Guarded<double> vectors(d), force(3L * rows, 1.0), virial(9, 2.0), atom_virial(9L * rows, 3.0);
      Guarded<int> scatter(places);
      k.assemble(n, m, force, own, scatter, virial, atomic ? static_cast<double*>(atom_virial) : nullptr, gamma, vectors);
      Vector f(at(3L * rows), 1.0), w(9, 2.0), aw(at(9L * rows), 3.0);
      for (int e = 0; e < n; ++e)
        for (int x = 0; x < 3; ++x) {
          const double component = g[at(static_cast<long>(x) * n + e)];
          f[at(3L * own + x)] += component;
          f[at(3L * places[at(e)] + x)] -= component;
          for (int l = 0; l < 3; ++l) {
            const double share = component * d[at(3L * e + l)];
            w[at(3L * x + l)] -= share;
            if (!atomic) continue;
            aw[at(9L * own + 3L * x + l)] -= share / 2;
            aw[at(9L * places[at(e)] + 3L * x + l)] -= share / 2;
          }
        }
      CHECK_CASE(force.values() == f && virial.values() == w && atom_virial.values() == aw, "assemble at " + level);
    }
}

template <class Op>
void check_message(const Op& op, const std::string& name, const std::string& level) {
  check_operation(op, name, level);
  check_training(op, name, level);
}

void test_messages(const std::string& level) {
  Random random(1);
  for (const int n : {0, 1, 2, 9})
    for (const int nc : {3, 8, 17, 32})
      for (const bool indexed : {false, true}) {
        const Places places = indexed ? Places(random, n, 5) : Places();
        check_message(Symmetrization{n, nc, std::min(nc, 4), places, random.vector(3L * n), random.vector(places.rows(n) * nc)},
                      "symmetrization", level);
      }
  for (const int n : {0, 1, 2, 11})
    for (const auto& [na, nb] : {std::pair(3, 19), std::pair(16, 8), std::pair(5, 5), std::pair(24, 1)})
      for (int role = 0; role < 2; ++role) {  // which side are the neighbours' rows
        const Places a = role == 1 ? Places(random, n, 6) : Places(), b = role == 0 ? Places(random, n, 6) : Places();
        check_message(Conv{n, na, nb, a, b, random.vector(a.rows(n) * na), random.vector(b.rows(n) * nb), random.vector(n),
                           random.vector(static_cast<long>(na) * nb)},
                      "conv", level);
      }
  // More edges than a product takes at once.
  check_training(Conv{170, 3, 2, {}, Places(random, 170, 6), random.vector(510L), random.vector(12), random.vector(170), random.vector(6)},
                 "conv", level);
  for (const int n : {0, 1, 2, 9})
    for (const auto& [n1, n2] : {std::pair(3, 5), std::pair(16, 8), std::pair(19, 1)})
      check_message(G1G1{n, n1, n2, Places(random, n, 4), random.vector(n1), random.vector(4L * n1), random.vector(n),
                         random.vector(static_cast<long>(n1) * n2)},
                    "g1g1", level);
}

void test_fitting(const std::string& level) {
  Random random(2);
  Bounds bounds;
  bounds.single = 1e-5;
  bounds.single_tangent = 1e-4;  // a block may be one number, a sum whose terms cancel
  // No hidden layer; skips that are absent, equal and doubling, also onto widths that leave a gap in the padding.
  for (const std::vector<int>& widths : std::vector<std::vector<int>>{{}, {6}, {12, 12}, {5, 10, 10}, {3, 6, 12, 7}})
    for (const int m : {0, 1, 2, 7})
      for (const int in : {6, 17})
        for (const bool scaled : {false, true})
          for (const int out : {1, 2, 21}) {
            const Fitting op(random, scaled ? Activation::tanh : Activation::sigmoid, m, in, widths, out, scaled);
            check_operation(op, "fitting", level, bounds);
            check_training(op, "fitting", level, bounds);
          }
}

}  // namespace

int main() {
  for_levels([](const std::string& level) {
    test_messages(level);
    test_fitting(level);
    test_assemble<double>(level);
    test_assemble<float>(level);
  });
  return check::finish();
}
