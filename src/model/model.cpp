#include "model/model.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

#include "error.hpp"
#include "fold/folded.hpp"
#include "graph/count.hpp"
#include "graph/series.hpp"
#include "model/device.hpp"
#include "neighbors/order.hpp"
#include "threads.hpp"

namespace dpa2 {

AnyEvaluator::AnyEvaluator(const Model& model) {
  if (model.gpu_) throw internal_error("an evaluator of the CPU for a model on ", model.device());
  const Config& network = model.config_.base();
  const auto on = [&](const auto& prepared) {
    using T = typename std::decay_t<decltype(prepared)>::Scalar;
    if (model.share_)
      evaluator_ = std::make_unique<ZblEvaluator<T>>(network, prepared, *model.table_, *model.share_);
    else
      evaluator_ = std::make_unique<Evaluator<T>>(network, prepared);
  };
  if (model.hybrid64_)
    evaluator_ = std::make_unique<Evaluator<double, HybridDescriptor>>(network, *model.hybrid64_);
  else if (model.hybrid32_)
    evaluator_ = std::make_unique<Evaluator<float, HybridDescriptor>>(network, *model.hybrid32_);
  else if (model.f64_)
    on(*model.f64_);
  else if (model.f32_)
    on(*model.f32_);
  else if (model.table_)
    evaluator_ = std::make_unique<TableEvaluator>(*model.table_);
  else
    throw internal_error("an evaluator of a model that is made of others");
}

/// One evaluation's memory.
struct Model::Session {
  explicit Session(const Model& model) : evaluator(model) {
    edges.keep_image = pairs.keep_image = false;
    for (NeighborBuilder* b : {&builder, &pair_builder}) b->set_guard([this](std::int64_t bytes) { require_memory(bytes, natoms); });
  }
  Session(const Session&) = delete;  // the guard points to this one
  Session& operator=(const Session&) = delete;

  /// The atoms in another order: copies, valid until the next call.
  struct Ordered {
    SpatialOrder order;
    std::vector<double> coords;
    std::vector<int> types;
    Structure of(const Structure& structure) {
      if (!order.active()) return structure;
      Structure s = structure;
      coords.resize(3 * static_cast<std::size_t>(s.natoms));
      types.resize(static_cast<std::size_t>(s.natoms));
      order.gather(coords.data(), structure.coords, 3);
      order.gather(types.data(), structure.types, 1);
      s.coords = coords.data();
      s.types = types.data();
      return s;
    }
  };
  /// Whether the candidates of an earlier step hold for the structure: said once per step, `candidates_hold` remembers it.
  bool look(const Structure& structure, const NeighborSettings& settings) {
    candidates_hold = false;
    if (listed.order.active() && listed.order.natoms() != structure.natoms) return false;
    as_listed = listed.of(structure);
    return candidates_hold = builder.holds(as_listed.coords, as_listed.types, as_listed.natoms, as_listed.box, settings);
  }
  /// The lists from the candidates, of the atoms as they are ordered now.
  bool refresh(const NeighborSettings& settings, int threads) {
    const Structure& s = as_listed;
    const int *then = listed.order.atoms(), *today = now.order.atoms(), *atoms = nullptr;
    if (then != nullptr && !std::equal(then, then + s.natoms, today)) {
      const std::size_t n = static_cast<std::size_t>(s.natoms);
      place.resize(n);
      rows.resize(n);
      for (int k = 0; k < s.natoms; ++k) place[static_cast<std::size_t>(then[k])] = k;
      for (std::size_t k = 0; k < n; ++k) rows[k] = place[static_cast<std::size_t>(today[k])];
      atoms = rows.data();
    }
    return builder.refresh(s.coords, s.types, s.natoms, s.box, settings, atoms, threads, edges);
  }

  int natoms = 0;
  Ordered now, listed;  ///< for this step, and when the candidates were looked for
  Structure as_listed;  ///< this step's structure in the order of the candidates
  bool candidates_hold = false;
  std::vector<int> place, rows;
  std::vector<double> weights, velocity, aparam, head_seeds, descriptor_seeds, rot_mat_seeds;
  NeighborBuilder builder, pair_builder;
  Edges edges, pairs;
  std::vector<double> wrapped;
  AnyEvaluator evaluator;
};

/// Sessions that wait for the next evaluation.
struct Model::Pool {
  std::mutex mutex;
  std::vector<std::unique_ptr<Session>> idle;
};

std::vector<OutputSpec> model_outputs(const Config& config) {
  std::vector<OutputSpec> outputs = head_outputs(config);
  // The first four are outputs and their company; the others are what a structure is made of, in files that hold both.
  if (config.type == Combination::none && config.fitting.type == FittingType::property)
    for (const char* taken : {"descriptor", "rot_mat", "mask", "remarks", "force", "virial", "atom_virial", "coord", "box", "type", "types",
                              "natoms", "fparam", "aparam", "real_atom_types"})
      if (config.fitting.property_name == taken)
        throw unsupported("fitting_net.property_name is '", config.fitting.property_name, "', but '", taken,
                          "' has a meaning of its own: give the property another name");
  outputs.push_back({"descriptor", "", {config.descriptor_dim()}, true, Reduction::none, "", false});
  outputs.push_back({"rot_mat", "", {config.g2_dim(), 3}, true, Reduction::none, "", false});
  return outputs;
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

/// Throws invalid_input for variables that make no sense: before an evaluation relies on them.
void check_environment() {
  static_cast<void>(memory_limit());
  static_cast<void>(series_wanted());
}

}  // namespace

Model::Model(Config config, Weights weights, const std::string& precision, double skin, bool values_checked, const std::string& device,
             gpu::Hooks hooks)
    : config_(std::move(config)),
      precision_(precision.empty() ? config_.precision : precision),
      device_(device_name(device_number(device))),
      outputs_(model_outputs(config_)),
      settings_(config_.type == Combination::linear || config_.type == Combination::spin ? NeighborSettings{}
                                                                                         : dpa2::neighbor_settings(config_)),
      pair_settings_(dpa2::pair_settings(config_)),
      skin_(skin),
      pool_(std::make_unique<Pool>()) {
  if (!(skin >= 0.0 && skin <= config_.rcut()))
    throw invalid_input("skin must be between 0 and the cutoff of the model, ", config_.rcut(), " angstrom, not ", skin);
  check_environment();
  check_weights(config_, weights, !values_checked);
  if (precision_ != "float64" && precision_ != "float32")
    throw invalid_input("precision must be 'float64' or 'float32', not '", precision_, "'");
  const int number = device_number(device);
  if (config_.type == Combination::linear) {
    linear_ = std::make_unique<LinearCombination>(config_, std::move(weights), precision_, skin_, device, hooks);
    return;
  }
  if (config_.type == Combination::spin) {
    if (number >= 0) throw unsupported("spin models are evaluated on the CPU only: leave the device out, or let it be 'cpu'");
    spin_ = std::make_unique<SpinModel>(config_, std::move(weights), precision_, skin_);
    return;
  }
  if (number >= 0 && config_.hybrid())
    throw unsupported(
        "a model of a hybrid descriptor (descriptor.type 'hybrid') is evaluated on the CPU only: load it with device=\"cpu\"");
  Folded folded = fold(config_, std::move(weights));
  if (number < 0) {
    table_ = std::move(folded.table);
    share_ = std::move(folded.share);
  }
  const Config& network = config_.base();
  if (number >= 0 && pair_settings_)
    throw unsupported("a zbl model whose descriptor excludes pairs of types (descriptor.exclude_types) is evaluated on the CPU only");
  if (number >= 0) {
    if (folded.network && precision_ == "float64") add_series<double>(network, folded.descriptor);
    if (folded.network && precision_ == "float32") add_series<float>(network, folded.descriptor);
  }
  if (number >= 0 && hooks.plan_only)
    planner_ = gpu::make_planner(config_, folded, precision_);
  else if (number >= 0)
    gpu_ = gpu::make_engine(config_, folded, precision_, number, std::move(hooks));
  else if (config_.hybrid() && precision_ == "float64")
    hybrid64_ = std::make_unique<PreparedHybrid<double>>(config_, std::move(folded));
  else if (config_.hybrid())
    hybrid32_ = std::make_unique<PreparedHybrid<float>>(config_, std::move(folded));
  else if (folded.network && precision_ == "float64")
    f64_ = std::make_unique<Prepared<double>>(network, std::move(folded));
  else if (folded.network)
    f32_ = std::make_unique<Prepared<float>>(network, std::move(folded));
}

Model::~Model() = default;

/// A session that waits, or a new one. With a skin it is the one whose candidates hold for the structure, if there is one:
/// trajectories that take turns find their own again, and a list is never used for a structure that it does not fit.
std::unique_ptr<Model::Session> Model::take_session(const Structure& structure) const {
  std::unique_ptr<Session> session;
  const std::lock_guard<std::mutex> lock(pool_->mutex);
  auto& idle = pool_->idle;
  if (idle.empty()) return session;
  auto at = idle.end() - 1;
  if (skin_ > 0.0) {
    const auto found =
        std::find_if(idle.begin(), idle.end(), [&](const std::unique_ptr<Session>& s) { return s->look(structure, settings_); });
    if (found != idle.end()) at = found;
  }
  session = std::move(*at);
  idle.erase(at);
  return session;
}

template <class F>
void Model::run(const Structure& structure, const Seeds& seeds, int threads, bool gradient, AtomVirial atom_virial, Remarks& remarks,
                const Results& results, F f) const {
  threads = checked_threads(threads);
  std::unique_ptr<Session> session = take_session(structure);
  if (!session) session = std::make_unique<Session>(*this);
  Session& s = *session;
  s.natoms = structure.natoms;
  s.evaluator.with([&](auto& evaluator) { evaluator.require(structure.natoms, gradient, atom_virial); });
  NeighborBuilder& builder = s.builder;
  SpatialOrder& order = s.now.order;
  check_atoms(structure.coords, structure.types, structure.natoms, settings_.ntypes, nullptr);  // the order wants finite numbers
  // Chosen from the atoms of this step alone: sums, and with them the last bits, do not depend on steps before.
  if (structure.natoms < SpatialOrder::smallest)
    order.clear();
  else
    order.choose(structure.coords, structure.natoms, structure.box, settings_.repformer.rcut);
  const Structure now = s.now.of(structure);
  if (skin_ == 0.0) {
    builder.set_ids(order.atoms());
    builder.build(now.coords, now.types, now.natoms, now.box, settings_, threads, s.edges);
  } else {
    if (!s.candidates_hold) {
      s.listed.order.copy(order);
      builder.set_ids(s.listed.order.atoms());
      builder.build_candidates(now.coords, now.types, now.natoms, now.box, settings_, skin_, threads);
      s.as_listed = now;
    }
    if (!s.refresh(settings_, threads)) throw internal_error("new neighbour candidates do not fit the structure that they were made from");
  }
  if (pair_settings_) {
    s.pair_builder.set_ids(order.atoms());
    s.pair_builder.build(now.coords, now.types, now.natoms, now.box, *pair_settings_, threads, s.pairs);
  }
  remarks.overflow = s.edges.overflow;
  remarks.closest = s.edges.closest;
  Frame frame;
  frame.edges = &s.edges;
  if (pair_settings_) frame.pairs = &s.pairs;
  frame.types = now.types;
  frame.ids = order.atoms();
  frame.fparam = structure.fparam;
  frame.aparam = structure.aparam;
  Seeds ordered = seeds;
  const auto arrange = [&](const double*& rows, int width, std::vector<double>& memory) {
    if (!order.active() || rows == nullptr) return;
    memory.resize(static_cast<std::size_t>(structure.natoms) * static_cast<std::size_t>(width));
    order.gather(memory.data(), rows, width);
    rows = memory.data();
  };
  frame.weights = structure.weights;
  arrange(frame.weights, 1, s.weights);
  frame.velocity = structure.velocity;
  arrange(frame.velocity, 3, s.velocity);
  arrange(frame.aparam, config_.parameters().aparam, s.aparam);
  arrange(ordered.head, atom_output(outputs_).size(), s.head_seeds);
  arrange(ordered.descriptor, config_.descriptor_dim(), s.descriptor_seeds);
  arrange(ordered.rot_mat, 3 * config_.g2_dim(), s.rot_mat_seeds);
  frame.pad_type = structure.natoms > 0 ? structure.types[0] : 0;
  if (atom_virial == AtomVirial::deepmd) {
    s.wrapped.resize(3 * static_cast<std::size_t>(structure.natoms));
    for (std::size_t i = 0; i < s.wrapped.size(); i += 3) {
      const Vec3 x = wrap(structure.box, {now.coords[i], now.coords[i + 1], now.coords[i + 2]});
      std::copy(x.begin(), x.end(), s.wrapped.begin() + static_cast<std::ptrdiff_t>(i));
    }
    frame.wrapped = s.wrapped.data();
  }
  s.evaluator.with([&](auto& evaluator) {
    f(evaluator, frame, ordered, threads);
    remarks.clamped = evaluator.clamped(order.atoms());
    evaluator.remark(frame, remarks);
  });
  if (order.active())
    for (const Rows& r : results)
      if (r.data != nullptr) order.restore(r.data, r.width);
  // An exception drops the session: its buffers may be half filled.
  const std::lock_guard<std::mutex> lock(pool_->mutex);
  pool_->idle.push_back(std::move(session));
}

double Model::least_distance() const {
  constexpr double unknown = 0.5;  // angstrom: shorter than any bond, longer than bonds in nanometres
  return knows_least_distance() ? 0.5 * *config_.min_nbor_dist : unknown;
}

bool Model::counts(int type) const noexcept {
  const std::vector<int>& excluded = config_.atom_exclude_types;
  return type >= 0 && std::find(excluded.begin(), excluded.end(), type) == excluded.end();
}

void Model::check_parameters(bool has_fparam, bool has_aparam) const {
  const Parameters p = config_.parameters();
  if (p.fparam > 0 && !has_fparam && !p.default_fparam)
    throw invalid_input("the model needs fparam (", p.fparam, " values per frame) and has no default");
  if (p.aparam_needed && !has_aparam) throw invalid_input("the model needs aparam (", p.aparam, " values per atom)");
}

int Model::exchange_width() const noexcept {
  if (spin_) return 2 * spin_->network()->exchange_width();
  int widest = hybrid64_   ? hybrid64_->widest()
               : hybrid32_ ? hybrid32_->widest()
               : f64_      ? f64_->n1
               : f32_      ? f32_->n1
               : gpu_      ? config_.base().repformer.g1_dim
                           : 0;
  if (linear_)
    for (const LinearCombination::Part& part : linear_->parts()) widest = std::max(widest, part.model->exchange_width());
  return widest;
}

void Model::evaluate(const Structure& structure, AtomVirial atom_virial, int threads, const Outputs& out, Remarks& remarks) const {
  if (spin_) return spin_->evaluate(structure, atom_virial, threads, out, remarks);
  if (linear_) {
    const int n = structure.natoms;
    check_atoms(structure.coords, structure.types, n, config_.ntypes(), nullptr);
    return linear_->evaluate(
        n, n, structure.types, structure.weights, out, remarks,
        [&](const LinearCombination::Part& part, const int* types, const double* weights, const Outputs& own, Remarks& found) {
          Structure s = structure;
          s.types = types;
          s.weights = weights;
          part.model->evaluate(s, atom_virial, threads, own, found);
        });
  }
  if (gpu_) {
    gpu::Request request;
    request.forces = out.array("force") != nullptr;
    request.atom_virial = atom_virial == AtomVirial::edge;
    request.deepmd_virial = atom_virial == AtomVirial::deepmd;
    return on_gpu(structure, {}, request, out, remarks);
  }
  check_parameters(structure.fparam != nullptr, structure.aparam != nullptr || structure.natoms == 0);
  Results results{};
  std::size_t found = 0;
  for (const OutputSpec& spec : outputs_) {
    const bool left_out = spec.derivative() && spec.name == "atom_virial" && atom_virial == AtomVirial::none;
    if (spec.per_atom && !of_descriptor(spec) && !left_out) results.at(found++) = {out.array(spec.name), spec.size()};
  }
  run(structure, {}, threads, out.array("force") != nullptr, atom_virial, remarks, results,
      [&](auto& evaluator, const Frame& frame, const Seeds&, int n) { evaluator.evaluate(frame, n, nullptr, atom_virial, out); });
}

void Model::descriptor(const Structure& structure, int threads, const Outputs& out, Remarks& remarks) const {
  if (spin_) return spin_->descriptor(structure, threads, out, remarks);
  if (linear_) {
    check_atoms(structure.coords, structure.types, structure.natoms, config_.ntypes(), nullptr);
    const std::vector<int> types = LinearCombination::types_of(linear_->base(), structure.types, structure.natoms);
    Structure s = structure;
    s.types = types.data();
    return linear_->base().model->descriptor(s, threads, out, remarks);
  }
  if (gpu_) {
    gpu::Request request;
    request.values = false;
    request.descriptor = out.array("descriptor") != nullptr;
    request.rot_mat = out.array("rot_mat") != nullptr;
    return on_gpu(structure, {}, request, out, remarks);
  }
  const Results results{{{out.array("descriptor"), config_.descriptor_dim()}, {out.array("rot_mat"), 3 * config_.g2_dim()}, {}}};
  run(structure, {}, threads, false, AtomVirial::none, remarks, results,
      [&](auto& evaluator, const Frame& frame, const Seeds&, int n) { evaluator.descriptor(frame, n, nullptr, out); });
}

void Model::vjp(const Structure& structure, const Seeds& seeds, int threads, const Outputs& out, Remarks& remarks) const {
  if (spin_) throw unsupported(no_weighted_sums);
  if (linear_) {
    const int n = structure.natoms;
    check_atoms(structure.coords, structure.types, n, config_.ntypes(), nullptr);
    return linear_->vjp(
        n, n, structure.types, seeds, out, remarks,
        [&](const LinearCombination::Part& part, const int* types, const Seeds& own_seeds, const Outputs& own, Remarks& found) {
          Structure s = structure;
          s.types = types;
          part.model->vjp(s, own_seeds, threads, own, found);
        });
  }
  if (gpu_) {
    gpu::Request request;
    request.values = false;
    request.forces = request.vjp = true;
    return on_gpu(structure, seeds, request, out, remarks);
  }
  if (seeds.head != nullptr) check_parameters(structure.fparam != nullptr, structure.aparam != nullptr || structure.natoms == 0);
  const Results results{{{out.array("force"), 3}, {}, {}}};
  run(structure, seeds, threads, true, AtomVirial::none, remarks, results,
      [&](auto& evaluator, const Frame& frame, const Seeds& ordered, int n) { evaluator.vjp(frame, n, nullptr, ordered, out); });
}

void Model::hessian_product(const Structure& structure, int threads, double* product, Remarks& remarks) const {
  if (std::string(kind()) != "energy") throw unsupported("Hessians are those of energies, and this is a ", kind(), " model");
  if (linear_ || table_)
    throw unsupported("the Hessian of a combination of models is not there: take that of its parts, or differences of forces");
  if (gpu_) throw unsupported("Hessians are computed on the CPU, and the model is on ", device_);
  if (config_.repinit_table || config_.three_body_table)
    throw unsupported("the model is compressed, its networks are tables without second derivatives: take the model that it was made from");
  check_parameters(structure.fparam != nullptr, structure.aparam != nullptr || structure.natoms == 0);
  const Results results{{{product, 3}, {}, {}}};
  run(structure, {}, threads, true, AtomVirial::none, remarks, results,
      [&](auto& evaluator, const Frame& frame, const Seeds&, int n) { evaluator.hessian_product(frame, n, product); });
}

namespace {

void check_question(std::int64_t natoms, double neighbors) {
  if (natoms < 0) throw invalid_input("the number of atoms is negative: ", natoms);
  if (!(neighbors >= 0.0) || !std::isfinite(neighbors)) throw invalid_input("the number of neighbours is ", neighbors);
}

}  // namespace

/// How many of the neighbours a part sees.
double Model::neighbors_of(const Model& part, double neighbors) const {
  return neighbors * std::pow(part.config_.rcut() / config_.rcut(), 3);
}

std::vector<gpu::MemoryUse> Model::gpu_memory(std::int64_t natoms, double neighbors, bool gradient, AtomVirial atom_virial,
                                              bool weighted) const {
  check_question(natoms, neighbors);
  std::vector<gpu::MemoryUse> all;
  if (linear_) {  // parts keep their memory while others are evaluated
    for (const LinearCombination::Part& part : linear_->parts())
      for (gpu::MemoryUse& use : part.model->gpu_memory(natoms, neighbors_of(*part.model, neighbors), gradient, atom_virial, true))
        all.push_back(std::move(use));
    return all;
  }
  const gpu::Planner* const planner = gpu_ ? gpu_.get() : planner_.get();
  if (planner == nullptr) throw internal_error("the memory of a GPU of a model on ", device_);
  gpu::Expected expected;
  expected.atoms = natoms;
  expected.neighbors = neighbors;
  expected.weighted = weighted;
  expected.request.forces = gradient && quantities_with_forces(outputs_) > 0;
  expected.request.atom_virial = expected.request.forces && atom_virial == AtomVirial::edge;
  expected.request.deepmd_virial = expected.request.forces && atom_virial == AtomVirial::deepmd;
  all.push_back(planner->memory(expected));
  return all;
}

std::vector<gpu::NeededKernel> Model::gpu_kernels() const {
  std::vector<gpu::NeededKernel> all;
  if (linear_) {
    for (const LinearCombination::Part& part : linear_->parts())
      for (gpu::NeededKernel& kernel : part.model->gpu_kernels()) all.push_back(std::move(kernel));
    return all;
  }
  const gpu::Planner* const planner = gpu_ ? gpu_.get() : planner_.get();
  if (planner == nullptr) throw internal_error("the kernels of a model on ", device_);
  return planner->kernels();
}

std::int64_t Model::memory_estimate(std::int64_t natoms, double neighbors, bool gradient, AtomVirial atom_virial, int threads) const {
  check_question(natoms, neighbors);
  if (spin_) return spin_->memory_estimate(natoms, neighbors, gradient, atom_virial, threads);
  if (device_number(device_) >= 0) {
    std::int64_t bytes = 0;
    for (const gpu::MemoryUse& use : gpu_memory(natoms, neighbors, gradient, atom_virial)) bytes += use.bytes();
    return bytes;
  }
  if (linear_) {  // parts keep their memory while others are evaluated
    Count sum = 0;
    for (const LinearCombination::Part& part : linear_->parts()) {
      const double reached = neighbors_of(*part.model, neighbors);
      sum = sum + part.model->memory_estimate(natoms, reached, gradient, atom_virial, threads);
    }
    return sum.value();
  }
  const double rcut = settings_.repinit.rcut, n = static_cast<double>(natoms), volume = 4.0 / 3.0 * std::acos(-1.0) * rcut * rcut * rcut;
  const auto edges = [&](const ListSpec& list) {
    return Count::of(n * std::min<double>(list.nsel, neighbors * std::pow(list.rcut / rcut, 3))).value();
  };
  MemoryQuestion q;
  q.natoms = natoms;
  q.nedge = edges(settings_.repinit);
  q.nedge_repformer = std::min(q.nedge, edges(settings_.repformer));
  if (skin_ > 0.0) q.candidates = Count::of(n * neighbors * std::pow((rcut + skin_) / rcut, 3)).value();
  if (neighbors > 0.0 && natoms > 0) q.images = std::pow(1.0 + 2.0 * (rcut + skin_) / std::cbrt(n * volume / neighbors), 3);
  q.images = std::min(q.images, 1000.0);
  q.threads = checked_threads(threads);
  q.gradient = gradient;
  q.atom_virial = atom_virial;
  std::int64_t bytes = 0;
  AnyEvaluator(*this).with([&](const auto& evaluator) { bytes = evaluator.memory_estimate(q); });
  return bytes;
}

}  // namespace dpa2
