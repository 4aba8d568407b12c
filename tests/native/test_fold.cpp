// What folds take from the weights: copies, or the arrays themselves of weights that are given away. What the way back for gradients
// adds to, and what it refuses; that it is the adjoint is checked from Python, model by model.
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

/// A gradient in the shape of `value`.
Matrix filled(const Matrix& value, double number) {
  Matrix g(value.rows, value.cols);
  for (std::size_t k = 0; k < g.a.size(); ++k) g.a[k] = number + static_cast<double>(k % 7);
  return g;
}

void gradients_are_added() {
  const SafetensorsFile file = read_safetensors(DPA2_TEST_MODEL);
  const Config config = parse_config(file.config_json);
  const Folded folded = fold(config, file.weights);

  Weights once = unfold(config, file.weights, Folded());
  std::size_t parameters = 0;
  for (const ExpectedWeight& weight : expected_weights(config)) {
    if (weight.role != WeightRole::parameter) {
      CHECK_CASE(once.count(weight.name) == 0, weight.name);
      continue;
    }
    ++parameters;
    const Tensor& zero = once.at(weight.name);
    CHECK_CASE(zero.shape == weight.shape && zero.data == std::vector<double>(file.weights.at(weight.name).data.size()), weight.name);
  }
  CHECK(once.size() == parameters);

  // A gradient that is added to itself is twice as large: the sums of doubled numbers are rounded alike.
  Folded gradient;
  gradient.descriptor.layers.emplace_back();
  FoldedLayer& layer = gradient.descriptor.layers.front();
  layer.pair_attention.emplace();
  layer.pair_attention->value = filled(folded.descriptor.layers[0].pair_attention->value, 0.3);
  layer.linear1.b = filled(folded.descriptor.layers[0].linear1.b, -1.0);
  gradient.descriptor.repinit.net.type_term = filled(folded.descriptor.repinit.net.type_term, 0.7);
  gradient.descriptor.repinit.net.gate = filled(folded.descriptor.repinit.net.gate, -2.0);
  RawTensors raw = RawTensors::of(file.weights);
  unfold_descriptor(config, raw, gradient.descriptor, once);
  Weights twice = once;
  unfold_descriptor(config, raw, gradient.descriptor, twice);
  std::size_t changed = 0;
  for (auto& [name, tensor] : twice) {
    changed += tensor.data != once.at(name).data ? 1 : 0;
    for (double& x : tensor.data) x /= 2;
    CHECK_CASE(tensor.data == once.at(name).data, name);
  }
  CHECK(changed == 2 + 1 + 1 + 6 + 1);  // values, head map; bias; bias; three layers of the gate; type embedding
  check_weights(config, file.weights);  // they are all there
}

void other_gradients_are_refused() {
  const SafetensorsFile file = read_safetensors(DPA2_TEST_MODEL);
  const Config config = parse_config(file.config_json);
  const auto refuses = [&](const Folded& gradient, const char* part) {
    CHECK_THROWS(unfold(config, file.weights, gradient), Status::internal, part);
  };
  Folded g;
  g.descriptor.tebd = Matrix(1, 1);
  refuses(g, "the type embedding has shape (1, 1)");
  g = Folded();
  g.descriptor.repinit.net.type_term = Matrix(2, 3);
  refuses(g, "type_term has shape (2, 3)");
  g = Folded();
  g.descriptor.layers.resize(1);
  g.descriptor.layers[0].pair_attention.emplace().query = Matrix(4, 4);
  refuses(g, "pair_attention.query has shape (4, 4)");
  g = Folded();
  g.descriptor.g2_embed.dense.w = Matrix(2, 2);
  refuses(g, "'descriptor.repformers.g2_embd.matrix' has shape (2, 2)");
  g = Folded();
  g.descriptor.repinit.net.layers.resize(9);
  g.descriptor.repinit.net.layers.back().w = Matrix(2, 2);
  refuses(g, "which is no parameter of this model");
  Config combination;
  combination.type = Combination::linear;
  CHECK_THROWS(unfold(combination, file.weights, g), Status::internal, "part by part");
}

}  // namespace
}  // namespace dpa2

int main() {
  dpa2::copied_or_given_away();
  dpa2::tensors_are_taken_once();
  dpa2::gradients_are_added();
  dpa2::other_gradients_are_refused();
  return check::finish();
}
