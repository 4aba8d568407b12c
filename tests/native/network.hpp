// An embedding network in plain loops and as the kernels want it, and arrays with the edges on the lanes.
#pragma once

#include <memory>
#include <utility>

#include "operation.hpp"

namespace operation {

/// Rows (rows, n) as lanes (rows, m).
template <class T>
struct Lanes : Guarded<T> {
  template <class N>
  Lanes(const std::vector<N>& v, int rows, int n, int m, double fill) : Guarded<T>(static_cast<long>(rows) * m) {
    this->set_rows(v, rows, n, m, fill);
  }
};

/// A network on [s, table row of the combination], or on s alone (table empty).
struct Net {
  dpa2::Activation kind = dpa2::Activation::tanh;
  std::vector<int> widths;  // of the layers
  int ncomb = 1;
  Vector table;      // (ncomb, in0 - 1)
  Blocks w, b, idt;  // per layer; idt empty or one per layer (empty where the layer has no skip)

  int in0() const { return 1 + static_cast<int>(table.size()) / ncomb; }
  int in(std::size_t l) const { return l == 0 ? in0() : widths[l - 1]; }
  int skip(std::size_t l) const { return widths[l] == in(l) ? 1 : widths[l] == 2 * in(l) ? 2 : 0; }
  int out() const { return widths.back(); }

  Net(Random& random, std::vector<int> layer_widths, int combinations, int extra, bool scaled,
      dpa2::Activation activation = dpa2::Activation::tanh)
      : kind(activation),
        widths(std::move(layer_widths)),
        ncomb(combinations),
        table(random.vector(static_cast<long>(combinations) * extra)) {
    for (std::size_t l = 0; l < widths.size(); ++l) {
      w.push_back(random.vector(static_cast<long>(in(l)) * widths[l]));
      b.push_back(random.vector(widths[l]));
      idt.push_back(scaled && skip(l) != 0 ? random.vector(widths[l], 0.3, 1.0) : Vector());
    }
  }

  template <class S>
  std::vector<S> operator()(S s, int combination) const {
    std::vector<S> x{s};
    for (int i = 1; i < in0(); ++i) x.push_back(table[at(static_cast<long>(combination) * (in0() - 1) + i - 1)]);
    std::vector<S> z = product(x, w[0], 1, in0(), widths[0]);
    for (std::size_t c = 0; c < z.size(); ++c) z[c] += b[0][c];
    return layers(x, z, [this](std::size_t l) { return Layer<double>{w[l], b[l], idt[l]}; });
  }

  // The weights as the kernels have them, as blocks; empty where there are none:
  //   w_scalar (out0), type_term (rows, out0), type_skip (rows, in0 - 1), then of every layer w (in, out), b (out), idt (out), the first
  //   two of them empty in the first layer.
  bool typed() const { return in0() > 1; }
  int rows() const { return typed() ? ncomb : 1; }
  Blocks folded() const {
    Blocks f{Vector(w[0].begin(), w[0].begin() + widths[0]), {}, skip(0) != 0 ? table : Vector()};
    for (int row = 0; row < rows(); ++row)
      for (int c = 0; c < widths[0]; ++c) {
        double sum = b[0][at(c)];
        for (int i = 1; i < in0(); ++i)
          sum += table[at(static_cast<long>(row) * (in0() - 1) + i - 1)] * w[0][at(static_cast<long>(i) * widths[0] + c)];
        f[1].push_back(sum);
      }
    for (std::size_t l = 0; l < widths.size(); ++l) {
      f.push_back(l > 0 ? w[l] : Vector());
      f.push_back(l > 0 ? b[l] : Vector());
      f.push_back(idt[l]);
    }
    return f;
  }
  std::size_t nfolded() const { return 3 + 3 * widths.size(); }
  /// The network with the folded weights that begin at f[first].
  template <class S>
  std::vector<S> operator()(S s, int combination, const Values<S>& f, std::size_t first = 0) const {
    const std::size_t row = typed() ? at(combination) : 0, extra = at(in0() - 1);
    std::vector<S> x{s}, z;
    for (std::size_t i = 0; i < extra; ++i) x.push_back(skip(0) != 0 ? f[first + 2][row * extra + i] : S(0));
    for (std::size_t c = 0; c < at(widths[0]); ++c) z.push_back(s * f[first][c] + f[first + 1][row * at(widths[0]) + c]);
    return layers(x, z, [&f, first](std::size_t l) {
      const std::size_t block = first + 3 + 3 * l;
      return Layer<S>{f[block], f[block + 1], f[block + 2]};
    });
  }

 private:
  template <class W>
  struct Layer {
    const std::vector<W>&w, &b, &idt;
  };
  /// From the input x of the first layer and its preactivation z on.
  template <class S, class Weights>
  std::vector<S> layers(std::vector<S> x, std::vector<S> z, const Weights& weights) const {
    for (std::size_t l = 0; l < widths.size(); ++l) {
      const auto layer = weights(l);
      if (l > 0) {
        z = product(x, layer.w, 1, in(l), widths[l]);
        for (std::size_t c = 0; c < z.size(); ++c) z[c] += layer.b[c];
      }
      for (std::size_t c = 0; c < z.size(); ++c) {
        z[c] = phi(kind, 3.0, z[c]);
        if (!layer.idt.empty()) z[c] *= layer.idt[c];
        if (skip(l) != 0) z[c] += x[c % x.size()];
      }
      x = z;
    }
    return x;
  }
};

/// The same for the kernels.
template <class T>
struct PreparedNet {
  explicit PreparedNet(const Net& source) {
    const auto own = [&](const Vector& v) -> const T* {
      arrays.push_back(std::make_unique<Guarded<T>>(v));
      return *arrays.back();
    };
    for (std::size_t l = 0; l < source.widths.size(); ++l) {
      dpa2::EmbeddingLayer<T> layer;
      layer.in = source.in(l);
      layer.out = source.widths[l];
      layer.skip = source.skip(l);
      layer.w = own(source.w[l]);
      layer.wt = own(transpose(source.w[l], layer.in, layer.out));
      layer.b = own(source.b[l]);
      layer.idt = source.idt[l].empty() ? nullptr : own(source.idt[l]);
      layers.push_back(layer);
    }
    const Blocks folded = source.folded();
    Vector skip;
    for (int row = 0; row < source.ncomb; ++row) {
      skip.push_back(NAN);  // stands for s and is never read
      for (int i = 1; i < source.in0(); ++i) skip.push_back(source.table[at(static_cast<long>(row) * (source.in0() - 1) + i - 1)]);
    }
    net.nlayers = static_cast<int>(layers.size());
    net.layers = layers.data();
    net.typed = source.typed();
    net.w_scalar = own(folded[0]);
    net.type_term = own(folded[1]);
    net.type_skip = own(skip);
    net.act = activation<T>(source.kind);
  }
  std::vector<std::unique_ptr<Guarded<T>>> arrays;
  std::vector<dpa2::EmbeddingLayer<T>> layers;
  dpa2::EmbeddingNet<T> net;
};

/// Room for the gradients of its weights, R plain numbers.
template <class R>
struct NetGradient {
  explicit NetGradient(const Net& source) : net(source) {
    const auto own = [&](long rows, int width) -> R* {
      arrays.push_back(std::make_unique<Guarded<R>>(rows * padded<R>(width), static_cast<R>(start_value)));
      return *arrays.back();
    };
    g.w_scalar = own(1, net.widths[0]);
    g.type_term = own(net.rows(), net.widths[0]);
    g.type_skip = own(net.rows(), net.in0());
    for (std::size_t l = 0; l < net.widths.size(); ++l) {
      g.w[l] = own(l > 0 ? net.in(l) : 0, net.widths[l]);
      g.b[l] = own(l > 0 ? 1 : 0, net.widths[l]);
      g.idt[l] = own(net.idt[l].empty() ? 0 : 1, net.widths[l]);
    }
  }
  /// In the order of Net::folded, less what they started from.
  Blocks blocks() const {
    const int out0 = net.widths[0], in0 = net.in0();
    const auto of = [&](std::size_t i, long rows, int width) { return arrays[i]->rows(rows, width, padded<R>(width), start_value); };
    Blocks f{of(0, 1, out0), of(1, net.rows(), out0), {}};
    for (int row = 0; row < net.rows(); ++row) {  // nothing in the place of s
      const Vector numbers = arrays[2]->values(in0, start_value, static_cast<long>(row) * padded<R>(in0));
      CHECK(numbers[0] == 0.0);
      if (net.skip(0) != 0) f[2].insert(f[2].end(), numbers.begin() + 1, numbers.end());
    }
    for (std::size_t l = 0; l < net.widths.size(); ++l) {
      const int width = net.widths[l];
      f.push_back(of(3 + 3 * l, l > 0 ? net.in(l) : 0, width));
      f.push_back(of(4 + 3 * l, l > 0 ? 1 : 0, width));
      f.push_back(of(5 + 3 * l, net.idt[l].empty() ? 0 : 1, width));
    }
    return f;
  }
  const Net& net;
  std::vector<std::unique_ptr<Guarded<R>>> arrays;
  dpa2::EmbeddingGradient<R> g;
};

template <class T>
struct Combinations : Guarded<int> {
  Combinations(const std::vector<int>& v, int m) : Guarded<int>(m, 0) {
    for (std::size_t i = 0; i < v.size(); ++i) (*this)(static_cast<long>(i)) = v[i];
  }
};

// No skip; equal and doubling ones; in the first layer on [s, types] (3 -> 3 -> 6) and on s alone (1 -> 2).
inline const std::vector<std::vector<int>> network_widths = {{4}, {3, 6, 7}, {6, 12, 12}, {1, 2, 2}, {2, 5}, {5, 10, 20, 20}};

}  // namespace operation
