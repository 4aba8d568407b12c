// What training needs of an operation (operation.hpp says what an operation brings): the gradients of its weights, and all of it on
// dual numbers, whose gradients are mixed derivatives. They are compared with exact ones of the reference: dual numbers over complex
// ones, a derivative along one direction in the dual part and along another in the complex step.
#pragma once

#include "operation.hpp"

namespace operation {

/// A complex number and its derivative along a direction.
struct Mixed {
  Complex v, d;

  Mixed(double value = 0.0) : v(value) {}  // NOLINT: constants stand in formulas as they are
  Mixed(const Complex& value, const Complex& along) : v(value), d(along) {}
  Mixed operator-() const { return {-v, -d}; }
  friend Mixed operator+(const Mixed& a, const Mixed& b) { return {a.v + b.v, a.d + b.d}; }
  friend Mixed operator-(const Mixed& a, const Mixed& b) { return {a.v - b.v, a.d - b.d}; }
  friend Mixed operator*(const Mixed& a, const Mixed& b) { return {a.v * b.v, a.v * b.d + a.d * b.v}; }
  friend Mixed operator/(const Mixed& a, const Mixed& b) {
    const Complex q = a.v / b.v;
    return {q, (a.d - q * b.d) / b.v};
  }
  Mixed& operator+=(const Mixed& b) { return *this = *this + b; }
  Mixed& operator-=(const Mixed& b) { return *this = *this - b; }
  Mixed& operator*=(const Mixed& b) { return *this = *this * b; }
  Mixed& operator/=(const Mixed& b) { return *this = *this / b; }
};
inline double real(const Mixed& x) { return x.v.real(); }
inline Mixed exp(const Mixed& x) { return {std::exp(x.v), std::exp(x.v) * x.d}; }
inline Mixed log(const Mixed& x) { return {std::log(x.v), x.d / x.v}; }
inline Mixed sqrt(const Mixed& x) { return {std::sqrt(x.v), x.d / (2.0 * std::sqrt(x.v))}; }
inline Mixed tanh(const Mixed& x) {
  const Complex t = std::tanh(x.v);
  return {t, (1.0 - t * t) * x.d};
}

/// The values of dual blocks, or their tangents.
inline Blocks part(const Values<Dual<double>>& x, double Dual<double>::* which) {
  Blocks y;
  for (const auto& block : x) {
    y.emplace_back();
    for (const Dual<double>& number : block) y.back().push_back(number.*which);
  }
  return y;
}
inline Values<Dual<double>> dual(const Blocks& v, const Blocks& d) {
  Values<Dual<double>> x(v.size());
  for (std::size_t b = 0; b < v.size(); ++b)
    for (std::size_t i = 0; i < v[b].size(); ++i) x[b].emplace_back(v[b][i], d[b][i]);
  return x;
}
inline Blocks random_blocks(Random& random, const Blocks& like) {
  Blocks v;
  for (const Vector& block : like) v.push_back(random.vector(static_cast<long>(block.size())));
  return v;
}

/// What gradients are compared with: the derivative along a direction of inputs and weights of <dy, y>, or, where there are
/// directions of inputs and seeds, its derivative along these, <dy', J u> + <dy, (J u)'>.
template <class Op>
struct Exact {
  const Op& op;
  Blocks x, w, dy, v, dyv;

  struct Result {
    double value, size;
  };
  Result operator()(const Blocks& u, const Blocks& uw) const {
    const auto mixed = [](const Blocks& at_point, const Blocks& step, const Blocks& along) {
      Values<Mixed> z(at_point.size());
      const Values<Complex> points = stepped(at_point, step);
      for (std::size_t b = 0; b < z.size(); ++b)
        for (std::size_t i = 0; i < points[b].size(); ++i) z[b].emplace_back(points[b][i], along[b][i]);
      return z;
    };
    const Values<Mixed> y = reference<Mixed>(op, mixed(x, v, u), mixed(w, {}, uw));
    Result r{0, 0};
    const auto add = [&](double term) {
      r.value += term;
      r.size += std::abs(term);
    };
    for (std::size_t b = 0; b < y.size(); ++b)
      for (std::size_t i = 0; i < y[b].size(); ++i) {
        if (v.empty()) {
          add(dy[b][i] * y[b][i].d.real());
        } else {
          add(dyv[b][i] * y[b][i].d.real());
          add(dy[b][i] * y[b][i].d.imag() / tiny);
        }
      }
    return r;
  }

  /// Gradients of the inputs (g) and of the weights (gw): along a random direction of one block at a time, and element by element.
  void check(const Blocks& g, const Blocks& gw, double tolerance, const std::string& what) const {
    CHECK_CASE(g.size() == x.size() && gw.size() == w.size(), what);
    if (g.size() != x.size() || gw.size() != w.size()) return;
    Random random(11);
    for (std::size_t n = 0; n < x.size() + w.size(); ++n) {
      const bool input = n < x.size();
      const std::size_t b = input ? n : n - x.size();
      const Vector& gradient = input ? g[b] : gw[b];
      const std::size_t count = input ? x[b].size() : w[b].size();
      const std::string where = what + (input ? ", input " : ", weight ") + std::to_string(b);
      CHECK_CASE(gradient.size() == count, where);
      if (gradient.size() != count || count == 0) continue;
      Blocks u = x, uw = w;
      for (Blocks* all : {&u, &uw})
        for (Vector& block : *all) std::fill(block.begin(), block.end(), 0.0);
      Vector& direction = input ? u[b] : uw[b];

      direction = random.vector(static_cast<long>(count));
      const Result along = (*this)(u, uw);
      const double found = dot({gradient}, {direction}), scale = std::max({along.size, dot({gradient}, {direction}, true), 1e-3});
      CHECK_TEXT(std::abs(along.value - found) <= tolerance * scale,
                 where + ", adjoint: " + std::to_string(std::abs(along.value - found) / scale / tolerance) + " times the tolerance");

      double largest = 1e-3;
      for (const double value : gradient) largest = std::max(largest, std::abs(value));
      const std::size_t samples = std::min<std::size_t>(count, 4);
      for (std::size_t s = 0; s < samples; ++s) {
        const std::size_t i = samples == count ? s : at(random.below(static_cast<int>(count)));
        std::fill(direction.begin(), direction.end(), 0.0);
        direction[i] = 1.0;
        const double exact = (*this)(u, uw).value;
        CHECK_TEXT(std::abs(exact - gradient[i]) <= 10 * tolerance * largest,
                   where + ", element " + std::to_string(i) + ": " + std::to_string(gradient[i]) + " for " + std::to_string(exact));
      }
    }
  }
};

/// Everything that training needs, for one ISA level.
template <class Op>
void check_training(const Op& op, const std::string& name, const std::string& level, const Bounds& bounds = Bounds()) {
  const std::string what = name + " in training at " + level;
  const auto backward = [&op](const auto& k, const auto& x, const auto& dy, Blocks& dw) {
    if constexpr (WeightsOf<Op>::some)
      return op.backward(k, x, dy, &dw);
    else
      return op.backward(k, x, dy);
  };
  const Blocks x = op.inputs(), w = WeightsOf<Op>::get(op), y = reference<double>(op, x, w);
  Random random(9);
  const Blocks dy = random_blocks(random, y), v = random_blocks(random, x), dyv = random_blocks(random, y);

  const dpa2::Kernels<double>& k64 = dpa2::kernels<double>(level);
  Blocks dw, dw32;
  const Blocks dx = backward(k64, x, dy, dw);
  if constexpr (WeightsOf<Op>::some) {
    backward(dpa2::kernels<float>(level), x, dy, dw32);
    Exact<Op>{op, x, w, dy, {}, {}}.check(dx, dw, bounds.adjoint, what);
    close(dw, dw32, bounds.single_tangent, what + ", gradients of weights in float32");
  }

  const auto& kd = dpa2::kernels<Dual<double>>(level);
  const auto& kd32 = dpa2::kernels<Dual<float>>(level);
  const auto values = &Dual<double>::v, tangents = &Dual<double>::d;
  const Values<Dual<double>> xd = dual(x, v), dyd = dual(dy, dyv);
  const Values<Dual<double>> yd = op.forward(kd, xd), yd32 = op.forward(kd32, xd);
  close(y, part(yd, values), bounds.forward, what + ", values");
  close(tangent(op, x, v), part(yd, tangents), bounds.tangent, what + ", tangents");
  close(y, part(yd32, values), bounds.single, what + ", values in float32");
  close(part(yd, tangents), part(yd32, tangents), bounds.single_tangent, what + ", tangents in float32");

  Blocks ddw, ddw32;
  const Values<Dual<double>> dxd = backward(kd, xd, dyd, ddw), dxd32 = backward(kd32, xd, dyd, ddw32);
  close(dx, part(dxd, values), bounds.adjoint, what + ", values of gradients");
  Exact<Op>{op, x, w, dy, v, dyv}.check(part(dxd, tangents), ddw, bounds.adjoint, what + ", dual");
  close(dx, part(dxd32, values), bounds.single, what + ", values of gradients in float32");
  close(part(dxd, tangents), part(dxd32, tangents), bounds.single_tangent, what + ", tangents of gradients in float32");
  close(ddw, ddw32, bounds.single_tangent, what + ", tangents of gradients of weights in float32");
}

}  // namespace operation
