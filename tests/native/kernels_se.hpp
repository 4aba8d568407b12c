// The block of se_e2_a as the tests call it: repinit with a network per combination of types, and its vector moments.
#pragma once

#include <optional>

#include "cpu/kernels.hpp"
#include "graph/series.hpp"
#include "network.hpp"

namespace operation {

using dpa2::Kernels;

struct SeBlock {
  std::vector<Net> nets;
  int n, axis, nsel;
  std::vector<int> combination;
  Vector R;  // (4, n)
  double padded_slots = 0;
  Vector pad_R, pad_G;  // or empty
  double range = 0;     // of the series, 0: none

  int ng() const { return nets[0].out(); }
  Blocks inputs() const { return {R}; }
  /// D (ng * axis), and the last three rows of the moments (3, ng).
  template <class S>
  Values<S> reference(const Values<S>& x) const {
    std::vector<S> M(at(4L * ng()));
    for (int e = 0; e < n; ++e) {
      const std::vector<S> g = nets[at(combination[at(e)])](x[0][at(e)], 0);
      for (int r = 0; r < 4; ++r)
        for (int c = 0; c < ng(); ++c) M[at(static_cast<long>(r) * ng() + c)] += x[0][at(static_cast<long>(r) * n + e)] * g[at(c)];
    }
    for (int r = 0; r < 4; ++r)
      for (int c = 0; c < ng(); ++c) {
        S& v = M[at(static_cast<long>(r) * ng() + c)];
        if (!pad_R.empty()) v += padded_slots * pad_R[at(r)] * pad_G[at(c)];
        v /= static_cast<double>(nsel);
      }
    Values<S> out(2);
    for (int c = 0; c < ng(); ++c)
      for (int a = 0; a < axis; ++a) {
        S sum = 0;
        for (int r = 0; r < 4; ++r) sum += M[at(static_cast<long>(r) * ng() + c)] * M[at(static_cast<long>(r) * ng() + a)];
        out[0].push_back(sum);
      }
    out[1].assign(M.begin() + ng(), M.end());
    return out;
  }

  template <class T>
  struct Arrays {
    Arrays(const SeBlock& op, const Blocks& x, int m)
        : R(x[0], 4, op.n, m, 0), sw(Vector(at(op.n), 1.0), 1, op.n, m, 0), pad_R(op.pad_R), pad_G(op.pad_G), index(op.combination, m) {
      for (const Net& net : op.nets) {
        prepared.push_back(std::make_unique<PreparedNet<T>>(net));
        nets.push_back(prepared.back()->net);
        sources.push_back(std::make_unique<PreparedNet<double>>(net));
        nets64.push_back(sources.back()->net);
      }
      p.nets = nets.data();
      p.net.typed = true;
      p.ng = op.ng();
      p.axis = op.axis;
      p.ncombinations = static_cast<int>(nets.size());
      p.inv_nsel = static_cast<T>(1.0 / op.nsel);
      if (op.range > 0) {
        CHECK(dpa2::build_series(storage, table, nets64, -op.range, op.range));
        p.table = &table;
      }
      if (!op.pad_R.empty()) pad = {static_cast<T>(op.padded_slots / op.nsel), pad_R, pad_G};
    }
    std::vector<std::unique_ptr<PreparedNet<T>>> prepared;
    std::vector<std::unique_ptr<PreparedNet<double>>> sources;
    std::vector<dpa2::EmbeddingNet<T>> nets;
    std::vector<dpa2::EmbeddingNet<double>> nets64;
    Lanes<T> R, sw;
    Guarded<T> pad_R, pad_G;
    Combinations<T> index;
    dpa2::Storage storage;
    dpa2::SeriesTable<T> table;
    dpa2::RepinitParams<T> p;
    dpa2::RepinitPad<T> pad;
  };
  template <class T>
  Blocks forward(const Kernels<T>& k, const Blocks& x) const {
    const int m = padded<T>(n), ngp = padded<T>(ng());
    Arrays<T> a(*this, x, m);
    dpa2::Arena arena;
    Guarded<T> D(static_cast<long>(ng()) * axis), M(4L * ngp);
    k.repinit(a.p, n, m, D, M, a.R, a.sw, a.index, a.pad, arena);
    Blocks out{D.values(), {}};
    for (int r = 1; r < 4; ++r)
      for (int c = 0; c < ng(); ++c) out[1].push_back(static_cast<double>(M(static_cast<long>(r) * ngp + c)));
    return out;
  }
  template <class T>
  Blocks backward(const Kernels<T>& k, const Blocks& x, const Blocks& dy) const {
    const int m = padded<T>(n), ngp = padded<T>(ng());
    Arrays<T> a(*this, x, m);
    dpa2::Arena arena;
    Guarded<T> dD(dy[0]), dR(4L * m, T(start_value)), dsw(m, T(start_value)), dV(3L * ngp, T(0));
    dV.set_rows(dy[1], 3, ng(), ngp, 0);
    k.repinit_backward(a.p, n, m, dR, dsw, nullptr, dD, dV, a.R, a.sw, a.index, a.pad, arena);
    for (int e = 0; e < m; ++e) CHECK(dsw(e) == T(start_value));  // nothing depends on the switch
    return {dR.rows(4, n, m, start_value)};
  }
};

}  // namespace operation
