#include <cstdlib>
#include <string>
#include <type_traits>

#include "cpu/kernels.hpp"
#include "error.hpp"

namespace dpa2 {
namespace isa {
struct base;
struct v2;
struct v3;
struct v4;
}  // namespace isa

namespace {

template <class T, class Isa, std::enable_if_t<!is_dual<T>, int> = 0>
const Kernels<T>& table() {
  static const Kernels<T> k = {
      &Activate<T, Isa>::forward,
      &Activate<T, Isa>::forward_grad,
      &Activate<T, Isa>::backward,
      &Linear<T, Isa>::template run<T, Real<T>>,
      &Linear<T, Isa>::gradient,
      &Linear<T, Isa>::bias_gradient,
      &EnvMat<T, Isa>::forward,
      &EnvMat<T, Isa>::backward,
      &EmbeddingNetOp<T, Isa>::layout,
      &EmbeddingNetOp<T, Isa>::forward,
      &EmbeddingNetOp<T, Isa>::backward,
      &Repinit<T, Isa>::embed,
      &Repinit<T, Isa>::forward,
      &Repinit<T, Isa>::backward,
      &ThreeBody<T, Isa>::forward,
      &ThreeBody<T, Isa>::backward,
      &G2Embed<T, Isa>::forward,
      &G2Embed<T, Isa>::backward,
      &LayerNorm<T, Isa>::forward,
      &LayerNorm<T, Isa>::backward,
      &PairAttention<T, Isa>::factors,
      &PairAttention<T, Isa>::factors_backward,
      &PairAttention<T, Isa>::forward,
      &PairAttention<T, Isa>::backward,
      &Symmetrization<T, Isa>::moments,
      &Symmetrization<T, Isa>::gram,
      &Symmetrization<T, Isa>::gram_backward,
      &Symmetrization<T, Isa>::moments_backward,
      &Conv<T, Isa>::forward,
      &Conv<T, Isa>::backward,
      &G1G1<T, Isa>::forward,
      &G1G1<T, Isa>::backward,
      &LocalAttention<T, Isa>::forward,
      &LocalAttention<T, Isa>::backward,
      &ResidualUpdate<T, Isa>::forward,
      &ResidualUpdate<T, Isa>::backward,
      &Fitting<T, Isa>::run,
      &Assemble<T, Isa>::centre,
  };
  return k;
}

template <class T, class Isa, std::enable_if_t<is_dual<T>, int> = 0>
const Kernels<T>& table() {
  static const Kernels<T> k = [] {
    Kernels<T> t{};
    t.activate = &Activate<T, Isa>::forward;
    t.activate_grad = &Activate<T, Isa>::forward_grad;
    t.activate_backward = &Activate<T, Isa>::backward;
    t.linear = &Linear<T, Isa>::template run<T, Real<T>>;
    t.weight_gradient = &Linear<T, Isa>::gradient;
    t.bias_gradient = &Linear<T, Isa>::bias_gradient;
    t.env_mat = &EnvMat<T, Isa>::forward;
    t.env_mat_backward = &EnvMat<T, Isa>::backward;
    t.sym_moments = &Symmetrization<T, Isa>::moments;
    t.sym_gram = &Symmetrization<T, Isa>::gram;
    t.sym_gram_backward = &Symmetrization<T, Isa>::gram_backward;
    t.sym_moments_backward = &Symmetrization<T, Isa>::moments_backward;
    t.conv = &Conv<T, Isa>::forward;
    t.conv_backward = &Conv<T, Isa>::backward;
    t.g1g1 = &G1G1<T, Isa>::forward;
    t.g1g1_backward = &G1G1<T, Isa>::backward;
    t.attention_factors = &PairAttention<T, Isa>::factors;
    t.attention_factors_backward = &PairAttention<T, Isa>::factors_backward;
    t.pair_attention = &PairAttention<T, Isa>::forward;
    t.pair_attention_backward = &PairAttention<T, Isa>::backward;
    t.local_attention = &LocalAttention<T, Isa>::forward;
    t.local_attention_backward = &LocalAttention<T, Isa>::backward;
    t.embedding_layout = &EmbeddingNetOp<T, Isa>::layout;
    t.embedding = &EmbeddingNetOp<T, Isa>::forward;
    t.embedding_backward = &EmbeddingNetOp<T, Isa>::backward;
    t.g2_embed = &G2Embed<T, Isa>::forward;
    t.g2_embed_backward = &G2Embed<T, Isa>::backward;
    t.layer_norm = &LayerNorm<T, Isa>::forward;
    t.layer_norm_backward = &LayerNorm<T, Isa>::backward;
    t.residual = &ResidualUpdate<T, Isa>::forward;
    t.residual_backward = &ResidualUpdate<T, Isa>::backward;
    t.fitting = &Fitting<T, Isa>::run;
    t.repinit_embed = &Repinit<T, Isa>::embed;
    t.repinit = &Repinit<T, Isa>::forward;
    t.repinit_backward = &Repinit<T, Isa>::backward;
    t.three_body = &ThreeBody<T, Isa>::forward;
    t.three_body_backward = &ThreeBody<T, Isa>::backward;
    return t;
  }();
  return k;
}

#if defined(__x86_64__)
#if defined(__clang__) && __clang_major__ < 18
// Older Clang does not know the levels by name and is asked for the instructions that set them apart.
[[maybe_unused]] bool has_v3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
}
[[maybe_unused]] bool has_v4() {
  return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#else
[[maybe_unused]] bool has_v3() { return __builtin_cpu_supports("x86-64-v3") != 0; }
[[maybe_unused]] bool has_v4() { return __builtin_cpu_supports("x86-64-v4") != 0; }
#endif
#endif

struct Level {
  const char* name;
  bool supported;
  const Kernels<double>& (*f64)();
  const Kernels<float>& (*f32)();
  const Kernels<Dual<double>>& (*dual64)();
  const Kernels<Dual<float>>& (*dual32)();
};

#define DPA2_TABLES(L) table<double, isa::L>, table<float, isa::L>, table<Dual<double>, isa::L>, table<Dual<float>, isa::L>

const Level* levels(int& count) {
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
  static const Level list[] = {
#if defined(DPA2_HAVE_BASE)
      {"base", true, DPA2_TABLES(base)},
#endif
#if defined(DPA2_HAVE_V2)
      {"v2", true, DPA2_TABLES(v2)},
#endif
#if defined(DPA2_HAVE_V3)
      {"v3", has_v3(), DPA2_TABLES(v3)},
#endif
#if defined(DPA2_HAVE_V4)
      {"v4", has_v4(), DPA2_TABLES(v4)},
#endif
  };
  count = static_cast<int>(sizeof(list) / sizeof(list[0]));
  return list;
}

/// The level of this name; `origin` says in errors where the name comes from.
const Level& named(const std::string& wanted, const std::string& origin) {
  int count = 0;
  const Level* list = levels(count);
  std::string names;
  for (int i = 0; i < count; ++i) {
    if (wanted == list[i].name) {
      if (!list[i].supported) throw invalid_input(origin, wanted, ": this processor does not support it");
      return list[i];
    }
    names += (i > 0 ? ", " : "") + std::string(list[i].name);
  }
  throw invalid_input(origin, wanted, ": no such instruction-set level in this build (" + names + ")");
}

const Level& choose() {
  const char* wanted = std::getenv("DPA2_ISA");
  if (wanted != nullptr && *wanted != '\0') return named(wanted, "DPA2_ISA=");
  int count = 0;
  const Level* list = levels(count);
  int best = 0;
  for (int i = 0; i < count; ++i)
    if (list[i].supported) best = i;
  return list[best];
}

const Level& current() {
  static const Level& level = choose();
  return level;
}

}  // namespace

#define DPA2_KERNELS(T, of)                                \
  template <>                                              \
  const Kernels<T>& kernels<T>() {                         \
    return current().of();                                 \
  }                                                        \
  template <>                                              \
  const Kernels<T>& kernels<T>(const std::string& level) { \
    return named(level, "level ").of();                    \
  }
DPA2_KERNELS(double, f64)
DPA2_KERNELS(float, f32)
DPA2_KERNELS(Dual<double>, dual64)
DPA2_KERNELS(Dual<float>, dual32)

const char* isa_name() { return current().name; }

const char* const* isa_names() {
  static const char* names[8] = {};
  int count = 0;
  const Level* list = levels(count);
  int n = 0;
  for (int i = 0; i < count; ++i)
    if (list[i].supported) names[n++] = list[i].name;
  names[n] = nullptr;
  return names;
}

}  // namespace dpa2
