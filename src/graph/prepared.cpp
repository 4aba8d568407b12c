// Preparing the type embedding, repinit, the three-body block and the entry of the repformer.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "allocate.hpp"
#include "error.hpp"
#include "graph/packing.hpp"
#include "graph/prepared.hpp"
#include "graph/series.hpp"
#include "graph/table.hpp"
#include "graph/type_embedding.hpp"
#include "math/skip.hpp"

namespace dpa2 {

void Storage::Free::operator()(void* p) const noexcept { std::free(p); }

void* Storage::raw(std::size_t bytes) {
  const std::size_t size = padded_bytes(bytes) + pad_bytes;
  if (size > left_) {
    const std::size_t block = (size + huge_page - 1) / huge_page * huge_page;
    void* memory = allocate(block);
    if (memory == nullptr) throw std::bad_alloc();
    blocks_.emplace_back(memory);
    std::memset(memory, 0, block);
    free_ = static_cast<char*>(memory);
    left_ = block;
    bytes_ += block;
  }
  void* p = free_;
  free_ += size;
  left_ -= size;
  return p;
}

namespace {

const std::string repinit_name = "descriptor.repinit", three_name = "descriptor.repinit_three_body";

template <class T>
BlockParams<T> statistics(Storage& storage, const Weights& w, const std::string& block, double rcut, double rcut_smth, double protection) {
  BlockParams<T> p;
  p.cut = {static_cast<T>(rcut_smth), static_cast<T>(1.0 / (rcut - rcut_smth)), static_cast<T>(protection)};
  p.mean = flat<T>(storage, matrix(w, block + ".mean"));
  Matrix inv = matrix(w, block + ".stddev");
  for (double& v : inv.a) {
    if (!(v != 0.0)) throw model_file_error("tensor '", block, ".stddev' holds a zero");
    v = 1.0 / v;
  }
  p.inv_std = flat<T>(storage, inv);
  return p;
}

struct NetOptions {
  int ntypes;
  bool strip, one_side;
  ActivationConfig act;
  std::size_t nlayers;
};

/// The embedding network `block`.filter_layers on the type embeddings tebd (ntypes, d).
template <class T>
EmbeddingNet<T> embedding_net(Storage& storage, std::vector<EmbeddingLayer<T>>& layers, const Weights& w, const std::string& block,
                              const NetOptions& o, const Matrix& tebd) {
  if (o.nlayers == 0 || o.nlayers > max_embedding_layers)
    throw unsupported(block, ": an embedding net of ", o.nlayers, " layers (1 to ", max_embedding_layers, " are supported)");
  const std::string prefix = block + ".filter_layers.networks.0.layers.";
  layers.resize(o.nlayers);
  for (std::size_t l = 0; l < o.nlayers; ++l) {
    const std::string name = prefix + std::to_string(l);
    const Matrix m = matrix(w, name + ".matrix");
    EmbeddingLayer<T>& layer = layers[l];
    layer.in = m.rows;
    layer.out = m.cols;
    layer.skip = math::skip_copies(m.rows, m.cols);
    layer.w = flat<T>(storage, m);
    layer.wt = flat<T>(storage, transposed(m));
    layer.b = flat<T>(storage, matrix(w, name + ".bias"));
    if (has(w, name + ".idt")) layer.idt = flat<T>(storage, matrix(w, name + ".idt"));
  }
  const Matrix first = matrix(w, prefix + "0.matrix"), bias = matrix(w, prefix + "0.bias");
  const int d = tebd.cols, n = o.strip ? 1 : o.one_side ? o.ntypes : o.ntypes * o.ntypes;
  // Row neighbour*ntypes + centre (or neighbour alone): the types' share of the first layer, and of its input.
  Matrix term(n, first.cols), skip(n, first.rows);
  for (int row = 0; row < n; ++row) {
    const int tj = o.one_side ? row : row / o.ntypes, ti = row % o.ntypes;
    for (int c = 0; c < first.cols; ++c) term(row, c) = bias(0, c);
    for (int k = 1; k < first.rows; ++k) {
      const double x = k <= d ? tebd(tj, k - 1) : tebd(ti, k - 1 - d);
      skip(row, k) = x;
      for (int c = 0; c < first.cols; ++c) term(row, c) += x * first(k, c);
    }
  }
  EmbeddingNet<T> net;
  net.nlayers = static_cast<int>(o.nlayers);
  net.layers = layers.data();
  net.typed = !o.strip;
  net.w_scalar = flat<T>(storage, std::vector<double>(first.a.begin(), first.a.begin() + first.cols));
  net.type_term = flat<T>(storage, term);
  if (layers[0].skip != 0) net.type_skip = flat<T>(storage, skip);
  net.act = activation<T>(o.act);
  return net;
}

/// The types' network of strip mode: rows as in embedding_net.
Matrix gate_table(const Weights& w, const std::string& block, const NetOptions& o, const Matrix& tebd) {
  const int d = tebd.cols, n = o.one_side ? o.ntypes : o.ntypes * o.ntypes;
  Matrix x(n, o.one_side ? d : 2 * d);
  for (int row = 0; row < n; ++row)
    for (int c = 0; c < d; ++c) {
      x(row, c) = tebd(o.one_side ? row : row / o.ntypes, c);
      if (!o.one_side) x(row, d + c) = tebd(row % o.ntypes, c);
    }
  for (std::size_t l = 0; l < o.nlayers; ++l)
    x = hidden_layer(w, block + ".filter_layers_strip.networks.0.layers." + std::to_string(l), o.act, x);
  return x;
}

/// Below this distance (angstrom) an edge is evaluated with the network itself: dynamics never comes here.
constexpr double series_min_distance = 0.4;

/// The first component of the environment matrix over all centre types, from series_min_distance to the cutoff.
void scalar_range(const Weights& w, const std::string& block, double protection, double& lo, double& hi) {
  const Matrix mean = matrix(w, block + ".mean"), stddev = matrix(w, block + ".stddev");
  lo = HUGE_VAL;
  hi = -HUGE_VAL;
  for (int t = 0; t < mean.rows; ++t)
    for (const double e : {0.0, 1.0 / (series_min_distance + protection)}) {
      const double s = (e - mean(t, 0)) / stddev(t, 0);
      lo = std::min(lo, s);
      hi = std::max(hi, s);
    }
  // The cutoff itself belongs to the range, in the precision of the kernels.
  const double margin = 1e-6 * (hi - lo);
  lo -= margin;
  hi += margin;
}

/// The largest length of the vector part of the environment matrix from series_min_distance on, over all centre types.
double vector_range(const Weights& w, const std::string& block, double protection) {
  const Matrix mean = matrix(w, block + ".mean"), stddev = matrix(w, block + ".stddev");
  double longest = 0;
  for (int t = 0; t < mean.rows; ++t) {
    double sum = 0;
    for (int x = 1; x < 4; ++x) {
      const double v = (1.0 / (series_min_distance + protection) + std::abs(mean(t, x))) / std::abs(stddev(t, x));
      sum += v * v;
    }
    longest = std::max(longest, std::sqrt(sum));
  }
  return longest;
}

}  // namespace

template <class T>
void Prepared<T>::prepare_type_embedding(const Config& c, const Weights& w) {
  const Matrix e = fold_type_embedding(c, w);
  tebd_dim = e.cols;
  tebd_ = e.a;
  tebd = flat<T>(storage, e);
}

template <class T>
void Prepared<T>::prepare_repinit(const Config& c, const Weights& w) {
  const RepinitConfig& r = c.repinit;
  Matrix te(ntypes, tebd_dim);
  te.a = tebd_;
  stats1 = statistics<T>(storage, w, repinit_name, r.rcut, r.rcut_smth, c.env_protection);
  one_side = r.type_one_side;
  nsel1 = r.nsel;
  const NetOptions o{ntypes, r.strip, one_side, r.activation, r.neuron.size()};
  repinit.net = embedding_net<T>(storage, repinit_layers_, w, repinit_name, o, te);
  repinit.ng = r.neuron.back();
  repinit.axis = r.axis_neuron;
  repinit.ncombinations = one_side ? ntypes : ntypes * ntypes;
  repinit.inv_nsel = static_cast<T>(1.0 / r.nsel);
  repinit.gate_switch = c.smooth;
  Matrix gate;
  if (r.strip) repinit.gate = flat<T>(storage, gate = gate_table(w, repinit_name, o, te));
  if (c.repinit_table) {
    build_quintic(storage, repinit_quintic_, *c.repinit_table, w.at(repinit_name + ".table"));
    repinit.quintic = &repinit_quintic_;
    if (r.strip) repinit.gate_rows = flat<T>(storage, padded_to(gate, gate.rows, repinit_quintic_.nc));
    return;
  }
  if (!series_wanted()) return;
  double lo = 0, hi = 0;
  scalar_range(w, repinit_name, c.env_protection, lo, hi);
  Storage local;
  std::vector<EmbeddingLayer<double>> layers64;
  const EmbeddingNet<double> net64 = embedding_net<double>(local, layers64, w, repinit_name, o, te);
  const int ncurves = r.strip ? 1 : one_side ? ntypes : ntypes * ntypes;
  if (build_series(storage, repinit_table_, net64, ncurves, lo, hi)) repinit.table = &repinit_table_;
}

template <class T>
void Prepared<T>::prepare_three_body(const Config& c, const Weights& w) {
  const RepinitConfig& r = c.repinit;
  use_three = r.use_three_body;
  if (!use_three) return;
  Matrix te(ntypes, tebd_dim);
  te.a = tebd_;
  stats3 = statistics<T>(storage, w, three_name, r.three_body_rcut, r.three_body_rcut_smth, c.env_protection);
  nsel3 = r.three_body_sel;
  const NetOptions o{ntypes, r.strip, false, r.activation, r.three_body_neuron.size()};
  three.net = embedding_net<T>(storage, three_layers_, w, three_name, o, te);
  three.n3 = r.three_body_neuron.back();
  three.ntypes = ntypes;
  three.inv_nsel2 = static_cast<T>(1.0 / (static_cast<double>(nsel3) * nsel3));
  three.gate_switch = c.smooth;
  Matrix both;
  if (r.strip) {
    const Matrix g = gate_table(w, three_name, o, te);
    both = Matrix(g.rows, g.cols);  // a pair is evaluated once for its two orders
    for (int a = 0; a < ntypes; ++a)
      for (int b = 0; b < ntypes; ++b)
        for (int k = 0; k < g.cols; ++k) both(a * ntypes + b, k) = 0.5 * (g(a * ntypes + b, k) + g(b * ntypes + a, k));
    three.gate = flat<T>(storage, both);
  }
  if (c.three_body_table) {
    build_quintic(storage, three_quintic_, *c.three_body_table, w.at(three_name + ".table"));
    three.quintic = &three_quintic_;
    if (r.strip) three.gate_rows = flat<T>(storage, padded_to(both, both.rows, three_quintic_.nc));
    return;
  }
  if (!series_wanted()) return;
  const double longest = vector_range(w, three_name, c.env_protection);
  Storage local;
  std::vector<EmbeddingLayer<double>> layers64;
  const EmbeddingNet<double> net64 = embedding_net<double>(local, layers64, w, three_name, o, te);
  const double most = longest * longest;
  if (build_series(storage, three_table_, net64, r.strip ? 1 : ntypes * ntypes, -most, most, r.strip ? 0 : ntypes)) three.table = &three_table_;
}

/// What the padded slots of a fixed-width list add (specification, P6 and P7): nothing unless the statistics have a mean.
template <class T>
void Prepared<T>::prepare_padding(const Config&) {
  T* R = storage.take<T>(4 * static_cast<std::size_t>(ntypes));
  for (int i = 0; i < 4 * ntypes; ++i) {
    R[i] = -stats1.mean[i] * stats1.inv_std[i];
    if (R[i] != T(0)) has_pad1 = true;
  }
  pad_R = R;
  if (has_pad1) {
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
      v[3 * t + x] = -stats3.mean[4 * t + 1 + x] * stats3.inv_std[4 * t + 1 + x];
      if (v[3 * t + x] != T(0)) has_pad3 = true;
    }
  pad_v = v;
}

template <class T>
void Prepared<T>::prepare_entry(const Config& c, const Weights& w) {
  const RepformerConfig& r = c.repformer;
  n1_real = r.g1_dim;
  n2_real = r.g2_dim;
  n1 = padded<T>(n1_real);
  n2 = padded<T>(n2_real);
  act = activation<T>(r.activation);
  const int width = c.repinit_dim();
  nd_repinit = repinit.ng * repinit.axis;
  nd = padded<T>(width);
  const std::string name = "descriptor.g1_shape_tranform.matrix";
  shape_identity = !dpa2::has(w, name);
  if (!shape_identity) {
    const Matrix m = padded_to(matrix(w, name), nd, n1);
    shape = pack<T>(storage, m);
    shape_t = pack<T>(storage, transposed(m));
  }
  if (c.add_tebd_to_repinit_out) {
    Matrix te(ntypes, tebd_dim);
    te.a = tebd_;
    tebd_term = flat<T>(storage, padded_to(product(te, matrix(w, "descriptor.tebd_transform.matrix")), ntypes, n1));
  }
  stats2 = statistics<T>(storage, w, "descriptor.repformers", r.rcut, r.rcut_smth, c.env_protection);
  inv_rcut2 = static_cast<T>(1.0 / r.rcut);
  nsel2 = r.nsel;
  g2_w = flat<T>(storage, matrix(w, "descriptor.repformers.g2_embd.matrix"), n2);
  g2_b = flat<T>(storage, matrix(w, "descriptor.repformers.g2_embd.bias"), n2);
}

#define DPA2_INSTANTIATE_FOR(T)                                                      \
  template void Prepared<T>::prepare_type_embedding(const Config&, const Weights&);  \
  template void Prepared<T>::prepare_repinit(const Config&, const Weights&);         \
  template void Prepared<T>::prepare_three_body(const Config&, const Weights&);      \
  template void Prepared<T>::prepare_padding(const Config&);                         \
  template void Prepared<T>::prepare_entry(const Config&, const Weights&);
DPA2_INSTANTIATE_FOR(double)
DPA2_INSTANTIATE_FOR(float)

}  // namespace dpa2
