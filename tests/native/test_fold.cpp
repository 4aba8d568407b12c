// What folds take from the weights: copies, or the arrays themselves of weights that are given away.
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "error.hpp"
#include "fold/folded.hpp"
#include "schema/safetensors.hpp"

namespace dpa2 {
namespace {

using Numbers = std::map<std::string, std::vector<double>>;

Numbers numbers(const Folded& folded) {
  Numbers all;
  struct {
    Numbers& to;
    void operator()(const std::string& name, const Matrix& m) { CHECK(to.emplace(name, m.a).second); }
    void operator()(const std::string& name, const Tensor& t) { CHECK(to.emplace(name, t.data).second); }
    void operator()(const std::string& name, double x) { CHECK(to.emplace(name, std::vector<double>{x}).second); }
  } collect{all};
  folded.for_each(collect);
  return all;
}

/// Every name once, the same numbers from copies as from the arrays themselves.
void copied_or_given_away() {
  SafetensorsFile file = read_safetensors(DPA2_TEST_MODEL);
  const Config config = parse_config(file.config_json);
  const Numbers first = numbers(fold(config, file.weights));
  check_weights(config, file.weights);  // they are all there
  CHECK(numbers(fold(config, std::move(file.weights))) == first);
  CHECK(first.count("layers.0.pair_attention.query") == 1 && first.count("head.bias") == 1);
}

void tensors_are_taken_once() {
  Weights weights;
  weights["a"] = {{2, 3}, {1, 2, 3, 4, 5, 6}};
  weights["b"] = {{2}, {7, 8}};
  const double* const array = weights["a"].data.data();
  RawTensors raw(std::move(weights));
  const Matrix a = raw.matrix("a"), b = raw.matrix("b");
  CHECK(a.rows == 2 && a.cols == 3 && a(1, 0) == 4 && a.a.data() == array);
  CHECK(b.rows == 1 && b.cols == 2 && b(0, 1) == 8);
  CHECK(!raw.has("a"));
  CHECK_THROWS(raw.matrix("a"), Status::model_file, "'a' is missing");
}

}  // namespace
}  // namespace dpa2

int main() {
  dpa2::copied_or_given_away();
  dpa2::tensors_are_taken_once();
  return check::finish();
}
