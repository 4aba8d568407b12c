// The first descriptor: repinit and the three-body sum, with their networks evaluated, as series and as tables.
#include "kernels_descriptor.hpp"
#include "training.hpp"

namespace {

using namespace operation;

/// A series is exact to rounding; its derivative loses a digit or two to the slope of the last terms.
Bounds series_bounds() {
  Bounds bounds;
  bounds.forward = 1e-13;
  bounds.adjoint = 1e-11;
  bounds.single = 1e-5;
  return bounds;
}

/// The third derivative of a table jumps at the nodes: central differences with a short step.
Bounds table_bounds() {
  Bounds bounds;
  bounds.step = 1e-5;
  return bounds;
}

/// Sums of float32 in another order than that of plain numbers.
Bounds training_bounds() {
  Bounds bounds;
  bounds.single = 4e-6;
  return bounds;
}

/// Mode 0 is concat, 1 strip, 2 strip with the switch.
Repinit repinit(Random& random, const std::vector<int>& w, int n, int mode, bool scaled, bool padded_slots) {
  const int ng = w.back(), ncomb = 4;
  Repinit op{Net(random, w, ncomb, mode == 0 ? 2 : 0, scaled),
             n,
             std::min(ng, 3),
             8,
             random.integers(n, ncomb),
             random.vector(4L * n),
             random.vector(n, 0.0, 1.0),
             {},
             mode == 2,
             0,
             {},
             {}};
  if (mode > 0) op.gate = random.vector(static_cast<long>(ncomb) * ng);
  if (padded_slots) {
    op.p1 = 5;
    op.pad_R = random.vector(4);
    op.pad_G = random.vector(ng);
  }
  return op;
}

void test_repinit(const std::string& level) {
  Random random(3);
  int variant = 0;
  for (const std::vector<int>& w : network_widths)
    for (const int n : {0, 1, 2, 13})
      for (int mode = 0; mode < 3; ++mode) {
        ++variant;
        const int ng = w.back();
        Repinit op = repinit(random, w, n, mode, variant % 2 == 0, variant % 4 == 0);
        const std::string name = "repinit " + std::to_string(variant);
        check_operation(op, name, level);
        check_training(op, name, level, training_bounds());
        for (const double range : {1.25, 0.6}) {  // all edges within the range of the series, or not all
          op.series = std::make_shared<Series>(op.net, mode == 0 ? op.net.ncomb : 1, -range, range);
          check_operation(op, name + " as series to " + std::to_string(range), level, series_bounds());
          if (variant % 2 == 1) check_training(op, name + " as series to " + std::to_string(range), level, series_bounds());
        }
        op.series = nullptr;
        for (const double step : {0.3125, 0.125}) {  // all edges within the table, or not all
          op.quintic = std::make_shared<Table>(random, mode == 0 ? op.net.ncomb : 1, ng, -4 * step, step);
          check_operation(op, name + " as table in steps of " + std::to_string(step), level, table_bounds());
        }
      }
  for (int mode = 0; mode < 3; ++mode) {  // more axes than a vector holds, and many edges
    Repinit op = repinit(random, {5, 10, 20, 20}, 37, mode, true, true);
    op.axis = 17;
    check_operation(op, "repinit of many edges " + std::to_string(mode), level);
    check_training(op, "repinit of many edges " + std::to_string(mode), level, training_bounds());
  }
}

void test_three_body(const std::string& level) {
  Random random(4);
  int variant = 0;
  for (const int n : {0, 1, 2, 5, 24})  // 24 edges: more pairs than one chunk holds
    for (int mode = 0; mode < 3; ++mode)
      for (const double p3 : {0.0, 3.0}) {
        ++variant;
        const std::vector<int>& w = network_widths[at(variant) % 4];
        const int nt = 2;
        ThreeBody op{Net(random, w, nt * nt, mode == 0 ? 2 : 0, variant % 2 == 0),
                     n,
                     nt,
                     4,
                     random.integers(n, nt),
                     random.vector(3L * n),
                     random.vector(n, 0.0, 1.0),
                     {},
                     mode == 2,
                     p3,
                     {random(), random(), random()},
                     1};
        if (mode > 0) op.gate = random.vector(static_cast<long>(nt) * nt * w.back());
        const std::string name = "three_body " + std::to_string(variant);
        check_operation(op, name, level);
        check_training(op, name, level, training_bounds());
        for (const double range : {3.25, 0.5}) {
          op.series = std::make_shared<Series>(op.net, mode == 0 ? nt * nt : 1, -range, range, mode == 0 ? nt : 0);
          check_operation(op, name + " as series to " + std::to_string(range), level, series_bounds());
          if (variant % 2 == 1) check_training(op, name + " as series to " + std::to_string(range), level, series_bounds());
        }
        op.series = nullptr;
        for (const double step : {0.8125, 0.125}) {
          op.quintic = std::make_shared<Table>(random, mode == 0 ? nt * nt : 1, w.back(), -4 * step, step);
          check_operation(op, name + " as table in steps of " + std::to_string(step), level, table_bounds());
        }
      }
}

}  // namespace

int main() {
  for_levels([](const std::string& level) {
    test_repinit(level);
    test_three_body(level);
  });
  return check::finish();
}
