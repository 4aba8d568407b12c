// The environment matrix and the embedding networks.
#include "kernels_environment.hpp"
#include "training.hpp"

namespace {

using namespace operation;
using dpa2::Activation;

void test_env_mat(const std::string& level) {
  Random random(1);
  for (const int n : {0, 1, 2, 7, 8, 17})
    for (const double protection : {0.0, 0.25}) {
      EnvMat op{n, random.vector(3L * n), 1.0, 4.0, protection, random.vector(4), random.vector(4, 0.5, 2.0)};
      for (int e = 0; e < n; ++e) {  // inside, in and beyond the range of the switch
        const double length = e % 4 == 0 ? random(0.5, 0.9) : e % 4 == 3 ? random(4.1, 5.0) : random(1.1, 3.9);
        double rr = 0;
        for (int k = 0; k < 3; ++k) rr += op.d[at(static_cast<long>(k) * n + e)] * op.d[at(static_cast<long>(k) * n + e)];
        for (int k = 0; k < 3; ++k) {
          double& v = op.d[at(static_cast<long>(k) * n + e)];
          v = static_cast<float>(v * length / std::sqrt(rr));
        }
      }
      Bounds bounds;
      bounds.single = 1e-5;  // 1/(rcut - rcut_smth) and the distance are rounded before the switch's fifth power
      bounds.single_tangent = 5e-5;
      check_operation(op, "env_mat", level, bounds);
      check_training(op, "env_mat", level, bounds);
    }
  // At r = 0 the derivative of r is taken as zero: only the vector part moves.
  const Kernels<double>& k = dpa2::kernels<double>(level);
  const dpa2::math::Cutoff<double> cut{1.0, 1.0 / 3.0, 0.5};
  Guarded<double> d(24, 0.0), r(8, 0.0), R(32), sw(8), gamma(24, 0.0), dR(32, 1.0), dsw(8, 1.0), mean(4, 0.0), inv_std(4, 2.0);
  k.env_mat(1, 8, R, sw, d, r, cut, mean, inv_std);
  k.env_mat_backward(8, gamma, dR, dsw, d, r, cut, inv_std);
  CHECK(R(0) == 4.0 && R(8) == 0.0 && sw(0) == 1.0);
  for (int x = 0; x < 3; ++x) CHECK(gamma(8L * x) == 8.0);
}

/// Of dual numbers: at r = 0, where r' = 0, and beyond the cutoff, where nothing is left of an edge and of its tangents.
void test_env_mat_ends(const std::string& level) {
  using D = dpa2::Dual<double>;
  const dpa2::Kernels<D>& k = dpa2::kernels<D>(level);
  const dpa2::math::Cutoff<double> cut{1.0, 1.0 / 3.0, 0.5};
  Guarded<D> d(24, D(0.0)), r(8, D(1.0)), R(32), sw(8), gamma(24, D(0.0)), dR(32, D(1.0, 0.5)), dsw(8, D(1.0, 2.0));
  Guarded<double> mean(4, 0.0), inv_std(4, 2.0);
  d(0) = D(0.0, 3.0);
  r(0) = D(0.0, 0.0);
  d(1) = D(4.5, 3.0);
  r(1) = D(4.5, 3.0);
  k.env_mat(2, 8, R, sw, d, r, cut, mean, inv_std);
  k.env_mat_backward(8, gamma, dR, dsw, d, r, cut, inv_std);
  CHECK(equal(R(0), D(4.0)) && equal(R(8), D(0.0, 24.0)) && equal(sw(0), D(1.0)));
  for (long x = 0; x < 3; ++x) CHECK(equal(gamma(8 * x), D(8.0, 4.0)));
  for (long x = 0; x < 4; ++x) CHECK(equal(R(8 * x + 1), D(0.0)));
  for (long x = 0; x < 3; ++x) CHECK(equal(gamma(8 * x + 1), D(0.0)));
  CHECK(equal(sw(1), D(0.0)));
}

void test_embedding(const std::string& level) {
  Random random(2);
  Bounds training;
  training.single = 5e-6;
  training.single_tangent = 5e-5;  // up to four layers
  int variant = 0;
  for (const std::vector<int>& w : network_widths)
    for (const int extra : {0, 2})
      for (const int n : {0, 1, 2, 9, 33}) {
        const bool scaled = ++variant % 2 == 0;
        const Activation kind = variant % 3 == 0 ? Activation::silu : Activation::tanh;
        EmbeddingNet op{Net(random, w, 4, extra, scaled, kind), random.integers(n, 4), random.vector(n)};
        check_operation(op, "embedding_net " + std::to_string(variant), level);
        check_training(op, "embedding_net " + std::to_string(variant), level, training);
      }
}

}  // namespace

int main() {
  for_levels([](const std::string& level) {
    test_env_mat(level);
    test_env_mat_ends(level);
    test_embedding(level);
  });
  return check::finish();
}
