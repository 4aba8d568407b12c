// Packing the first blocks and the entry of the repformer.
#include "graph/prepared.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "error.hpp"
#include "graph/series.hpp"
#include "graph/table.hpp"

namespace dpa2 {

namespace {

std::string repinit_name(const Config& c) { return "descriptor" + (c.descriptor_type == "dpa2" ? ".repinit" : c.at); }
constexpr const char* three_body_name = "descriptor.repinit_three_body";

template <class T>
BlockParams<T> statistics(Storage& storage, const FoldedStatistics& f) {
  BlockParams<T> p;
  p.cut = {static_cast<T>(f.rcut_smth), static_cast<T>(f.inv_width), static_cast<T>(f.protection)};
  p.mean = flat<T>(storage, f.mean);
  p.inv_std = flat<T>(storage, f.inv_std);
  return p;
}

/// `name` is that of the block.
template <class T>
EmbeddingNet<T> embedding_net(Storage& storage, std::vector<EmbeddingLayer<T>>& layers, const FoldedEmbeddingNet& f,
                              const std::string& name) {
  if (f.layers.size() > max_embedding_layers)
    throw unsupported(name, ": an embedding net of ", f.layers.size(), " layers (1 to ", max_embedding_layers, " are supported)");
  layers.resize(f.layers.size());
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const FoldedHidden& from = f.layers[l];
    EmbeddingLayer<T>& layer = layers[l];
    layer.in = from.in;
    layer.out = from.out;
    layer.skip = from.skip;
    if (!from.idt.empty()) layer.idt = flat<T>(storage, from.idt);
    if (l == 0) continue;
    layer.w = flat<T>(storage, from.w);
    layer.wt = flat<T>(storage, transposed(from.w));
    layer.b = flat<T>(storage, from.b);
  }
  EmbeddingNet<T> net;
  net.nlayers = static_cast<int>(layers.size());
  net.layers = layers.data();
  net.typed = f.typed;
  net.w_scalar = flat<T>(storage, f.layers[0].w);
  net.type_term = flat<T>(storage, f.type_term);
  if (!f.type_skip.empty()) net.type_skip = flat<T>(storage, f.type_skip);
  net.act = activation<T>(f.act);
  return net;
}

/// Below this distance (angstrom) an edge is evaluated with the network itself: dynamics never comes here.
constexpr double series_min_distance = 0.4;

/// The first component of the environment matrix over all centre types, from series_min_distance to the cutoff.
void scalar_range(const FoldedStatistics& f, double& lo, double& hi) {
  lo = HUGE_VAL;
  hi = -HUGE_VAL;
  for (int t = 0; t < f.mean.rows; ++t)
    for (const double e : {0.0, 1.0 / (series_min_distance + f.protection)}) {
      const double s = (e - f.mean(t, 0)) / f.stddev(t, 0);
      lo = std::min(lo, s);
      hi = std::max(hi, s);
    }
  // The cutoff itself belongs to the range, in the precision of the kernels.
  const double margin = 1e-6 * (hi - lo);
  lo -= margin;
  hi += margin;
}

/// The largest length of the vector part of the environment matrix from series_min_distance on, over all centre types.
double vector_range(const FoldedStatistics& f) {
  double longest = 0;
  for (int t = 0; t < f.mean.rows; ++t) {
    double sum = 0;
    for (int x = 1; x < 4; ++x) {
      const double v = (1.0 / (series_min_distance + f.protection) + std::abs(f.mean(t, x))) / std::abs(f.stddev(t, x));
      sum += v * v;
    }
    longest = std::max(longest, std::sqrt(sum));
  }
  return longest;
}

}  // namespace

/// The networks of se_e2_a, one per combination of types.
template <class T>
void Prepared<T>::prepare_nets(const Config& c, const FoldedRepinit& f) {
  nets_layers_.resize(f.nets.size());
  for (std::size_t k = 0; k < f.nets.size(); ++k)
    nets_.push_back(embedding_net<T>(storage, nets_layers_[k], f.nets[k], "descriptor" + c.at));
  repinit.nets = nets_.data();
  repinit.net.typed = true;
  if (!series_wanted()) return;
  Storage local;
  std::vector<std::vector<EmbeddingLayer<double>>> layers64(f.nets.size());
  std::vector<EmbeddingNet<double>> nets;
  for (std::size_t k = 0; k < f.nets.size(); ++k) nets.push_back(embedding_net<double>(local, layers64[k], f.nets[k], ""));
  double lo = 0, hi = 0;
  scalar_range(f.statistics, lo, hi);
  if (build_series(storage, repinit_table_, nets, lo, hi)) repinit.table = &repinit_table_;
}

template <class T>
void Prepared<T>::prepare_repinit(const Config& c, const FoldedRepinit& f) {
  const RepinitConfig& r = c.repinit;
  stats_repinit = statistics<T>(storage, f.statistics);
  one_side = r.type_one_side;
  repinit.ng = r.neuron.back();
  repinit.axis = r.axis_neuron;
  repinit.ncombinations = one_side ? ntypes : ntypes * ntypes;
  repinit.inv_nsel = static_cast<T>(f.inv_nsel);
  if (!f.nets.empty()) return prepare_nets(c, f);
  const std::string name = repinit_name(c);
  repinit.net = embedding_net<T>(storage, repinit_layers_, f.net, name);
  repinit.gate_switch = c.smooth;
  const Matrix& gate = f.net.gate;
  if (!gate.empty()) repinit.gate = flat<T>(storage, padded_to(gate, gate.rows, padded<T>(gate.cols)));
  if (f.net.table) {
    build_quintic(storage, repinit_quintic_, *c.repinit_table, f.net.table->coefficients);
    repinit.quintic = &repinit_quintic_;
    return;
  }
  if (!series_wanted()) return;
  double lo = 0, hi = 0;
  scalar_range(f.statistics, lo, hi);
  if (training_ > 0) {
    const EmbeddingNet<double> net = embedding_net<double>(storage, repinit_layers64_, f.net, name);
    repinit_series = TrainedSeries::build(storage, repinit_table_, net, f.net.type_term.rows, lo, hi, 0, training_);
    if (repinit_series) repinit.table = &repinit_table_;
    return;
  }
  Storage local;
  std::vector<EmbeddingLayer<double>> layers64;
  const EmbeddingNet<double> net64 = embedding_net<double>(local, layers64, f.net, name);
  if (build_series(storage, repinit_table_, net64, f.net.type_term.rows, lo, hi)) repinit.table = &repinit_table_;
}

template <class T>
void Prepared<T>::prepare_three_body(const Config& c, const FoldedThreeBody& f) {
  const RepinitConfig& r = c.repinit;
  stats_three = statistics<T>(storage, f.statistics);
  three.net = embedding_net<T>(storage, three_layers_, f.net, three_body_name);
  three.n3 = r.three_body_neuron.back();
  three.ntypes = ntypes;
  three.inv_nsel_squared = static_cast<T>(f.inv_nsel_squared);
  three.gate_switch = c.smooth;
  const Matrix& g = f.net.gate;
  Matrix both(g.rows, g.cols);  // these kernels evaluate a pair once for its two orders
  if (!g.empty()) {
    for (int a = 0; a < ntypes; ++a)
      for (int b = 0; b < ntypes; ++b)
        for (int k = 0; k < g.cols; ++k) both(a * ntypes + b, k) = 0.5 * (g(a * ntypes + b, k) + g(b * ntypes + a, k));
    three.gate = flat<T>(storage, padded_to(both, both.rows, padded<T>(both.cols)));
  }
  if (f.net.table) {
    build_quintic(storage, three_quintic_, *c.three_body_table, f.net.table->coefficients);
    three.quintic = &three_quintic_;
    return;
  }
  if (!series_wanted()) return;
  const double longest = vector_range(f.statistics), most = longest * longest;
  const int pair_types = r.strip ? 0 : ntypes;
  if (training_ > 0) {
    const EmbeddingNet<double> net = embedding_net<double>(storage, three_layers64_, f.net, three_body_name);
    three_series = TrainedSeries::build(storage, three_table_, net, f.net.type_term.rows, -most, most, pair_types, training_);
    if (three_series) three.table = &three_table_;
    return;
  }
  Storage local;
  std::vector<EmbeddingLayer<double>> layers64;
  const EmbeddingNet<double> net64 = embedding_net<double>(local, layers64, f.net, three_body_name);
  if (build_series(storage, three_table_, net64, f.net.type_term.rows, -most, most, pair_types)) three.table = &three_table_;
}

/// What the padded slots of a fixed-width list add (theory P6, P7): nothing unless the statistics have a mean.
template <class T>
void Prepared<T>::prepare_padding() {
  T* R = storage.take<T>(4 * static_cast<std::size_t>(ntypes));
  for (int i = 0; i < 4 * ntypes; ++i) {
    R[i] = -stats_repinit.mean[i] * stats_repinit.inv_std[i];
    if (R[i] != T(0)) has_pad_repinit = true;
  }
  pad_R = R;
  if (has_pad_repinit) {
    const int ng = repinit.ng, m = padded<T>(ntypes);
    T* table = storage.take<T>(static_cast<std::size_t>(ntypes) * static_cast<std::size_t>(ntypes) * static_cast<std::size_t>(ng));
    Arena arena;
    for (int t0 = 0; t0 < ntypes; ++t0) {
      const Arena::Mark mark = arena.mark();
      T* s = arena.take<T>(m);
      T* sw = arena.take<T>(m);
      int* combination = arena.take<int>(m);
      for (int ti = 0; ti < m; ++ti) {
        s[ti] = ti < ntypes ? R[4 * ti] : T(0);
        sw[ti] = T(0);
        combination[ti] = ti < ntypes ? (one_side ? t0 : t0 * ntypes + ti) : 0;
      }
      T* G = nullptr;
      kernels.repinit_embed(repinit, m, &G, s, sw, combination, arena);
      for (int ti = 0; ti < ntypes; ++ti)
        for (int c = 0; c < ng; ++c) table[(static_cast<long>(t0) * ntypes + ti) * ng + c] = G[static_cast<long>(c) * m + ti];
      arena.release(mark);
    }
    pad_G = table;
  }
  if (!use_three) return;
  T* v = storage.take<T>(3 * static_cast<std::size_t>(ntypes));
  for (int t = 0; t < ntypes; ++t)
    for (int x = 0; x < 3; ++x) {
      v[3 * t + x] = -stats_three.mean[4 * t + 1 + x] * stats_three.inv_std[4 * t + 1 + x];
      if (v[3 * t + x] != T(0)) has_pad_three = true;
    }
  pad_v = v;
}

template <class T>
void Prepared<T>::prepare_entry(const Config& c, const FoldedDescriptor& f) {
  const RepformerConfig& r = c.repformer;
  n1_real = r.g1_dim;
  n2_real = r.g2_dim;
  n1 = padded<T>(n1_real);
  n2 = padded<T>(n2_real);
  act = activation<T>(f.act);
  shift = static_cast<T>(f.attention_shift);
  nd_repinit = repinit.ng * repinit.axis;
  nd = padded<T>(c.repinit_dim());
  shape_identity = f.entry.shape.empty();
  if (!shape_identity) pack_both(storage, padded_to(f.entry.shape, nd, n1), shape, shape_t);
  if (!f.entry.type_term.empty()) tebd_term = flat<T>(storage, padded_to(f.entry.type_term, ntypes, n1));
  stats_repformer = statistics<T>(storage, f.g2_embed.statistics);
  exact_repformer = statistics<double>(storage, f.g2_embed.statistics);
  inv_rcut = static_cast<T>(f.g2_embed.inv_rcut);
  nsel_repformer = r.nsel;
  g2_w = flat<T>(storage, f.g2_embed.dense.w, n2);
  g2_b = flat<T>(storage, f.g2_embed.dense.b, n2);
}

template <class T>
Prepared<T>::Prepared(const Config& c, FoldedDescriptor f, int training)
    : kernels(dpa2::kernels<T>()), ntypes(c.ntypes()), training_(training) {
  concat_tebd = c.concat_output_tebd && !f.tebd.empty();
  descriptor_dim = c.descriptor_dim();
  tebd_dim = f.tebd.cols;
  if (!f.tebd.empty()) tebd = flat<T>(storage, f.tebd);
  prepare_repinit(c, f.repinit);
  use_three = f.three_body.has_value();
  if (use_three) prepare_three_body(c, *f.three_body);
  prepare_padding();
  if (c.descriptor_type != "dpa2") {
    n1_real = repinit.ng * repinit.axis;
    n2_real = repinit.ng;
    n1 = padded<T>(n1_real);
    n2 = padded<T>(n2_real);
    return;
  }
  prepare_entry(c, f);
  prepare_layers(c, f.layers);
}

template <class T>
Prepared<T>::Prepared(const Config& c, Folded folded, int training) : Prepared(c, std::move(folded.descriptor), training) {
  prepare_fitting(c, folded.fitting);
  prepare_head(std::move(folded.head));
}

template <class T>
Prepared<T>::Prepared(const Config& c, const FoldedFitting& f, FoldedHead h) : kernels(dpa2::kernels<T>()), ntypes(c.ntypes()) {
  concat_tebd = false;
  descriptor_dim = n1_real = c.descriptor_dim();
  n2_real = c.g2_dim();
  n1 = padded<T>(n1_real);
  n2 = padded<T>(n2_real);
  prepare_fitting(c, f);
  prepare_head(std::move(h));
}

template <class T>
void add_series(const Config& c, FoldedDescriptor& f) {
  if (!series_wanted()) return;
  const auto fit = [](FoldedEmbeddingNet& folded, const std::string& name, double lo, double hi, int pair_types) {
    if (folded.table || folded.layers.size() > max_embedding_layers) return;
    Storage storage;
    std::vector<EmbeddingLayer<double>> layers;
    const EmbeddingNet<double> net = embedding_net<double>(storage, layers, folded, name);
    folded.series = fit_series<T>(net, folded.type_term.rows, lo, hi, pair_types);
  };
  double lo = 0, hi = 0;
  scalar_range(f.repinit.statistics, lo, hi);
  fit(f.repinit.net, repinit_name(c), lo, hi, 0);
  if (!f.three_body) return;
  const double longest = vector_range(f.three_body->statistics), most = longest * longest;
  fit(f.three_body->net, three_body_name, -most, most, c.repinit.strip ? 0 : c.ntypes());
}

template struct Prepared<double>;
template struct Prepared<float>;
template void add_series<double>(const Config&, FoldedDescriptor&);
template void add_series<float>(const Config&, FoldedDescriptor&);

}  // namespace dpa2
