// Attention among the pairs of a centre and attention to its neighbours: the folded kernels against the unfolded formulas.
#include "kernels_attention.hpp"
#include "training.hpp"

namespace {

using namespace operation;

/// Tangents alone, relative to the largest.
template <class Op>
void test_tangents(const Op& op, const std::string& name, const std::string& level) {
  Random random(4);
  const Blocks x = op.inputs(), v = random_blocks(random, x);
  const BlocksOf<Dual<double>> y = op.forward(dpa2::kernels<Dual<double>>(level), dual(x, v));
  close(tangent(op, x, v), part(y, &Dual<double>::d), 1e-10, name + ", tangents at " + level);
}

void test_pair_attention(const std::string& level) {
  Random random(1);
  Bounds bounds;
  bounds.forward = 1e-13;
  bounds.single = 1e-4;  // the switch multiplies logits of about 20
  bounds.adjoint = 1e-12;
  bounds.single_tangent = 1e-4;
  int variant = 0;
  for (const int n : {0, 1, 2, 5, 9, 17})
    for (const int nh : {1, 3})
      for (const bool gate : {false, true})
        for (const bool smooth : {false, true}) {
          ++variant;
          const int updates = variant % 3;
          const int n2 = variant % 2 == 0 ? 5 : 8;
          const double pads = variant % 2 == 0 ? 7 : 0;
          const PairAttention op(random, n, n2, nh, 1 + variant % 4, gate, smooth, updates != 1, updates != 2, pads);
          const std::string name = "pair_attention " + std::to_string(variant);
          check_operation(op, name, level, bounds);
          check_training(op, name, level, bounds);
        }
  for (const int nh : {2, 4})  // many edges: several strips of vectors
    for (const bool gate : {false, true})
      check_training(PairAttention(random, 41, 8, nh, 4, gate, gate, true, true, 3), "pair_attention of many edges", level, bounds);
  // Logits far beyond what exp can take.
  for (const bool smooth : {false, true}) {
    PairAttention large(random, 6, 5, 2, 3, true, smooth, true, true, 3);
    for (double& v : large.g2) v *= 64;
    close(large.reference<double>(large.inputs(), large.weights()), large.forward(dpa2::kernels<double>(level), large.inputs()), 1e-10,
          "pair_attention with large logits at " + level);
    test_tangents(large, "pair_attention with large logits", level);
  }
}

/// Each gradient of a weight by itself: what is wanted is as with all of them, and nothing else is written. The numbers round in
/// another way where the gradient of the values is not wanted.
template <class T>
void test_single_weights(const std::string& level) {
  using R = Real<T>;
  constexpr double tolerance = std::is_same<R, float>::value ? 1e-5 : 1e-13;
  const dpa2::Kernels<T>& k = dpa2::kernels<T>(level);
  Random random(5);
  const int n = 9, n2 = 5, nh = 2;
  const PairAttention op(random, n, n2, nh, 3, true, true, true, true, 4);
  const auto given = [&](const Blocks& blocks) {
    BlocksOf<T> x;
    for (const Vector& block : blocks) {
      x.emplace_back();
      for (const double value : block) {
        x.back().push_back(number<Wide<T>>(value));
        if constexpr (is_dual<T>) x.back().back().d = random();
      }
    }
    return x;
  };
  const BlocksOf<T> x = given(op.inputs()), dy = given({random.vector(n * n2), random.vector(3 * n)});
  PairAttention::Arrays<T> a(op, x);
  const long pairs = static_cast<long>(n) * a.m, size = static_cast<long>(n) * a.np, matrix = static_cast<long>(a.np) * a.hc;
  Rows<T> dz(dy[0], n, n2, a.np, 0);
  Guarded<T> ddh(dy[1], 1);
  dpa2::Arena arena;
  k.attention_factors(n, a.m, true, a.c1, a.c2, a.h2, a.sw, a.fall, arena);
  Blocks expected;
  for (const unsigned wanted : {15U, 0U, 1U, 2U, 4U, 8U, 6U}) {
    Guarded<T> dg2(size, T(0)), dh2(3 * n, T(0), 1), dc1(pairs, T(0)), dc2(pairs, T(0));
    Guarded<R> dA(matrix, R(0)), dB(matrix, R(0)), dbias(a.np, R(0)), dweight(nh, R(0));
    dpa2::PairAttentionGradient<R> g;
    if ((wanted & 1U) != 0) g.A = dA;
    if ((wanted & 2U) != 0) g.B = dB;
    if ((wanted & 4U) != 0) g.bias = dbias;
    if ((wanted & 8U) != 0) g.h2 = dweight;
    k.pair_attention_backward(a.p, a.in, dg2, dh2, dc1, dc2, wanted == 0 ? nullptr : &g, dz, ddh, arena);
    Blocks found{dA.rows(n2, a.hc, a.hc), dB.rows(n2, a.hc, a.hc), dbias.values(), dweight.values()};
    for (const auto& block : {dg2.rows(n, n2, a.np), dh2.values(), dc1.rows(n, n, a.m), dc2.rows(n, n, a.m)})
      for (const bool tangent : {false, true}) {
        found.emplace_back();
        for (const Wide<T>& value : block) found.back().push_back(tangent ? dpa2::math::gradient_of(value) : dpa2::math::value_of(value));
      }
    if (expected.empty()) expected = found;
    Blocks due = expected;
    for (unsigned b = 0; b < 4; ++b)
      if ((wanted >> b & 1U) == 0) std::fill(due[b].begin(), due[b].end(), 0.0);
    close(due, found, tolerance, "pair_attention with some gradients of weights at " + level);
  }
}

void test_local_attention(const std::string& level) {
  Random random(2);
  Bounds bounds;
  bounds.forward = 1e-13;
  bounds.single = 1e-4;  // gradients of the scores are differences of nearly equal numbers
  Bounds training = bounds;
  training.adjoint = 1e-11;
  for (const int n : {0, 1, 2, 5, 11}) {
    training.single_tangent = n > 2 ? 1e-4 : 1e-3;  // of one key or two they cancel to almost nothing
    for (const int n1 : {1, 8, 19})
      for (const int nh : {1, 3})
        for (const bool smooth : {false, true}) {
          const LocalAttention op(random, n, n1, nh, smooth, n1 == 8 ? 0 : 6);
          check_operation(op, "local_attention", level, bounds);
          check_training(op, "local_attention of " + std::to_string(n) + " edges", level, training);
        }
  }
  for (const bool smooth : {false, true}) {
    LocalAttention large(random, 6, 8, 2, smooth, 3);
    for (double& v : large.tq) v *= 1024;
    close(large.reference<double>(large.inputs()), large.forward(dpa2::kernels<double>(level), large.inputs()), 1e-10,
          "local_attention with large logits at " + level);
    test_tangents(large, "local_attention with large logits", level);
  }
}

/// Of switches next to 1 float32 kernels keep what they lack to it, however little that is.
void test_small_falls(const std::string& level) {
  const dpa2::Kernels<float>& k = dpa2::kernels<float>(level);
  const int n = 3, m = padded<float>(n);
  const Vector lacks{1e-12, 3e-9, 0.25};
  Guarded<float> h2(Vector{1, 0, 0, 0, 1, 0, 0, 0, 1}, 1), sw(Vector{1.0 - 1e-12, 1.0 - 3e-9, 0.75}, 1), fall(lacks, 1);
  Guarded<float> c1(static_cast<long>(n) * m), c2(static_cast<long>(n) * m);
  dpa2::Arena arena;
  k.attention_factors(n, m, true, c1, c2, h2, sw, fall, arena);
  for (int e = 0; e < n; ++e)
    for (int j = 0; j < n; ++j) {
      const double a = lacks[at(e)], b = lacks[at(j)], exact = a + b - a * b;
      CHECK_NEAR(c2(static_cast<long>(e) * m + j), exact, 3e-7 * exact);
    }
  // What the distance gives: 1 - sw = 10 u^3 - 15 u^4 + 6 u^5 from 1e-7 of the range on.
  for (const double r : {2.0000001, 2.001, 4.0, 6.0}) {
    const double u = (r - 2.0) / 4.0, exact = u * u * u * (10.0 + u * (6.0 * u - 15.0));
    CHECK_NEAR(dpa2::math::switch_fall(r, 2.0, 0.25), exact, 1e-14 * exact);
  }
}

}  // namespace

int main() {
  for_levels([](const std::string& level) {
    Random random(3);
    for (const int n : {0, 1, 2, 9, 17})
      for (const bool smooth : {false, true}) {
        const Factors op{n, smooth, random.vector(3L * n), random.vector(n, 0.0, 1.0)};
        check_operation(op, "attention_factors", level);
        check_training(op, "attention_factors", level);
      }
    test_pair_attention(level);
    test_single_weights<float>(level);
    test_single_weights<Dual<double>>(level);
    test_local_attention(level);
    test_small_falls(level);
  });
  return check::finish();
}
