// The model as the kernels of the CPU want it: the folded tensors, padded, packed and rounded once, then immutable.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "cpu/kernels.hpp"
#include "fold/folded.hpp"
#include "graph/packing.hpp"
#include "graph/trained_series.hpp"
#include "schema/config.hpp"
#include "schema/features.hpp"

namespace dpa2 {

/// Statistics and range of one block; tables per type.
template <class T>
struct BlockParams {
  math::Cutoff<T> cut{};
  const T* mean = nullptr;     ///< (ntypes, 4)
  const T* inv_std = nullptr;  ///< (ntypes, 4)
};

/// One layer of the repformer. Matrices that the options leave out are empty.
template <class T>
struct LayerParams {
  LayerFeatures has;
  Packed<T> w1, w1t, self, self_t, P, Pt, att_q, att_qt, att_o, att_ot, w2, w2t, gg, ggt;
  const T *b1 = nullptr, *self_b = nullptr, *att_b = nullptr, *b2 = nullptr;
  // Columns of the input of linear1; -1 where absent.
  int ncat = 0, cat_g1 = -1, cat_conv = -1, cat_grrg = -1, cat_drrd = -1;
  PairAttentionParams<T> pair;
  const T *ln_gain = nullptr, *ln_bias = nullptr;
  // Members of the g1 and g2 updates: index into the terms of the residual, -1 where absent.
  int g1_self = -1, g1_conv = -1, g1_linear1 = -1, g1_att = -1;
  int g2_linear2 = -1, g2_g1g1 = -1, g2_att = -1;
  Residual<T> res1, res2;
  T h2_a = 1, h2_r = 0;
};

/// What becomes of the fitting network's numbers, in double: outputs are summed in double.
struct HeadParams {
  std::vector<double> bias;    ///< (ntypes, width)
  std::vector<double> scale;   ///< (ntypes, width), or empty: ones
  std::vector<double> shift;   ///< (ntypes), of the diagonal of polarizabilities, or empty
  std::vector<char> excluded;  ///< (ntypes): types whose atoms have no output
  bool vacuum = false;         ///< subtract the network's numbers without a descriptor
  [[nodiscard]] bool counts(int type) const { return type >= 0 && excluded[static_cast<std::size_t>(type)] == 0; }
};

template <class T>
struct Prepared {
  using Scalar = T;
  /// Layers are released as they are packed. With `training` threads for gradients of weights: the series, made by them, know the way
  /// back.
  Prepared(const Config& config, Folded folded, int training = 0);
  /// A descriptor without a head, such as stands in a hybrid one. se_e2_a and dpa1 are to the others a repinit alone: n1 are its
  /// numbers, n2 its channels.
  Prepared(const Config& config, FoldedDescriptor descriptor, int training = 0);
  /// The head on a hybrid descriptor, of which an atom has one g1 and one rotation matrix.
  Prepared(const Config& config, const FoldedFitting& fitting, FoldedHead head);

  const Kernels<T>& kernels;
  Storage storage;

  int ntypes = 0, tebd_dim = 0;
  bool concat_tebd = true;
  const T* tebd = nullptr;  ///< (ntypes, tebd_dim)
  int descriptor_dim = 0;

  // repinit and the three-body block
  BlockParams<T> stats_repinit, stats_three;
  RepinitParams<T> repinit;
  std::unique_ptr<TrainedSeries> repinit_series, three_series;  ///< of tables that give gradients of weights
  bool one_side = false, has_pad_repinit = false, use_three = false, has_pad_three = false;
  const T* pad_R = nullptr;  ///< (ntypes, 4): the environment row of a padded slot per centre type
  const T* pad_G = nullptr;  ///< (ntypes, ntypes, ng): its embedding per (type of atom 0, centre type)
  ThreeBodyParams<T> three;
  const T* pad_v = nullptr;  ///< (ntypes, 3): the three-body vector of a padded slot per centre type

  // the entry of the repformer
  int nd = 0;          ///< padded width of [D, Q]
  int nd_repinit = 0;  ///< ng*axis: where Q begins
  bool shape_identity = false;
  Packed<T> shape, shape_t;
  const T* tebd_term = nullptr;  ///< (ntypes, n1) or null
  ActivationSpec<T> act;         ///< of the repformer

  // repformer
  BlockParams<T> stats_repformer;
  BlockParams<double> exact_repformer;  ///< the same, for PreciseRows
  bool direct_dist = false, smooth = true, use_sqrt_nnei = true;
  T inv_rcut = 0;
  int nsel_repformer = 0, n1 = 0, n2 = 0, n1_real = 0, n2_real = 0, axis = 0, nh1 = 0;
  T ln_eps = 0, shift = 0;  ///< shift: of the logits of both attentions
  const T *g2_w = nullptr, *g2_b = nullptr;
  std::vector<LayerParams<T>> layers;
  /// What at least one layer has: the first has all that any has.
  const LayerFeatures& has() const noexcept { return layers.front().has; }

  // fitting
  FittingParams<T> fitting;
  HeadParams head;
  int nfparam = 0, naparam = 0, ncase = 0;
  bool aparam_in_net = false;
  std::vector<double> fparam_avg, fparam_inv_std, aparam_avg, aparam_inv_std, case_embd, default_fparam;

 private:
  std::vector<FittingLayer<T>> fitting_layers_;
  std::vector<EmbeddingLayer<T>> repinit_layers_, three_layers_;
  std::vector<std::vector<EmbeddingLayer<T>>> nets_layers_;  ///< of se_e2_a
  std::vector<EmbeddingNet<T>> nets_;
  int training_ = 0;
  std::vector<EmbeddingLayer<double>> repinit_layers64_, three_layers64_;  ///< for gradients of weights
  SeriesTable<T> repinit_table_, three_table_;
  QuinticTable<T> repinit_quintic_, three_quintic_;

  void prepare_repinit(const Config& c, const FoldedRepinit& f);
  void prepare_nets(const Config& c, const FoldedRepinit& f);
  void prepare_three_body(const Config& c, const FoldedThreeBody& f);
  void prepare_padding();
  void prepare_entry(const Config& c, const FoldedDescriptor& f);
  void prepare_layers(const Config& c, std::vector<FoldedLayer>& folded);
  void prepare_fitting(const Config& c, const FoldedFitting& f);
  void prepare_head(FoldedHead&& f);
};

extern template struct Prepared<double>;
extern template struct Prepared<float>;

}  // namespace dpa2
