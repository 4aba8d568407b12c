// The table of kernels of one ISA level. The code that uses it is compiled without ISA flags and never names a level.
#pragma once

#include <string>

#include "cpu/activation.hpp"
#include "cpu/assemble.hpp"
#include "cpu/conv.hpp"
#include "cpu/embedding_net.hpp"
#include "cpu/env_mat.hpp"
#include "cpu/fitting.hpp"
#include "cpu/g1g1.hpp"
#include "cpu/g2_embed.hpp"
#include "cpu/layer_norm.hpp"
#include "cpu/linear.hpp"
#include "cpu/local_attention.hpp"
#include "cpu/pair_attention.hpp"
#include "cpu/repinit.hpp"
#include "cpu/residual_update.hpp"
#include "cpu/symmetrization.hpp"
#include "cpu/tabulate.hpp"
#include "cpu/three_body.hpp"

namespace dpa2 {

/// The signatures do not depend on the level: the table takes them from an unnamed one.
struct AnyIsa;

/// Gradients of weights: their padding means nothing.
template <class T>
struct Kernels {
  decltype(&Activate<T, AnyIsa>::forward) activate;
  decltype(&Activate<T, AnyIsa>::forward_grad) activate_grad;
  decltype(&Activate<T, AnyIsa>::backward) activate_backward;
  decltype(&Linear<T, AnyIsa>::template run<T, Real<T>>) linear;
  decltype(&Linear<T, AnyIsa>::gradient) weight_gradient;
  decltype(&Linear<T, AnyIsa>::bias_gradient) bias_gradient;
  decltype(&EnvMat<T, AnyIsa>::forward) env_mat;
  decltype(&EnvMat<T, AnyIsa>::backward) env_mat_backward;
  decltype(&EmbeddingNetOp<T, AnyIsa>::layout) embedding_layout;
  decltype(&EmbeddingNetOp<T, AnyIsa>::forward) embedding;
  decltype(&EmbeddingNetOp<T, AnyIsa>::backward) embedding_backward;
  decltype(&Repinit<T, AnyIsa>::embed) repinit_embed;
  decltype(&Repinit<T, AnyIsa>::forward) repinit;
  decltype(&Repinit<T, AnyIsa>::backward) repinit_backward;
  decltype(&ThreeBody<T, AnyIsa>::forward) three_body;
  decltype(&ThreeBody<T, AnyIsa>::backward) three_body_backward;
  decltype(&G2Embed<T, AnyIsa>::forward) g2_embed;
  decltype(&G2Embed<T, AnyIsa>::backward) g2_embed_backward;
  decltype(&LayerNorm<T, AnyIsa>::forward) layer_norm;
  decltype(&LayerNorm<T, AnyIsa>::backward) layer_norm_backward;
  decltype(&PairAttention<T, AnyIsa>::factors) attention_factors;
  decltype(&PairAttention<T, AnyIsa>::factors_backward) attention_factors_backward;
  decltype(&PairAttention<T, AnyIsa>::forward) pair_attention;
  decltype(&PairAttention<T, AnyIsa>::backward) pair_attention_backward;
  decltype(&Symmetrization<T, AnyIsa>::moments) sym_moments;
  decltype(&Symmetrization<T, AnyIsa>::gram) sym_gram;
  decltype(&Symmetrization<T, AnyIsa>::gram_backward) sym_gram_backward;
  decltype(&Symmetrization<T, AnyIsa>::moments_backward) sym_moments_backward;
  decltype(&Conv<T, AnyIsa>::forward) conv;
  decltype(&Conv<T, AnyIsa>::backward) conv_backward;
  decltype(&G1G1<T, AnyIsa>::forward) g1g1;
  decltype(&G1G1<T, AnyIsa>::backward) g1g1_backward;
  decltype(&LocalAttention<T, AnyIsa>::forward) local_attention;
  decltype(&LocalAttention<T, AnyIsa>::backward) local_attention_backward;
  decltype(&ResidualUpdate<T, AnyIsa>::forward) residual;
  decltype(&ResidualUpdate<T, AnyIsa>::backward) residual_backward;
  decltype(&Fitting<T, AnyIsa>::run) fitting;
  decltype(&Assemble<T, AnyIsa>::centre) assemble;
};

/// T: float, double, or dual numbers of either. The kernels for this processor; the environment variable DPA2_ISA (v2, v3, v4 or base) asks for a level by name.
/// Throws invalid_input when that level is unknown, not built, or not supported by the processor.
template <class T>
const Kernels<T>& kernels();

/// The kernels of a level by name, whatever DPA2_ISA asks for. Throws likewise.
template <class T>
const Kernels<T>& kernels(const std::string& level);

/// Name of the level that kernels() uses, and the names of the levels that were built and run here, lowest first (null-ended).
const char* isa_name();
const char* const* isa_names();

}  // namespace dpa2
