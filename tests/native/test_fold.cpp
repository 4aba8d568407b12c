// What folds take from the weights: copies, or the arrays themselves of weights that are given away.
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "error.hpp"
#include "fold/folded.hpp"
#include "model/safetensors.hpp"

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

void copied_or_given_away() {
  SafetensorsFile file = read_safetensors(DPA2_TEST_MODEL);
  const Config config = parse_config(file.config_json);
  RawTensors copies(file.weights);
  const Numbers first = numbers(fold(config, copies));
  RawTensors again(file.weights);
  CHECK(numbers(fold(config, again)) == first);
  check_weights(config, file.weights);  // they are all there
  RawTensors given(std::move(file.weights));
  CHECK(numbers(fold(config, given)) == first);
  CHECK(first.count("layers.0.pair_attention.query") == 1 && first.count("energy.bias") == 1);
}

void what_is_given_away_is_read_once() {
  Weights weights;
  weights["a"] = {{2, 3}, {1, 2, 3, 4, 5, 6}};
  weights["b"] = {{2}, {7, 8}};
  const double* const array = weights["a"].data.data();
  RawTensors copies(weights);
  const Matrix copy = copies.matrix("a");
  CHECK(copy.rows == 2 && copy.cols == 3 && copy(1, 0) == 4 && copy.a.data() != array);
  CHECK(copies.matrix("a").a == copy.a && copies.has("a"));
  RawTensors given(std::move(weights));
  const Matrix moved = given.matrix("a");
  CHECK(moved.a == copy.a && moved.a.data() == array);
  CHECK(!given.has("a"));
  CHECK_THROWS(given.matrix("a"), Status::model_file, "'a' is missing");
  const Matrix row = given.matrix("b");
  CHECK(row.rows == 1 && row.cols == 2);
}

}  // namespace
}  // namespace dpa2

int main() {
  dpa2::copied_or_given_away();
  dpa2::what_is_given_away_is_read_once();
  return check::finish();
}
