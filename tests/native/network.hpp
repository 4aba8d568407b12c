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
    for (std::size_t l = 0; l < widths.size(); ++l) {
      std::vector<S> y = product(x, w[l], 1, in(l), widths[l]);
      for (std::size_t c = 0; c < y.size(); ++c) {
        y[c] = phi(kind, 3.0, y[c] + b[l][c]);
        if (!idt[l].empty()) y[c] *= idt[l][c];
        if (skip(l) != 0) y[c] += x[c % x.size()];
      }
      x = y;
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
    const int in0 = source.in0(), out0 = source.widths[0];
    Vector term, skip;
    for (int row = 0; row < source.ncomb; ++row) {
      skip.push_back(NAN);  // stands for s and is never read
      for (int i = 1; i < in0; ++i) skip.push_back(source.table[at(static_cast<long>(row) * (in0 - 1) + i - 1)]);
      for (int c = 0; c < out0; ++c) {
        double sum = source.b[0][at(c)];
        for (int i = 1; i < in0; ++i) sum += skip[skip.size() - at(in0) + at(i)] * source.w[0][at(static_cast<long>(i) * out0 + c)];
        term.push_back(sum);
      }
    }
    net.nlayers = static_cast<int>(layers.size());
    net.layers = layers.data();
    net.typed = in0 > 1;
    net.w_scalar = own(Vector(source.w[0].begin(), source.w[0].begin() + out0));
    net.type_term = own(term);
    net.type_skip = own(skip);
    net.act = activation<T>(source.kind);
  }
  std::vector<std::unique_ptr<Guarded<T>>> arrays;
  std::vector<dpa2::EmbeddingLayer<T>> layers;
  dpa2::EmbeddingNet<T> net;
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
