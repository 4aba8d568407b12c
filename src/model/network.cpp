#include "model/network.hpp"

#include <algorithm>
#include <cmath>

#include "cpu/kernels.hpp"
#include "graph/packing.hpp"
#include "padding.hpp"

namespace dpa2 {

namespace {

constexpr std::ptrdiff_t tile = 64;  // rows that go through all layers while they are in the first caches

struct Functions {
  static double exp(double x) { return std::exp(x); }
  static double tanh(double x) { return std::tanh(x); }
};

template <Activation A>
void bend(const math::Silut<double>& silut, std::size_t n, double* ddphi, const double* z, const double* y, const double* dphi) {
  for (std::size_t i = 0; i < n; ++i) ddphi[i] = math::second_derivative<A, Functions>(z[i], silut, y[i], dphi[i]);
}

/// ddphi (n) = phi''(z), given y = phi(z) and dphi = phi'(z).
void second_derivatives(const ActivationSpec<double>& act, std::size_t n, double* ddphi, const double* z, const double* y,
                        const double* dphi) {
  switch (act.kind) {
#define DPA2_CASE(A)  \
  case Activation::A: \
    return bend<Activation::A>(act.silut, n, ddphi, z, y, dphi);
    DPA2_CASE(linear)
    DPA2_CASE(tanh) DPA2_CASE(relu) DPA2_CASE(relu6) DPA2_CASE(sigmoid) DPA2_CASE(softplus) DPA2_CASE(gelu) DPA2_CASE(silu) DPA2_CASE(silut)
#undef DPA2_CASE
  }
}

}  // namespace

Network::Network(int in, const std::vector<FoldedHidden>& layers, const FoldedActivation& act) : in_(in), act_(activation<double>(act)) {
  for (const FoldedHidden& from : layers) {
    const int width = padded<double>(from.out);
    const auto rows = [&](const Matrix& m) { return padded_to(m, m.rows, width).a; };
    layers_.push_back({from.in, from.out, width, from.skip, rows(from.w), rows(from.b), rows(from.idt)});
  }
}

void Network::run(int parts, std::ptrdiff_t n, const double* x, double* y) const {
  const Kernels<double>& k = kernels<double>();
  int widest = padded<double>(in_);
  for (const Layer& layer : layers_) widest = std::max(widest, layer.width);
  const std::size_t size = static_cast<std::size_t>(tile) * static_cast<std::size_t>(widest);
  std::vector<double> from(size * static_cast<std::size_t>(parts)), to(from.size()), z(from.size());
  std::vector<double> dphi(parts > 1 ? size : 0), ddphi(dphi.size());
  for (std::ptrdiff_t first = 0; first < n; first += tile) {
    const std::ptrdiff_t rows = std::min(tile, n - first);
    for (int part = 0; part < parts; ++part) std::copy_n(x + (part * n + first) * in_, rows * in_, from.data() + part * rows * in_);
    std::ptrdiff_t ld = in_;
    for (const Layer& layer : layers_) {
      const std::ptrdiff_t count = rows * layer.width;
      const auto product = [&](std::ptrdiff_t begin, std::ptrdiff_t m, const double* bias) {
        k.linear(static_cast<int>(m), layer.width, layer.in, z.data() + begin * layer.width, layer.width, from.data() + begin * ld, ld, 1,
                 layer.w.data(), layer.width, padded<double>(1), bias, false);
      };
      product(0, rows, layer.b.data());
      if (parts == 1) {
        k.activate(act_, count, to.data(), z.data());
      } else {
        product(rows, 2 * rows, nullptr);
        k.activate_grad(act_, count, to.data(), dphi.data(), z.data());
        second_derivatives(act_, static_cast<std::size_t>(count), ddphi.data(), z.data(), to.data(), dphi.data());
        const double *dz = z.data() + count, *ddz = dz + count;
        double *dy = to.data() + count, *ddy = dy + count;
        for (std::ptrdiff_t i = 0; i < count; ++i) {
          dy[i] = dphi[static_cast<std::size_t>(i)] * dz[i];
          ddy[i] = ddphi[static_cast<std::size_t>(i)] * dz[i] * dz[i] + dphi[static_cast<std::size_t>(i)] * ddz[i];
        }
      }
      for (std::ptrdiff_t row = 0; row < parts * rows; ++row) {
        double* out = to.data() + row * layer.width;
        if (!layer.idt.empty())
          for (int c = 0; c < layer.out; ++c) out[c] *= layer.idt[static_cast<std::size_t>(c)];
        for (int copy = 0; copy < layer.skip; ++copy)
          for (int c = 0; c < layer.in; ++c) out[copy * layer.in + c] += from[static_cast<std::size_t>(row * ld + c)];
      }
      from.swap(to);
      ld = layer.width;
    }
    for (int part = 0; part < parts; ++part)
      for (std::ptrdiff_t row = 0; row < rows; ++row)
        std::copy_n(from.data() + (part * rows + row) * ld, out(), y + (part * n + first + row) * out());
  }
}

}  // namespace dpa2
