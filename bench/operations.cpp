#include "operations.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>

#include "graph/prepared.hpp"
#include "math/attention.hpp"

namespace bench {

namespace {

using dpa2::Dual;
using dpa2::padded;

constexpr int panel_bytes = 64;

/// One centre: its neighbours and everything that the operations read. Lane arrays have m lanes.
template <class T>
struct Centre {
  int type = 0;
  T *d1 = nullptr, *r1 = nullptr, *R1 = nullptr, *sw1 = nullptr;  // repinit list
  T *R3 = nullptr, *sw3 = nullptr;                                // three-body list
  T *x = nullptr, *w = nullptr, *h2 = nullptr, *s = nullptr, *f = nullptr;
  T *g2 = nullptr, *c1 = nullptr, *c2 = nullptr;  // repformer list
  dpa2::PairAttentionInput<Dual<T>> pairs{};
  Dual<T>* switched = nullptr;
  double* d = nullptr;  // (nr, 3)
  int *types = nullptr, *combination = nullptr, *j = nullptr;
};

template <class T>
class Tile : public Bench {
 public:
  Tile(const dpa2::Config& config, const dpa2::Weights& weights, const Sizes& sizes)
      : p_(config, fold(config, weights)),
        k_(p_.kernels),
        dual_(dpa2::kernels<Dual<T>>()),
        n_(sizes.n),
        nr_(sizes.nr),
        m_(padded<T>(n_)),
        mr_(padded<T>(nr_)),
        n1_(p_.n1),
        n2_(p_.n2),
        rcut1_(config.repinit.rcut),
        rcut2_(config.repformer.rcut),
        layer_(p_.layers.front()) {
    series = p_.repinit.table != nullptr && (!p_.use_three || p_.three.table != nullptr);
    g1_ = random(static_cast<long>(atoms) * n1_);
    dg1_ = random(static_cast<long>(atoms) * n1_);
    for (int i = 0; i < centres; ++i) centres_.push_back(make_centre());
    environment();
    descriptor();
    products();
    pairs();
    messages();
    ends();
  }

 private:
  T* array(long n, T value = T(0)) {
    T* p = storage_.take<T>(static_cast<std::size_t>(n));
    std::fill_n(p, n, value);
    return p;
  }
  T* random(long n) {
    T* p = array(n);
    std::normal_distribution<double> normal(0.0, 0.5);
    for (long i = 0; i < n; ++i) p[i] = static_cast<T>(normal(engine_));
    return p;
  }
  /// The same numbers with random tangents.
  Dual<T>* dual(const T* x, long n) {
    Dual<T>* p = storage_.take<Dual<T>>(static_cast<std::size_t>(n));
    std::normal_distribution<double> normal(0.0, 0.5);
    for (long i = 0; i < n; ++i) p[i] = {x[i], static_cast<T>(normal(engine_))};
    return p;
  }
  int* integers(long n, int limit) {
    int* p = storage_.take<int>(static_cast<std::size_t>(n));
    for (long i = 0; i < n; ++i) p[i] = static_cast<int>(engine_() % static_cast<std::uint64_t>(limit));
    return p;
  }

  /// Neighbours at random, uniform in space: n of them within the cutoff of the repformer, the others beyond.
  Centre<T> make_centre() {
    Centre<T> c;
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    std::vector<double> r;
    const auto shell = [&](int count, double from, double to) {
      for (int e = 0; e < count; ++e) r.push_back(std::cbrt(from * from * from + uniform(engine_) * (to * to * to - from * from * from)));
    };
    shell(n_, 0.9, rcut2_);
    shell(nr_ - n_, rcut2_, rcut1_);
    std::sort(r.begin(), r.end());
    c.d1 = array(3L * mr_);
    c.r1 = array(mr_, T(1));
    c.d = storage_.take<double>(3 * static_cast<std::size_t>(nr_));
    for (int e = 0; e < nr_; ++e) {
      const double z = 2 * uniform(engine_) - 1, phi = 6.283185307179586 * uniform(engine_), rho = std::sqrt(1 - z * z);
      const double unit[3] = {rho * std::cos(phi), rho * std::sin(phi), z}, length = r[static_cast<std::size_t>(e)];
      for (int x = 0; x < 3; ++x) {
        c.d[3 * e + x] = length * unit[x];
        c.d1[x * mr_ + e] = static_cast<T>(length * unit[x]);
      }
      c.r1[e] = static_cast<T>(length);
    }
    c.type = static_cast<int>(engine_() % static_cast<std::uint64_t>(p_.ntypes));
    c.types = integers(mr_, p_.ntypes);
    c.combination = integers(mr_, 1);
    for (int e = 0; e < nr_; ++e) c.combination[e] = p_.one_side ? c.types[e] : c.types[e] * p_.ntypes + c.type;
    c.j = integers(nr_, atoms);
    return c;
  }

  template <class F>
  std::function<void()> each(F f) {
    return [this, f] {
      for (Centre<T>& c : centres_) {
        const dpa2::Arena::Mark mark = arena_.mark();
        f(c);
        arena_.release(mark);
      }
    };
  }
  /// Bytes of `count` numbers of type T.
  static double of(double count) { return count * static_cast<double>(sizeof(T)); }
  void add(const char* name, std::function<void()> forward, std::function<void()> backward, double bytes_forward, double bytes_backward,
           std::function<void()> training = nullptr) {
    operations.push_back({name, std::move(forward), std::move(backward), std::move(training), bytes_forward, bytes_backward});
  }
  void dense(int rows, T* y, const T* x, const dpa2::Packed<T>& w, const T* bias, bool accumulate) const {
    constexpr long panel = panel_bytes / static_cast<long>(sizeof(T));
    k_.linear(rows, w.n, w.k, y, w.n, x, w.k, 1, w.data, panel, w.k * panel, bias, accumulate);
  }
  static long size_of(const dpa2::Packed<T>& w) { return static_cast<long>(w.k) * w.n; }
  static double weights(const dpa2::Packed<T>& w) { return static_cast<double>(size_of(w)); }

  void environment() {
    for (Centre<T>& c : centres_) {
      c.R1 = array(4L * mr_);
      c.sw1 = array(mr_);
      c.R3 = array(4L * m_);
      c.sw3 = array(m_);
      c.x = array(n_);
      c.w = array(n_);
      c.h2 = array(3L * n_);
      c.s = array(n_);
      c.f = array(3L * n_);
      // The first n edges on their own lanes, with the statistics of the three-body block, then of the repformer.
      T *d = array(3L * m_), *r = array(m_, T(1)), *R = array(4L * m_), *sw = array(m_);
      for (int e = 0; e < n_; ++e) {
        for (int x = 0; x < 3; ++x) d[x * m_ + e] = c.d1[x * mr_ + e];
        r[e] = c.r1[e];
      }
      if (p_.use_three)
        k_.env_mat(n_, m_, c.R3, c.sw3, d, r, p_.stats_three.cut, p_.stats_three.mean + 4L * c.type, p_.stats_three.inv_std + 4L * c.type);
      k_.env_mat(n_, m_, R, sw, d, r, p_.stats_repformer.cut, p_.stats_repformer.mean + 4L * c.type,
                 p_.stats_repformer.inv_std + 4L * c.type);
      const T kappa_n = T(1) / static_cast<T>(p_.nsel_repformer), kappa_h = std::sqrt(kappa_n);
      for (int e = 0; e < n_; ++e) {
        c.x[e] = R[e];
        c.w[e] = p_.smooth ? sw[e] : T(1);
        c.s[e] = kappa_n * c.w[e];
        for (int x = 0; x < 3; ++x) {
          c.h2[3 * e + x] = R[(1 + x) * m_ + e];
          c.f[3 * e + x] = kappa_h * c.w[e] * c.h2[3 * e + x];
        }
      }
      c.g2 = random(static_cast<long>(n_) * n2_);
      c.c1 = array(static_cast<long>(n_) * m_);
      c.c2 = array(static_cast<long>(n_) * m_);
      k_.attention_factors(n_, m_, p_.smooth, c.c1, c.c2, c.h2, c.w, arena_);
    }
    const auto forward = each([this](Centre<T>& c) {
      k_.env_mat(nr_, mr_, c.R1, c.sw1, c.d1, c.r1, p_.stats_repinit.cut, p_.stats_repinit.mean + 4L * c.type,
                 p_.stats_repinit.inv_std + 4L * c.type);
    });
    forward();
    T *gamma = array(3L * mr_), *dR = random(4L * mr_), *dsw = random(mr_);
    const auto backward = each([=](Centre<T>& c) {
      k_.env_mat_backward(mr_, gamma, dR, dsw, c.d1, c.r1, p_.stats_repinit.cut, p_.stats_repinit.inv_std + 4L * c.type);
    });
    add("env_mat", forward, backward, of(9.0 * nr_), of(15.0 * nr_));
  }

  void descriptor() {
    const int ng = p_.repinit.ng, ngp = padded<T>(ng);
    T *D = array(static_cast<long>(ng) * p_.repinit.axis), *M = array(4L * ngp), *dD = random(static_cast<long>(ng) * p_.repinit.axis);
    T *dR = array(4L * mr_), *dsw = array(mr_);
    const double nD = static_cast<double>(ng) * p_.repinit.axis;
    add("repinit",
        each([=](Centre<T>& c) { k_.repinit(p_.repinit, nr_, mr_, D, M, c.R1, c.sw1, c.combination, dpa2::RepinitPad<T>(), arena_); }),
        each([=](Centre<T>& c) {
          k_.repinit_backward(p_.repinit, nr_, mr_, dR, dsw, nullptr, dD, nullptr, c.R1, c.sw1, c.combination, dpa2::RepinitPad<T>(),
                              arena_);
        }),
        of(5.0 * nr_ + nD), of(15.0 * nr_ + nD));
    if (!p_.use_three) return;
    T *Q = array(padded<T>(p_.three.n3)), *dQ = random(padded<T>(p_.three.n3)), *dv = array(3L * m_), *dsw3 = array(m_);
    add("three_body",
        each([=](Centre<T>& c) { k_.three_body(p_.three, n_, m_, Q, c.R3 + m_, c.sw3, c.types, dpa2::ThreeBodyPad<T>(), arena_); }),
        each([=](Centre<T>& c) {
          k_.three_body_backward(p_.three, n_, m_, dv, dsw3, nullptr, dQ, c.R3 + m_, c.sw3, c.types, dpa2::ThreeBodyPad<T>(), arena_);
        }),
        of(4.0 * n_ + p_.three.n3), of(12.0 * n_ + p_.three.n3));
  }

  void products() {
    const int nd = p_.nd, ncat = layer_.ncat;
    T *y = array(static_cast<long>(centres) * n1_), *S = array(static_cast<long>(centres) * n1_),
      *own = random(static_cast<long>(centres) * n1_);
    if (!p_.shape_identity) {
      T *D = random(static_cast<long>(centres) * nd), *dD = array(static_cast<long>(centres) * nd);
      const double bytes = of(nd + n1_ + weights(p_.shape) / centres);
      add(
          "shape_transform", [=] { dense(centres, y, D, p_.shape, nullptr, false); },
          [=] { dense(centres, dD, own, p_.shape_t, nullptr, false); }, bytes, bytes);
    }
    T *cat = random(static_cast<long>(centres) * ncat), *dcat = array(static_cast<long>(centres) * ncat);
    double bytes = of(ncat + n1_ + weights(layer_.w1) / centres);
    if (p_.has().self) bytes += of(2.0 * n1_ + weights(layer_.self) / centres);
    add(
        "linear",
        [=] {
          dense(centres, y, cat, layer_.w1, layer_.b1, false);
          if (p_.has().self) dense(centres, S, own, layer_.self, layer_.self_b, false);
        },
        [=] {
          dense(centres, dcat, own, layer_.w1t, nullptr, false);
          if (p_.has().self) dense(centres, S, own, layer_.self_t, nullptr, true);
        },
        bytes, bytes);
    const long size = static_cast<long>(centres) * n1_;
    T *z = random(size), *phi = array(size), *dphi = array(size), *dz = array(size);
    add(
        "activation", [=] { k_.activate_grad(p_.act, size, phi, dphi, z); }, [=] { k_.activate_backward(size, dz, own, dphi); },
        of(3.0 * n1_), of(3.0 * n1_));
    T* terms[dpa2::max_residual_terms];
    for (T*& t : terms) t = random(size);
    const int count = layer_.res1.nterms;
    std::vector<const T*> in(terms, terms + dpa2::max_residual_terms);
    std::vector<T*> out(terms, terms + dpa2::max_residual_terms);
    add(
        "residual_update", [=] { k_.residual(centres, n1_, layer_.res1, y, own, in.data()); },
        [=] { k_.residual_backward(centres, n1_, layer_.res1, y, out.data(), nullptr, nullptr, own); }, of((count + 2.0) * n1_),
        of((count + 3.0) * n1_));
  }

  void pairs() {
    const long size = static_cast<long>(n_) * n2_;
    const double rows = static_cast<double>(size);
    T *out = array(size), *zh = array(size), *dg2 = array(size), *dout = random(size), *dx = array(n_), *inv_sigma = array(n_);
    add("g2_embed", each([=](Centre<T>& c) { k_.g2_embed(n_, n2_, out, c.x, p_.g2_w, p_.g2_b, p_.act); }),
        each([=](Centre<T>& c) { k_.g2_embed_backward(n_, n2_, dx, nullptr, nullptr, dout, c.x, p_.g2_w, p_.g2_b, p_.act, arena_); }),
        of(rows + n_), of(rows + 2.0 * n_));
    if (layer_.has.last) return;
    add("linear2", each([=](Centre<T>& c) { dense(n_, out, c.g2, layer_.w2, layer_.b2, false); }),
        each([=](Centre<T>&) { dense(n_, dg2, dout, layer_.w2t, nullptr, true); }), of(2 * rows + weights(layer_.w2) / centres),
        of(3 * rows + weights(layer_.w2) / centres));
    if (p_.has().g1g1) {
      T *own = array(n1_), *dw = array(n_);
      add("g1g1", each([=](Centre<T>& c) { k_.g1g1(n_, out, g1_, g1_, c.j, layer_.gg, c.w, arena_); }),
          each([=](Centre<T>& c) { k_.g1g1_backward(n_, own, dg1_, c.j, dw, nullptr, dout, g1_, g1_, c.j, layer_.ggt, c.w, arena_); }),
          of(rows + static_cast<double>(n_) * n1_ + weights(layer_.gg) / centres),
          of(rows + 3.0 * n_ * n1_ + weights(layer_.gg) / centres));
    }
    if (!p_.has().pair_attention) return;
    T *dz = array(size), *dh = array(3L * n_), *ddh = array(3L * n_), *dh2 = array(3L * n_), *dw = array(n_);
    T *dc1 = array(static_cast<long>(n_) * m_), *dc2 = array(static_cast<long>(n_) * m_);
    const double factors = 2.0 * n_ * n_, matrices = (weights(layer_.pair.A) + weights(layer_.pair.B)) / centres;
    add("attention_factors", each([=](Centre<T>& c) { k_.attention_factors(n_, m_, p_.smooth, c.c1, c.c2, c.h2, c.w, arena_); }),
        each([=](Centre<T>& c) { k_.attention_factors_backward(n_, m_, p_.smooth, dh2, dw, dc1, dc2, c.h2, c.w, arena_); }),
        of(factors + 4.0 * n_), of(factors + 12.0 * n_));
    if (!p_.has().update_h2) dh = ddh = nullptr;
    add("pair_attention", each([=](Centre<T>& c) { k_.pair_attention(layer_.pair, input(c), out, dh, arena_); }),
        each([=](Centre<T>& c) { k_.pair_attention_backward(layer_.pair, input(c), dg2, dh2, dc1, dc2, nullptr, dout, ddh, arena_); }),
        of(2 * rows + factors + matrices), of(4 * rows + 2 * factors + matrices), pair_attention_training(dout, ddh));
    add("layer_norm", each([=](Centre<T>& c) {
          k_.layer_norm(n_, n2_, p_.n2_real, p_.ln_eps, out, zh, inv_sigma, c.g2, layer_.ln_gain, layer_.ln_bias);
        }),
        each([=](Centre<T>&) { k_.layer_norm_backward(n_, n2_, p_.n2_real, dz, nullptr, nullptr, dout, zh, inv_sigma, layer_.ln_gain); }),
        of(3 * rows + n_), of(3 * rows + n_));
  }
  std::function<void()> pair_attention_training(const T* dz, const T* ddh) {
    const long size = static_cast<long>(n_) * n2_, pairs = static_cast<long>(n_) * m_;
    for (Centre<T>& c : centres_)
      c.pairs = {n_, m_, dual(c.g2, size), dual(c.h2, 3L * n_), dual(c.c1, pairs), dual(c.c2, pairs), input(c).npad};
    Dual<T>*seed = dual(dz, size), *seed_h2 = ddh != nullptr ? dual(ddh, 3L * n_) : nullptr;
    Dual<T>*dg2 = dual(dz, size), *dh2 = dual(array(3L * n_), 3L * n_), *dc1 = dual(array(pairs), pairs), *dc2 = dual(array(pairs), pairs);
    const dpa2::PairAttentionParams<T>& p = layer_.pair;
    const dpa2::PairAttentionGradient<T> g{array(size_of(p.A)), array(size_of(p.B)), array(n2_), array(p.nh)};
    return each([=](Centre<T>& c) { dual_.pair_attention_backward(p, c.pairs, dg2, dh2, dc1, dc2, &g, seed, seed_h2, arena_); });
  }
  dpa2::PairAttentionInput<T> input(const Centre<T>& c) const {
    return {n_, m_, c.g2, c.h2, c.c1, c.c2, p_.smooth ? static_cast<T>(p_.nsel_repformer - n_) : T(0)};
  }

  void messages() {
    const double pair_rows = static_cast<double>(n_) * n2_, node_rows = static_cast<double>(n_) * n1_;
    T *out = array(n1_), *dout = random(n1_), *dg2 = array(static_cast<long>(n_) * n2_), *ds = array(n_), *df = array(3L * n_);
    if (p_.has().out_conv)
      add("conv", each([=](Centre<T>& c) { k_.conv(n_, out, {c.g2, n2_, nullptr}, {g1_, n1_, c.j}, layer_.P, c.s, arena_); }),
          each([=](Centre<T>& c) {
            k_.conv_backward(n_, dg2, n2_, nullptr, dg1_, n1_, c.j, ds, nullptr, dout, {c.g2, n2_, nullptr}, {g1_, n1_, c.j}, layer_.P,
                             layer_.Pt, c.s, arena_);
          }),
          of(pair_rows + node_rows + n1_ + weights(layer_.P) / centres),
          of(3 * pair_rows + 3 * node_rows + n1_ + 2 * weights(layer_.P) / centres));
    T *gram = array(static_cast<long>(p_.axis) * n1_), *dgram = random(static_cast<long>(p_.axis) * n1_), *C = array(3L * n1_),
      *dC = array(3L * n1_);
    add("symmetrization", each([=](Centre<T>& c) {
          k_.sym_moments(n_, n2_, C, c.f, {c.g2, n2_, nullptr});
          k_.sym_gram(n2_, p_.axis, gram, C);
          k_.sym_moments(n_, n1_, C, c.f, {g1_, n1_, c.j});
          k_.sym_gram(n1_, p_.axis, gram, C);
        }),
        each([=](Centre<T>& c) {
          k_.sym_moments(n_, n2_, C, c.f, {c.g2, n2_, nullptr});
          k_.sym_gram_backward(n2_, p_.axis, dC, dgram, C);
          k_.sym_moments_backward(n_, n2_, df, dg2, n2_, nullptr, dC, c.f, {c.g2, n2_, nullptr});
          k_.sym_moments(n_, n1_, C, c.f, {g1_, n1_, c.j});
          k_.sym_gram_backward(n1_, p_.axis, dC, dgram, C);
          k_.sym_moments_backward(n_, n1_, df, dg1_, n1_, c.j, dC, c.f, {g1_, n1_, c.j});
        }),
        of(pair_rows + node_rows + p_.axis * (n1_ + n2_)), of(3 * pair_rows + 3 * node_rows + p_.axis * (n1_ + n2_)));
    if (p_.has().local_attention) {
      const int nh = p_.nh1;
      T *tq = random(static_cast<long>(nh) * n1_), *dtq = array(static_cast<long>(nh) * n1_), *o = array(static_cast<long>(nh) * n1_);
      T *d_o = random(static_cast<long>(nh) * n1_), *dw = array(n_);
      const T shift = p_.smooth ? T(dpa2::math::attention_shift) : T(0), pads = p_.smooth ? static_cast<T>(p_.nsel_repformer - n_) : T(0);
      add("local_attention",
          each([=](Centre<T>& c) { k_.local_attention(n_, n1_, nh, o, tq, g1_, c.j, p_.smooth ? c.w : nullptr, shift, pads, arena_); }),
          each([=](Centre<T>& c) {
            k_.local_attention_backward(n_, n1_, nh, dtq, dg1_, c.j, dw, d_o, tq, g1_, c.j, p_.smooth ? c.w : nullptr, shift, pads, arena_);
          }),
          of(node_rows + 2.0 * nh * n1_), of(3 * node_rows + 3.0 * nh * n1_), local_attention_training(tq, d_o, shift, pads));
    }
  }

  std::function<void()> local_attention_training(const T* tq, const T* d_o, T shift, T pads) {
    const int nh = p_.nh1;
    const long size = static_cast<long>(nh) * n1_, rows = static_cast<long>(atoms) * n1_;
    for (Centre<T>& c : centres_) c.switched = p_.smooth ? dual(c.w, n_) : nullptr;
    Dual<T>*q = dual(tq, size), *seed = dual(d_o, size), *g1 = dual(g1_, rows), *dg1 = dual(dg1_, rows);
    Dual<T>*dq = dual(tq, size), *dw = dual(array(n_), n_);
    return each([=](Centre<T>& c) {
      dual_.local_attention_backward(n_, n1_, nh, dq, dg1, c.j, dw, seed, q, g1, c.j, c.switched, shift, pads, arena_);
    });
  }

  void ends() {
    const int in = p_.fitting.in;
    T *x = random(static_cast<long>(centres) * in), *dx = array(static_cast<long>(centres) * in);
    dpa2::Sum<T>* e = storage_.take<dpa2::Sum<T>>(padded<T>(centres));
    double matrices = 0;
    for (int l = 0; l < p_.fitting.nlayers; ++l) matrices += weights(p_.fitting.layers[l].w);
    const auto run = [=](T* gradient) {
      const dpa2::Arena::Mark mark = arena_.mark();
      k_.fitting(p_.fitting, centres, e, gradient, nullptr, nullptr, x, arena_);
      arena_.release(mark);
    };
    add("fitting", [=] { run(nullptr); }, [=] { run(dx); }, of(in + 1 + matrices / centres), of(2.0 * in + 1 + 2 * matrices / centres));
    double *force = storage_.take<double>(3 * atoms), *virial = storage_.take<double>(9);
    std::fill_n(force, 3 * atoms, 0.0);
    std::fill_n(virial, 9, 0.0);
    T* gamma = random(3L * mr_);
    add("assemble", nullptr, each([=](Centre<T>& c) { k_.assemble(nr_, mr_, force, 0, c.j, virial, nullptr, gamma, c.d); }), 0,
        of(3.0 * nr_) + 8.0 * 9.0 * nr_);
  }

  dpa2::Prepared<T> p_;
  const dpa2::Kernels<T>& k_;
  const dpa2::Kernels<Dual<T>>& dual_;
  int n_, nr_, m_, mr_, n1_, n2_;
  double rcut1_, rcut2_;
  const dpa2::LayerParams<T>& layer_;
  std::mt19937_64 engine_{1};
  dpa2::Storage storage_;
  dpa2::Arena arena_;
  std::vector<Centre<T>> centres_;
  T *g1_ = nullptr, *dg1_ = nullptr;
};

}  // namespace

template <class T>
Bench* make_bench(const dpa2::Config& config, const dpa2::Weights& weights, const Sizes& sizes) {
  return new Tile<T>(config, weights, sizes);
}

template Bench* make_bench<double>(const dpa2::Config&, const dpa2::Weights&, const Sizes&);
template Bench* make_bench<float>(const dpa2::Config&, const dpa2::Weights&, const Sizes&);

}  // namespace bench
