// The kernels of every instruction-set level for tests/ops, one call for every operation by its name. The arrays, their padding
// and what is checked on the way are those of the native tests; outputs and gradients come back without padding, in double.
//
// A call brings whole numbers and blocks of numbers in the order of the readers below: sizes and switches, rows of neighbours;
// then the inputs, then weights and constants, then, for a backward, the seeds.
#include <algorithm>
#include <string>
#include <vector>

#include "kernels_attention.hpp"
#include "kernels_dense.hpp"
#include "kernels_environment.hpp"
#include "kernels_messages.hpp"

namespace {

using namespace operation;

/// What a call brings, taken one after the other.
class Given {
 public:
  Given(const int* ints, int nints, const double* const* blocks, const long* sizes, int nblocks) : ints_(ints, ints + nints) {
    for (int b = 0; b < nblocks; ++b) blocks_.emplace_back(blocks[b], blocks[b] + sizes[b]);
  }
  int number() { return ints_.at(next_int_++); }
  bool flag() { return number() != 0; }
  std::vector<int> numbers(int n) {
    std::vector<int> v;
    for (int i = 0; i < n; ++i) v.push_back(number());
    return v;
  }
  Vector block() { return blocks_.at(next_block_++); }
  double scalar() { return block().at(0); }
  /// Rows of their own (no row is given), or the rows of neighbours; gradients go to other places.
  Places places(int n) {
    Places p;
    p.nall = number();
    if (p.nall == 0) return p;
    p.j = numbers(n);
    Random random(3);
    p.place = random.permutation(p.nall);
    return p;
  }
  Blocks rest() { return {blocks_.begin() + static_cast<std::ptrdiff_t>(next_block_), blocks_.end()}; }

 private:
  std::vector<int> ints_;
  Blocks blocks_;
  std::size_t next_int_ = 0, next_block_ = 0;
};

struct Call {
  std::string level;
  bool single, backward;
  Given given;
};

/// The operation with the values that it was made with as inputs; what has not been taken are the seeds.
template <class Op>
Blocks finish(const Op& op, Call& call) {
  const auto with = [&](const auto& k) {
    return call.backward ? op.backward(k, op.inputs(), call.given.rest()) : op.forward(k, op.inputs());
  };
  return call.single ? with(dpa2::kernels<float>(call.level)) : with(dpa2::kernels<double>(call.level));
}

Blocks run(const std::string& name, Call& call) {
  Given& g = call.given;
  Random random(1);  // what it draws is overwritten
  if (name == "activation") {
    Activate op{static_cast<Activation>(g.number()), 3.0, g.block()};
    return finish(op, call);
  }
  if (name == "linear") {
    const int m = g.number(), in = g.number(), out = g.number();
    Linear op{m, in, out, g.block(), {}, {}};
    op.w = g.block();
    op.b = g.block();
    return finish(op, call);
  }
  if (name == "layer_norm") {
    LayerNorm op{g.number(), 0, 0.0, g.block(), {}, {}};
    op.channels = g.number();
    op.gain = g.block();
    op.bias = g.block();
    op.eps = g.scalar();
    return finish(op, call);
  }
  if (name == "residual_update") {
    ResidualUpdate op{g.number(), 0, 0, 0.0, g.block(), {}, {}};
    op.nc_real = g.number();
    op.nterms = g.number();
    for (int t = 0; t < op.nterms; ++t) op.U.push_back(g.block());
    for (int t = 0; t < op.nterms; ++t) op.r.push_back(g.block());
    op.a = g.scalar();
    return finish(op, call);
  }
  if (name == "g2_embed") {
    G2Embed op{static_cast<Activation>(g.number()), 0, 0, g.block(), {}, {}};
    op.n = g.number();
    op.n2 = g.number();
    op.w = g.block();
    op.b = g.block();
    return finish(op, call);
  }
  if (name == "env_mat") {
    EnvMat op{g.number(), g.block(), 0.0, 0.0, 0.0, {}, {}};
    op.mean = g.block();
    op.std = g.block();
    const Vector cut = g.block();
    op.rs = cut.at(0);
    op.rc = cut.at(1);
    op.protection = cut.at(2);
    return finish(op, call);
  }
  if (name == "symmetrization") {
    Symmetrization op{g.number(), 0, 0, {}, g.block(), {}};
    op.nc = g.number();
    op.axis = g.number();
    op.places = g.places(op.n);
    op.X = g.block();
    return finish(op, call);
  }
  if (name == "conv") {
    Conv op{g.number(), 0, 0, {}, {}, g.block(), {}, {}, {}};
    op.na = g.number();
    op.nb = g.number();
    op.a_places = g.places(op.n);
    op.b_places = g.places(op.n);
    op.b = g.block();
    op.s = g.block();
    op.P = g.block();
    return finish(op, call);
  }
  if (name == "g1g1") {
    G1G1 op{g.number(), 0, 0, {}, g.block(), {}, {}, {}};
    op.n1 = g.number();
    op.n2 = g.number();
    op.places = g.places(op.n);
    op.g1 = g.block();
    op.w = g.block();
    op.W = g.block();
    return finish(op, call);
  }
  if (name == "local_attention") {
    const int n = g.number(), n1 = g.number(), nh = g.number();
    LocalAttention op(random, n, n1, nh, g.flag(), 0.0);
    const Places places = g.places(n);
    op.nall = places.nall;
    op.j = places.j;
    op.place = places.place;
    op.tq = g.block();
    op.g1 = g.block();
    op.w = g.block();
    op.pads = g.scalar();
    return finish(op, call);
  }
  if (name == "pair_attention") {
    const int n = g.number(), n2 = g.number(), nh = g.number(), nd = g.number();
    const bool gate = g.flag(), smooth = g.flag(), has_g2 = g.flag(), has_h2 = g.flag();
    PairAttention op(random, n, n2, nh, nd, gate, smooth, has_g2, has_h2, 0.0);
    for (Vector* part : {&op.g2, &op.h2, &op.sw, &op.Wqk, &op.Wv, &op.Wo, &op.bo, &op.wev}) *part = g.block();
    op.pads = g.scalar();
    return finish(op, call);
  }
  if (name == "fitting") {
    const Activation kind = static_cast<Activation>(g.number());
    const int m = g.number(), in = g.number(), out = g.number();
    const std::vector<int> widths = g.numbers(g.number());
    Fitting op(random, kind, m, in, widths, out, true);
    op.x = g.block();
    for (std::size_t l = 0; l < widths.size(); ++l) {
      op.w[l] = g.block();
      op.b[l] = g.block();
      op.idt[l] = g.block();
    }
    op.w_out = g.block();
    op.b_out = g.block();
    return finish(op, call);
  }
  throw std::invalid_argument("no operation is called " + name);
}

Blocks result;
std::string error, names;

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

/// The number of blocks that come back, -1 for an error. Not for several threads at once.
EXPORTED int operation_run(const char* name, const char* level, int single, int backward, const int* ints, int nints,
                           const double* const* blocks, const long* sizes, int nblocks) {
  const int before = check::failures;
  try {
    Call call{level, single != 0, backward != 0, Given(ints, nints, blocks, sizes, nblocks)};
    result = run(name, call);
    if (check::failures == before) return static_cast<int>(result.size());
    error = "a check of the native tests failed: see the standard error";
  } catch (const std::exception& e) { error = e.what(); }
  return -1;
}

EXPORTED const char* operation_error() { return error.c_str(); }
EXPORTED long operation_size(int block) { return static_cast<long>(result[static_cast<std::size_t>(block)].size()); }
EXPORTED const double* operation_block(int block) { return result[static_cast<std::size_t>(block)].data(); }

/// The levels of this build that this processor runs, lowest first, with spaces between them.
EXPORTED const char* operation_levels() {
  names.clear();
  for_levels([](const std::string& level) { names += (names.empty() ? "" : " ") + level; });
  return names.c_str();
}
