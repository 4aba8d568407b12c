// Attention among the pairs of a centre and attention to its neighbours: the folded kernels against the unfolded formulas.
#include "kernels_attention.hpp"
#include "training.hpp"

namespace {

using namespace operation;

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
  }
}

/// Each gradient of a weight by itself, and all of them: the same numbers, and those of the inputs as without any.
template <class T>
void test_single_weights(const std::string& level) {
  using R = Real<T>;
  const dpa2::Kernels<T>& k = dpa2::kernels<T>(level);
  Random random(5);
  const PairAttention op(random, 9, 5, 2, 3, true, true, true, true, 4);
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
  const BlocksOf<T> x = given(op.inputs()), dy = given({random.vector(9L * 5), random.vector(9L * 3)});
  PairAttention::Arrays<T> a(op, x);
  const long pairs = 9L * a.m, size = 9L * a.np, matrix = static_cast<long>(a.np) * a.hc;
  Rows<T> dz(dy[0], 9, 5, a.np, 0);
  Guarded<T> ddh(dy[1], 1);
  dpa2::Arena arena;
  k.attention_factors(9, a.m, true, a.c1, a.c2, a.h2, a.sw, arena);
  std::vector<T> all_inputs;
  std::vector<R> all[4];
  for (const int wanted : {15, 0, 1, 2, 4, 8, 6}) {
    Guarded<T> dg2(size, T(0)), dh2(27, T(0), 1), dc1(pairs, T(0)), dc2(pairs, T(0));
    Guarded<R> dA(matrix, R(0)), dB(matrix, R(0)), dbias(a.np, R(0)), dweight(2, R(0));
    dpa2::PairAttentionGradient<R> g;
    if ((wanted & 1) != 0) g.A = dA;
    if ((wanted & 2) != 0) g.B = dB;
    if ((wanted & 4) != 0) g.bias = dbias;
    if ((wanted & 8) != 0) g.h2 = dweight;
    k.pair_attention_backward(a.p, a.in, dg2, dh2, dc1, dc2, wanted == 0 ? nullptr : &g, dz, ddh, arena);
    std::vector<T> inputs;
    for (const auto& [from, count] : {std::pair(dg2.data(), size), std::pair(dh2.data(), 27L), std::pair(dc1.data(), pairs)})
      inputs.insert(inputs.end(), from, from + count);
    if (wanted == 15) all_inputs = inputs;
    CHECK_CASE(inputs == all_inputs, level);
    int bit = 0;
    for (const auto& [from, count] : {std::pair(dA.data(), matrix), std::pair(dB.data(), matrix),
                                      std::pair(dbias.data(), static_cast<long>(a.np)), std::pair(dweight.data(), 2L)}) {
      const std::vector<R> found(from, from + count);
      if (wanted == 15) all[bit] = found;
      CHECK_CASE(found == ((wanted >> bit & 1) != 0 ? all[bit] : std::vector<R>(at(count), R(0))), level);
      ++bit;
    }
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
  });
  return check::finish();
}
