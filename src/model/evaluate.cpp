#include "model/evaluate.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "heads/spectrum.hpp"

namespace dpa2 {
namespace {

/// Hands the descriptors out.
template <class T>
class DescriptorRows : public Readout<T> {
 public:
  DescriptorRows(const Prepared<T>& model, const Frame& frame, double* descriptor, double* rot_mat)
      : m_(model), frame_(frame), descriptor_(descriptor), rot_mat_(rot_mat) {}
  [[nodiscard]] bool rotation() const override { return rot_mat_ != nullptr; }
  void tile(int i0, int i1, const Rows<const T>& rows, const Rows<T>*, Arena&) override {
    for (int i = i0; i < i1; ++i) {
      if (descriptor_ != nullptr) {
        const int type = std::max(0, frame_.types[i]);
        double* row = descriptor_ + static_cast<std::ptrdiff_t>(i) * m_.descriptor_dim;
        for (int c = 0; c < m_.n1_real; ++c) row[c] = static_cast<double>(rows.g1[static_cast<std::ptrdiff_t>(i - i0) * m_.n1 + c]);
        if (m_.concat_tebd)
          for (int c = 0; c < m_.tebd_dim; ++c)
            row[m_.n1_real + c] = static_cast<double>(m_.tebd[static_cast<std::ptrdiff_t>(type) * m_.tebd_dim + c]);
      }
      if (rot_mat_ != nullptr) {
        const T* moments = rows.rot + static_cast<std::ptrdiff_t>(i - i0) * 3 * m_.n2;
        double* row = rot_mat_ + static_cast<std::ptrdiff_t>(i) * m_.n2_real * 3;
        for (int c = 0; c < m_.n2_real; ++c)
          for (int x = 0; x < 3; ++x) row[3 * c + x] = static_cast<double>(moments[x * m_.n2 + c]);
      }
    }
  }

 private:
  const Prepared<T>& m_;
  const Frame& frame_;
  double *descriptor_, *rot_mat_;
};

/// The head, and the gradient of one of the numbers that it gives for an atom, summed over the atoms with weights: null for ones.
template <class T>
class HeadRows : public Readout<T> {
 public:
  HeadRows(const Head<T>& head, const Frame& frame, double* values, int quantity, const double* weights)
      : head_(head), frame_(frame), values_(values), quantity_(quantity), weights_(weights) {}
  [[nodiscard]] bool rotation() const override { return head_.rotation(); }
  void tile(int i0, int i1, const Rows<const T>& rows, const Rows<T>* gradient, Arena& arena) override {
    const std::ptrdiff_t width = head_.width();
    double* values = values_ + i0 * width;
    if (gradient == nullptr) return head_.forward(frame_, i0, i1, rows, values, arena);
    const Arena::Mark mark = arena.mark();
    const double* seed = weights_ != nullptr ? weights_ + i0 : nullptr;
    if (width > 1) {
      double* chosen = arena.take<double>((i1 - i0) * width);
      std::fill_n(chosen, (i1 - i0) * width, 0.0);
      for (std::ptrdiff_t i = 0; i < i1 - i0; ++i) chosen[i * width + quantity_] = seed != nullptr ? seed[i] : 1.0;
      seed = chosen;
    }
    head_.backward(frame_, i0, i1, rows, seed, values, *gradient, nullptr, arena);
    arena.release(mark);
  }

 private:
  const Head<T>& head_;
  const Frame& frame_;
  double* values_;
  int quantity_;
  const double* weights_;
};

/// The weighted sum of a vector-Jacobian product.
template <class T>
class SeededRows : public Readout<T> {
 public:
  SeededRows(const Prepared<T>& model, const Head<T>& head, const Frame& frame, double* values, const Seeds& seeds)
      : m_(model), head_(head), frame_(frame), values_(values), seeds_(seeds) {}
  [[nodiscard]] bool rotation() const override { return (seeds_.head != nullptr && head_.rotation()) || seeds_.rot_mat != nullptr; }
  void tile(int i0, int i1, const Rows<const T>& rows, const Rows<T>* gradient, Arena& arena) override {
    const std::ptrdiff_t count = i1 - i0, width = head_.width();
    if (gradient->rot != nullptr) std::fill_n(gradient->rot, count * 3 * m_.n2, T(0));
    if (seeds_.head != nullptr)
      head_.backward(frame_, i0, i1, rows, seeds_.head + i0 * width, values_ + i0 * width, *gradient, nullptr, arena);
    else
      std::fill_n(gradient->g1, count * m_.n1, T(0));
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      if (seeds_.descriptor != nullptr) {
        const double* seed = seeds_.descriptor + (i0 + i) * m_.descriptor_dim;
        for (int c = 0; c < m_.n1_real; ++c) gradient->g1[i * m_.n1 + c] += static_cast<T>(seed[c]);
      }
      if (seeds_.rot_mat != nullptr) {
        const double* seed = seeds_.rot_mat + (i0 + i) * m_.n2_real * 3;
        for (int c = 0; c < m_.n2_real; ++c)
          for (int x = 0; x < 3; ++x) gradient->rot[(3 * i + x) * m_.n2 + c] += static_cast<T>(seed[3 * c + x]);
      }
    }
  }

 private:
  const Prepared<T>& m_;
  const Head<T>& head_;
  const Frame& frame_;
  double* values_;
  const Seeds& seeds_;
};

}  // namespace

template <class T, template <class> class D>
void Evaluator<T, D>::descriptor(const Frame& frame, int threads, Exchange* exchange, const Outputs& out) {
  DescriptorRows<T> rows(descriptor_.model(), frame, out.array("descriptor"), out.array("rot_mat"));
  descriptor_.begin(frame, threads, {});
  descriptor_.forward(exchange);
  descriptor_.read(rows);
}

template <class T, template <class> class D>
void Evaluator<T, D>::evaluate(const Frame& frame, int threads, Exchange* exchange, AtomVirial atom_virial, const Outputs& out) {
  const bool gradient = quantities_ > 0 && out.array("force") != nullptr;
  descriptor_.begin(frame, threads, task(gradient, atom_virial));
  descriptor_.forward(exchange);
  double* const values = descriptor_.workspace().values.data();
  const auto part = [&](const char* name, int offset) {
    double* array = out.array(name);
    return array != nullptr ? array + offset : nullptr;
  };
  if (!gradient) {
    HeadRows<T> head(*head_, frame, values, 0, nullptr);
    descriptor_.read(head);
  }
  for (int q = 0; gradient && q < quantities_; ++q) {
    HeadRows<T> head(*head_, frame, values, q, frame.weights);
    double* atom_virials = part("atom_virial", 9 * q);
    descriptor_.backward(
        exchange, head,
        {part("force", 3 * q), part("virial", 9 * q), atom_virial == AtomVirial::edge ? atom_virials : nullptr, quantities_});
    if (atom_virial == AtomVirial::deepmd) deepmd_virial(frame, exchange, q, atom_virials);
  }
  write_values(frame, out);
}

/// What is asked for of the atoms' values, and what the frame's are made of them.
template <class T, template <class> class D>
void Evaluator<T, D>::write_values(const Frame& frame, const Outputs& out) {
  const HeadParams& head = descriptor_.model().head;
  const double* const values = descriptor_.workspace().values.data();
  const std::size_t nlocal = static_cast<std::size_t>(frame.edges->nlocal), width = static_cast<std::size_t>(head_->width());
  for (const OutputSpec& spec : outputs_) {
    double* const array = out.array(spec.name);
    if (array == nullptr) continue;
    if (spec.of.empty()) std::copy_n(values, nlocal * width, array);
    if (spec.reduction == Reduction::none) continue;
    std::fill_n(array, width, 0.0);
    for (std::size_t i = 0; i < nlocal; ++i)
      for (std::size_t c = 0; c < width; ++c) array[c] += values[i * width + c];
    if (spec.reduction == Reduction::sum) continue;
    const auto counting = std::count_if(frame.types, frame.types + nlocal, [&](int type) { return head.counts(type); });
    for (std::size_t c = 0; c < width; ++c) array[c] /= static_cast<double>(counting);  // of no atoms: not a number
  }
}

/// deepmd-kit's atomic virial (theory 9.3): the share of dE_a/dX_I goes to the displaced atom, with the arm from
/// the displaced position to the wrapped position of a. Four more backward passes, seeded with the wrapped coordinates and with 1.
/// Only differences of positions matter. In float32 they are taken from the middle of the atoms, since far from zero the passes lose
/// digits; not where others have a part of the atoms, and so another middle.
/// Of one number of several, out (nall, quantities, 9) begins with its first row.
template <class T, template <class> class D>
void Evaluator<T, D>::deepmd_virial(const Frame& frame, Exchange* exchange, int quantity, double* out) {
  const Edges& edges = *frame.edges;
  const std::size_t ne = static_cast<std::size_t>(edges.nedge()), n = static_cast<std::size_t>(edges.nlocal);
  const std::size_t stride = 9 * static_cast<std::size_t>(quantities_);
  const double* x = frame.wrapped;
  for (std::size_t i = 0; i < static_cast<std::size_t>(edges.nall); ++i) std::fill_n(out + stride * i, 9, 0.0);
  if (ne == 0 && exchange == nullptr) return;  // with others, also a rank without edges takes part in every exchange
  Workspace<T>& ws = descriptor_.workspace();
  double* seed = ws.seed.data();
  HeadRows<T> head(*head_, frame, ws.values.data(), quantity, seed);
  double middle[3] = {0, 0, 0};
  if (sizeof(T) < sizeof(double) && exchange == nullptr)
    for (std::size_t l = 0; l < 3; ++l) {
      double low = HUGE_VAL, high = -HUGE_VAL;
      for (std::size_t i = 0; i < n; ++i) {
        low = std::min(low, x[3 * i + l]);
        high = std::max(high, x[3 * i + l]);
      }
      middle[l] = (low + high) / 2;
    }
  for (std::size_t l = 0; l < 4; ++l) {
    for (std::size_t i = 0; i < n; ++i) {
      seed[i] = l < 3 ? x[3 * i + l] - middle[l] : 1.0;
      if (frame.weights != nullptr) seed[i] *= frame.weights[i];
    }
    descriptor_.backward(exchange, head, ws.gamma[l].data());
  }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t e = static_cast<std::size_t>(edges.start[i]); e < static_cast<std::size_t>(edges.start[i + 1]); ++e) {
      const std::size_t j = static_cast<std::size_t>(edges.j[e]);
      for (std::size_t k = 0; k < 3; ++k)
        for (std::size_t l = 0; l < 3; ++l) {
          const double seeded = ws.gamma[l].data()[3 * e + k], plain = ws.gamma[3].data()[3 * e + k];
          const double place = x[3 * i + l] - middle[l];
          out[stride * j + 3 * k + l] += seeded - (place + edges.d[3 * e + l]) * plain;
          out[stride * i + 3 * k + l] -= seeded - place * plain;
        }
    }
}

template <class T, template <class> class D>
void Evaluator<T, D>::vjp(const Frame& frame, int threads, Exchange* exchange, const Seeds& seeds, const Outputs& out) {
  double* atom_virial = out.array("atom_virial");
  descriptor_.begin(frame, threads, task(true, atom_virial != nullptr ? AtomVirial::edge : AtomVirial::none));
  descriptor_.forward(exchange);
  SeededRows<T> sum(descriptor_.model(), *head_, frame, descriptor_.workspace().values.data(), seeds);
  descriptor_.backward(exchange, sum, {out.array("force"), out.array("virial"), atom_virial, 1});
}

template <class T, template <class> class D>
void Evaluator<T, D>::hessian_product(const Frame& frame, int threads, double* product) {
  if (!dual_) dual_ = std::make_unique<D<Dual<T>>>(descriptor_.source());
  const SpectrumHead<Dual<T>> head(descriptor_.model());
  dual_->begin(frame, threads, task(true, AtomVirial::none));
  dual_->forward(nullptr);
  HeadRows<Dual<T>> rows(head, frame, dual_->workspace().values.data(), 0, nullptr);
  // How the forces change; the other sign, and no -0.
  dual_->backward(nullptr, rows, {product, nullptr, nullptr, 1});
  std::transform(product, product + 3 * frame.edges->nlocal, product, [](double x) { return 0.0 - x; });
}

template class Evaluator<double>;
template class Evaluator<float>;
template class Evaluator<double, HybridDescriptor>;
template class Evaluator<float, HybridDescriptor>;

}  // namespace dpa2
