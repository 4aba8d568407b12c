// Where the pair features before every layer are while layers go up and gradients come down.
#include <string>
#include <vector>

#include "check.hpp"
#include "graph/pair_features.hpp"

namespace {

using namespace dpa2;

constexpr int n2 = 8, centres = 5, edges_of_one = 3;
constexpr std::int64_t nedge_repformer = centres * edges_of_one;

/// The features of an edge before a layer, in numbers that are exact.
double feature(int layer, std::int64_t edge, int channel) {
  double value = static_cast<double>(10 * edge + channel);
  for (int l = 0; l < layer; ++l) value = 2 * value + l;
  return value;
}

/// One evaluation: up through all layers, and `rounds` times down again.
struct Evaluation {
  PairFeatures<double>& pairs;
  int nlayers, keep;
  bool gradient;
  Arena arena;
  int made = 0, updated = 0;  // features from the edges, updates of a centre's

  const double* at(int layer, int i) {
    const std::int64_t start = static_cast<std::int64_t>(i) * edges_of_one;
    return pairs.at(
        layer, start, edges_of_one, arena,
        [&](double* g2) {
          ++made;
          for (int k = 0; k < edges_of_one * n2; ++k) g2[k] = feature(0, start + k / n2, k % n2);
        },
        [&](int l, const double* g2, double* out) {
          ++updated;
          for (int k = 0; k < edges_of_one * n2; ++k) out[k] = 2 * g2[k] + l;
        });
  }
  bool right(int layer, int i, const double* g2) {
    bool good = true;
    for (int k = 0; k < edges_of_one * n2; ++k) good = good && g2[k] == feature(layer, i * edges_of_one + k / n2, k % n2);
    return good;
  }

  void up(const std::string& what) {
    const int last = nlayers - 1;
    for (int l = 0; l <= last; ++l) {
      pairs.enter(l);
      for (int i = 0; i < centres; ++i) {
        const double* g2 = at(l, i);
        CHECK_CASE(right(l, i, g2), what);
        if (l == last) continue;
        double* next = pairs.place(l + 1, static_cast<std::int64_t>(i) * edges_of_one);
        for (int k = 0; k < edges_of_one * n2; ++k) next[k] = 2 * g2[k] + l;
      }
      arena.reset();
    }
    CHECK_CASE(updated == 0, what);  // on the way up nothing is computed twice
  }
  void down(const std::string& what) {
    for (int l = nlayers - 1; l >= 0; --l) {
      for (int i = 0; i < centres; ++i) {
        const double* g2 = at(l, i);
        double* dg2 = pairs.gradient(static_cast<std::int64_t>(i) * edges_of_one);
        for (int k = 0; k < edges_of_one * n2; ++k) dg2[k] = -1.0;
        CHECK_CASE(right(l, i, g2), what);  // not in the place of its gradient
      }
      arena.reset();
      pairs.leave();
    }
  }
};

void test_evaluations() {
  PairFeatures<double> pairs;  // one for all: what an evaluation leaves must not matter to the next
  for (const int nlayers : {1, 2, 3, 5})
    for (const int keep : {1, 2, 3, 7})
      for (const bool gradient : {true, false}) {
        const std::string what = std::to_string(nlayers) + " layers, every " + std::to_string(keep) + (gradient ? "" : ", no gradient");
        Extent e;
        e.nlocal = e.nall = centres;
        e.nedge = e.nedge_repformer = nedge_repformer;
        e.nlayers = nlayers;
        e.n2 = n2;
        e.keep = keep;
        e.gradient = gradient;
        Count kept;
        int arrays = 0;
        pairs.table(e, [&](auto& array, Count n, int copies) {
          if (arrays++ == 0) kept = n * copies;
          resize(array, n, copies);
        });
        CHECK_CASE(arrays == 2 && kept.value() == (gradient ? (nlayers - 1) / keep : 0) * nedge_repformer * n2, what);
        pairs.begin(e);
        Evaluation evaluation{pairs, nlayers, keep, gradient, {}};
        evaluation.up(what);
        if (!gradient) continue;
        evaluation.down(what);
        // What lies between kept layers is computed again from the one below, but the last layer's, which is still there.
        int again = 0, all = 0;
        for (int l = 0; l < nlayers; ++l) {
          all += l % keep;
          if (l < nlayers - 1) again += l % keep;
        }
        CHECK_CASE(evaluation.updated == again * centres, what);
        evaluation.updated = 0;
        evaluation.down(what + ", once more");  // the gradients have taken the last layer's place as well
        CHECK_CASE(evaluation.updated == all * centres, what);
      }
}

void test_sources() {
  using Source = PairFeatures<double>::Source;
  PairFeatures<double> pairs;
  Extent e;
  e.nlocal = e.nall = e.nedge = e.nedge_repformer = 1;
  e.nlayers = 4;
  e.n2 = n2;
  e.keep = 2;
  e.gradient = true;
  pairs.begin(e);
  CHECK(pairs.source(0) == Source::edges && pairs.source(1) == Source::again && pairs.source(2) == Source::kept);
  pairs.enter(1);
  CHECK(pairs.source(1) == Source::shared && pairs.source(2) == Source::kept && pairs.source(3) == Source::again);
  pairs.enter(3);
  CHECK(pairs.source(1) == Source::again && pairs.source(3) == Source::shared);
  pairs.leave();
  CHECK(pairs.source(3) == Source::again);
  e.gradient = false;
  pairs.begin(e);
  pairs.enter(2);
  CHECK(pairs.source(0) == Source::edges && pairs.source(2) == Source::shared);
}

}  // namespace

int main() {
  test_evaluations();
  test_sources();
  return check::finish();
}
