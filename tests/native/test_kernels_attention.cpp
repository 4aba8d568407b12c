// Attention among the pairs of a centre and attention to its neighbours: the folded kernels against the unfolded formulas.
#include "kernels_attention.hpp"

namespace {

using namespace operation;

void test_pair_attention(const std::string& level) {
  Random random(1);
  Bounds bounds;
  bounds.forward = 1e-13;
  bounds.single = 1e-4;  // the switch multiplies logits of about 20
  bounds.adjoint = 1e-12;
  int variant = 0;
  for (const int n : {0, 1, 2, 5, 9, 17})
    for (const int nh : {1, 3})
      for (const bool gate : {false, true})
        for (const bool smooth : {false, true}) {
          ++variant;
          const int updates = variant % 3;
          const int n2 = variant % 2 == 0 ? 5 : 8;
          const double pads = variant % 2 == 0 ? 7 : 0;
          check_operation(PairAttention(random, n, n2, nh, 1 + variant % 4, gate, smooth, updates != 1, updates != 2, pads),
                          "pair_attention " + std::to_string(variant), level, bounds);
        }
  // Logits far beyond what exp can take.
  for (const bool smooth : {false, true}) {
    PairAttention large(random, 6, 5, 2, 3, true, smooth, true, true, 3);
    for (double& v : large.g2) v *= 64;
    close(large.reference<double>(large.inputs()), large.forward(dpa2::kernels<double>(level), large.inputs()), 1e-10,
          "pair_attention with large logits at " + level);
  }
}

void test_local_attention(const std::string& level) {
  Random random(2);
  Bounds bounds;
  bounds.forward = 1e-13;
  bounds.single = 1e-4;  // gradients of the scores are differences of nearly equal numbers
  for (const int n : {0, 1, 2, 5, 11})
    for (const int n1 : {1, 8, 19})
      for (const int nh : {1, 3})
        for (const bool smooth : {false, true})
          check_operation(LocalAttention(random, n, n1, nh, smooth, n1 == 8 ? 0 : 6), "local_attention", level, bounds);
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
      for (const bool smooth : {false, true})
        check_operation(Factors{n, smooth, random.vector(3L * n), random.vector(n, 0.0, 1.0)}, "attention_factors", level);
    test_pair_attention(level);
    test_local_attention(level);
  });
  return check::finish();
}
