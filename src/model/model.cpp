#include "model/model.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

#include "error.hpp"

namespace dpa2 {

/// One evaluation's memory.
struct Model::Session {
  explicit Session(const Model& model) {
    if (model.f64_) f64 = std::make_unique<Evaluator<double>>(*model.f64_);
    if (model.f32_) f32 = std::make_unique<Evaluator<float>>(*model.f32_);
  }
  NeighborBuilder builder;
  Edges edges;
  std::vector<double> wrapped;
  std::unique_ptr<Evaluator<double>> f64;
  std::unique_ptr<Evaluator<float>> f32;
};

/// Sessions that wait for the next evaluation.
struct Model::Pool {
  std::mutex mutex;
  std::vector<std::unique_ptr<Session>> idle;
};

NeighborSettings neighbor_settings(const Config& c) {
  NeighborSettings s;
  s.repinit = {c.repinit.rcut, c.repinit.nsel};
  s.three = {c.repinit.three_body_rcut, c.repinit.three_body_sel};
  s.rep = {c.repformer.rcut, c.repformer.nsel};
  s.use_three = c.repinit.use_three_body;
  s.env_protection = c.env_protection;
  s.ntypes = c.ntypes();
  const auto table = [&](const std::vector<std::pair<int, int>>& pairs) {
    std::vector<char> t;
    if (pairs.empty()) return t;
    const std::size_t n = static_cast<std::size_t>(s.ntypes);
    t.assign(n * n, 0);
    for (const auto& [a, b] : pairs) {
      if (a < 0 || b < 0 || a >= s.ntypes || b >= s.ntypes) continue;
      t[static_cast<std::size_t>(a) * n + static_cast<std::size_t>(b)] = 1;
      t[static_cast<std::size_t>(b) * n + static_cast<std::size_t>(a)] = 1;
    }
    return t;
  };
  s.pair_excluded = table(c.pair_exclude_types);
  s.descr_excluded = table(c.exclude_types);
  return s;
}

namespace {

/// x moved into the cell along its periodic directions.
Vec3 wrap(const Box& box, const Vec3& x) {
  if (box.open()) return x;
  Vec3 f = box.fractional(x);
  for (std::size_t k = 0; k < 3; ++k)
    if (box.periodic()[k]) f[k] -= std::floor(f[k]);
  return box.cartesian(f);
}

}  // namespace

Model::Model(Config config, const Weights& weights, const std::string& precision)
    : config_(std::move(config)),
      precision_(precision.empty() ? config_.precision : precision),
      settings_(dpa2::neighbor_settings(config_)),
      pool_(std::make_unique<Pool>()) {
  check_weights(config_, weights);
  if (precision_ == "float64")
    f64_ = std::make_unique<Prepared<double>>(config_, weights);
  else if (precision_ == "float32")
    f32_ = std::make_unique<Prepared<float>>(config_, weights);
  else
    throw invalid_input("precision must be 'float64' or 'float32', not '", precision_, "'");
}

Model::~Model() = default;

template <class F>
void Model::run(const Structure& structure, int threads, bool wrapped, std::vector<Overflow>& overflow, F f) const {
  std::unique_ptr<Session> session;
  {
    const std::lock_guard<std::mutex> lock(pool_->mutex);
    if (!pool_->idle.empty()) {
      session = std::move(pool_->idle.back());
      pool_->idle.pop_back();
    }
  }
  if (!session) session = std::make_unique<Session>(*this);
  Session& s = *session;
  s.builder.build(structure.coords, structure.types, structure.natoms, structure.box, settings_, threads, s.edges);
  overflow = s.edges.overflow;
  Frame frame;
  frame.edges = &s.edges;
  frame.types = structure.types;
  frame.fparam = structure.fparam;
  frame.aparam = structure.aparam;
  frame.pad_type = structure.natoms > 0 ? structure.types[0] : 0;
  if (wrapped) {
    s.wrapped.resize(3 * static_cast<std::size_t>(structure.natoms));
    for (std::size_t i = 0; i < s.wrapped.size(); i += 3) {
      const Vec3 x = wrap(structure.box, {structure.coords[i], structure.coords[i + 1], structure.coords[i + 2]});
      std::copy(x.begin(), x.end(), s.wrapped.begin() + static_cast<std::ptrdiff_t>(i));
    }
    frame.wrapped = s.wrapped.data();
  }
  f(s, frame);
  // An exception drops the session: its buffers may be half filled.
  const std::lock_guard<std::mutex> lock(pool_->mutex);
  pool_->idle.push_back(std::move(session));
}

void Model::evaluate(const Structure& structure, AtomVirial atom_virial, int threads, Outputs& out, std::vector<Overflow>& overflow) const {
  if (config_.fitting.numb_fparam > 0 && structure.fparam == nullptr && !config_.fitting.default_fparam)
    throw invalid_input("the model needs fparam (", config_.fitting.numb_fparam, " values per frame) and has no default");
  if (config_.fitting.numb_aparam > 0 && !config_.fitting.use_aparam_as_mask && structure.aparam == nullptr)
    throw invalid_input("the model needs aparam (", config_.fitting.numb_aparam, " values per atom)");
  run(structure, threads, atom_virial == AtomVirial::deepmd, overflow, [&](Session& s, const Frame& frame) {
    if (s.f64)
      s.f64->evaluate(frame, threads, nullptr, atom_virial, out);
    else
      s.f32->evaluate(frame, threads, nullptr, atom_virial, out);
  });
}

void Model::descriptor(const Structure& structure, int threads, Outputs& out, std::vector<Overflow>& overflow) const {
  run(structure, threads, false, overflow, [&](Session& s, const Frame& frame) {
    if (s.f64)
      s.f64->descriptor(frame, threads, nullptr, out);
    else
      s.f32->descriptor(frame, threads, nullptr, out);
  });
}

}  // namespace dpa2
