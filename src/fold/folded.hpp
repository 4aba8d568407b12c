// A model as its operations want it: plain tensors in double, without padding, under names. The folds are exact; every backend
// lays them out for its kernels and rounds them once.
//
// `unfold` is the way back for gradients: from those of the folded tensors, which kernels give, to those of the raw parameters,
// which are trained. It is the adjoint of the derivative of `fold` at the raw weights, operation by operation.
//
// Those of a descriptor in a hybrid one are behind descriptors.K.; the block of se_e2_a and dpa1 is its repinit.
//
//   name                                      shape                what it is
//   type_embedding                            (ntypes, tebd)       one vector per type
//
//   B is repinit, three_body (where there is one) or repformer:
//   B.mean, .stddev, .inv_std, .pad           (ntypes, 4)          statistics; the row of a padded slot
//   B.rcut_smth, .inv_width, .protection      scalars              of the switch and the environment matrix
//
//   N is repinit or three_body, an embedding network:
//   N.activation                              (1, 4)               kind (math/activation.hpp); threshold, slope, offset of silut
//   N.layers.L.w, .b, .idt                    (in, out), (1, out)  hidden layer L; of the first, w is the scalar's row and b is absent
//   N.layers.L.in, .out, .skip                scalars              widths; how many copies of its input are added
//   N.typed                                   scalar               1: the tables of types have a row per combination, else one
//   N.type_term, .type_skip                   (rows, .)            the types' share of the first layer, and of its input
//   N.gate                                    (combinations, .)    the types' network of strip mode
//   N.table.nodes, .coefficients              (1, intervals + 1), (curves, intervals, 6, channels)   of a compressed model
//   of se_e2_a N is repinit.networks.K, one per combination of types
//   repinit.inv_nsel, three_body.inv_nsel_squared    scalars              1 / sel and 1 / sel^2
//   repinit.pad_embedding                     (ntypes^2, .)        in Python alone: of a padded slot, by the types of atom 0 and centre
//
//   entry.shape, entry.type_term              (width, n1), (ntypes, n1)   from the first blocks to g1
//   repformer.activation, .attention_shift    (1, 4), scalar       what the logits of both attentions are relative to
//   repformer.g2.w, .b, repformer.inv_rcut    (1, n2), scalar      the first g2; of edges that are taken without the environment matrix
//
//   L is layers.0, layers.1, ...; what a layer does not have is absent:
//   L.self.w, .b; L.linear2.w, .b             (n, n), (1, n)
//   L.conv.w, L.g1g1.w                        (n2, n1) or (n1, n2)
//   L.linear1.g1, .conv, .grrg, .drrd, .b     (width, n1), (1, n1) one matrix per input, in the order of its columns
//   L.local_attention.query, .value, .b       (n1, nh n1), (nh n1, n1), (1, n1)
//   L.pair_attention.query, .value, .b        (n2, nh n2), (n2, nh n2), (1, n2)
//   L.pair_attention.gain, .shift, .h2        (1, n2), (1, n2), (nh, 1)
//   L.g1_residual.a, .self, .conv, .linear1, .attention            scalar, (1, n1): u' = a u + sum_k r_k U_k
//   L.g2_residual.a, .linear2, .g1g1, .attention                   scalar, (1, n2)
//   L.h2_residual.a, .attention                                    scalar, (1, 1)
//
//   fitting.activation, .layers.L.*, .out.w, .out.b                as above
//   fitting.fparam_avg, .fparam_inv_std, .aparam_avg, .aparam_inv_std, .case_embd    (1, .)
//   fitting.out has a column per number of the output or, of dipoles and polarizabilities, per coefficient (the width):
//   coefficients = (network - network without descriptor if head.vacuum) * head.scale + head.bias
//
//   head.bias, .scale                         (ntypes, width)      without a scale: 1
//   head.shift                                (1, ntypes)          added to the diagonal of polarizabilities
//   head.counted                              (1, ntypes)          0 for types without output
//   head.vacuum                               scalar               1: the network's numbers without a descriptor are subtracted
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "fold/entry.hpp"
#include "fold/fitting.hpp"
#include "fold/g2_embed.hpp"
#include "fold/head.hpp"
#include "fold/layer.hpp"
#include "fold/pair_table.hpp"
#include "fold/repinit.hpp"
#include "fold/three_body.hpp"

namespace dpa2 {

struct FoldedDescriptor {
  Matrix tebd;  ///< (ntypes, tebd_dim)
  FoldedRepinit repinit;
  std::optional<FoldedThreeBody> three_body;
  FoldedEntry entry;
  FoldedActivation act;        ///< of the repformer
  double attention_shift = 0;  ///< of the logits of both attentions (theory S8)
  FoldedG2Embed g2_embed;
  std::vector<FoldedLayer> layers;

  template <class F>
  void for_each(F& f) const {
    give(f, "type_embedding", tebd);
    repinit.for_each("repinit", f);
    if (layers.empty()) return;  // a block alone
    if (three_body) three_body->for_each("three_body", f);
    entry.for_each("entry", f);
    act.for_each("repformer.activation", f);
    f("repformer.attention_shift", attention_shift);
    g2_embed.for_each("repformer", f);
    for (std::size_t l = 0; l < layers.size(); ++l) layers[l].for_each("layers." + std::to_string(l), f);
  }
};

struct Folded {
  bool network = true;  ///< whether there is a descriptor with a head: not if it is a pair table alone
  FoldedDescriptor descriptor;
  std::vector<FoldedDescriptor> descriptors;  ///< of a hybrid, in its place; of se_e2_a and dpa1 the block and what types are shown as
  FoldedFitting fitting;
  FoldedHead head;                       ///< of zbl: of the network by itself, of all types
  std::optional<FoldedPairTable> table;  ///< of zbl, and of a part of a combination that is a pair table
  std::optional<FoldedShare> share;      ///< of zbl

  /// Calls f(name, value) for everything that the model has; a value is a Matrix, a Tensor, a double or an int.
  template <class F>
  void for_each(F&& f) const {
    if (network) {
      if (descriptors.empty()) descriptor.for_each(f);
      for (std::size_t k = 0; k < descriptors.size(); ++k) {
        const auto own = [&](const std::string& name, const auto& value) { f("descriptors." + std::to_string(k) + "." + name, value); };
        descriptors[k].for_each(own);
      }
      fitting.for_each("fitting", f);
      head.for_each("head", f);
    }
    if (table) table->for_each("table", f);
    if (share) share->for_each("share", f);
  }
};

FoldedDescriptor fold_descriptor(const Config& config, RawTensors& raw);
/// The adjoint, `+=`.
void unfold_descriptor(const Config& config, RawTensors& raw, const FoldedDescriptor& gradient, Weights& to);
/// The weights of one part of a combination under the names that it has by itself; they are taken out.
Weights take_part(Weights& weights, std::size_t part);
/// Likewise those of a descriptor in a hybrid one, a block by itself under the names of repinit.
Weights take_descriptor(Weights& weights, const Config& descriptor);
/// Of anything but a linear combination, whose parts are folded one by one. The weights are those that check_weights has passed.
Folded fold(const Config& config, Weights weights);

/// The gradient of every raw parameter (WeightRole::parameter) under its name and in its shape, given that of the folded tensors:
/// matrices of the same shapes. One that is empty, or a part that is absent, is zero; so is the gradient of a parameter that nothing
/// given depends on. Scalars, statistics, constants, tables and what becomes of the network's numbers (`head`) have no parameters and
/// are not looked at. `raw` are the values of the weights. Of anything but a linear combination, as fold. Throws an internal error for
/// a matrix of another shape, or of a parameter that the model does not have.
Weights unfold(const Config& config, const Weights& raw, const Folded& gradient);

}  // namespace dpa2
