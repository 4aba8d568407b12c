// The operations of src/cpu at the sizes of a model, on a tile of centres, as an evaluation calls them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "schema/config.hpp"
#include "schema/weights.hpp"

namespace bench {

/// What is timed: each function does one tile of `centres`. Backward functions include what an evaluation computes again for them.
/// `training` is the backward on dual numbers with the gradients of the weights.
struct Operation {
  std::string name;
  std::function<void()> forward, backward, training;
  /// Bytes per centre that go in and come out, every array once; weights divided among the centres of the tile.
  double bytes_forward = 0, bytes_backward = 0;
};

struct Sizes {
  int n = 26, nr = 89;  ///< neighbours of a centre in the repformer (and three-body) list, and in the repinit list
};

inline constexpr int centres = 16;  ///< of a tile, as in the evaluation
inline constexpr int atoms = 192;   ///< rows of g1 that the neighbours are drawn from

/// A prepared model and all arrays; `operations` refers to them.
class Bench {
 public:
  Bench() = default;
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;
  virtual ~Bench() = default;
  std::vector<Operation> operations;
  bool series = false;  ///< the embedding networks are evaluated as series
};

template <class T>
Bench* make_bench(const dpa2::Config& config, const dpa2::Weights& weights, const Sizes& sizes);

}  // namespace bench
