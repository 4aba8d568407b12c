// se_e2_a: moments with a network of its own for every combination of types, with networks evaluated and as series.
#include "kernels_se.hpp"

namespace {

using namespace operation;

void test_se_block(const std::string& level) {
  Random random(11);
  int variant = 0;
  for (const std::vector<int>& widths : {std::vector<int>{4}, {1, 2, 2}, {3, 6, 7}, {5, 10, 20, 20}})
    for (const int n : {0, 1, 13, 37}) {
      const int combinations = 1 + variant % 4, ng = widths.back();
      ++variant;
      SeBlock op{{}, n, std::min(ng, variant % 2 == 0 ? 17 : 3), 40, random.integers(n, combinations), random.vector(4L * n), 0, {}, {}, 0};
      for (int k = 0; k < combinations; ++k) op.nets.emplace_back(random, widths, 1, 0, variant % 2 == 0);
      if (variant % 3 == 0) std::sort(op.combination.begin(), op.combination.end());  // as lists have them
      if (variant % 2 == 1) {
        op.padded_slots = 5;
        op.pad_R = random.vector(4);
        op.pad_G = random.vector(ng);
      }
      const std::string name = "se_e2_a " + std::to_string(variant);
      check_operation(op, name, level);
      Bounds series;
      series.forward = 1e-13;
      series.adjoint = 1e-11;
      series.single = 1e-5;
      for (const double range : {1.25, 0.6}) {  // all edges within the range of the series, or not all
        op.range = range;
        check_operation(op, name + " as series to " + std::to_string(range), level, series);
      }
    }
}

}  // namespace

int main() {
  for_levels(test_se_block);
  return check::finish();
}
