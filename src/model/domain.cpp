#include "model/domain.hpp"

#include <algorithm>
#include <cstddef>

#include "error.hpp"
#include "model/device.hpp"
#include "threads.hpp"

namespace dpa2 {

void Domain::set_atoms(const DomainAtoms& atoms) {
  if (atoms.nlocal < 0 || atoms.nall < atoms.nlocal) throw invalid_input(atoms.nlocal, " centres among ", atoms.nall, " atoms");
  for (Lists& l : lists_) l.current = false;
  forget_spins();
  atoms_ = {};
  for (std::ptrdiff_t i = 0; i < atoms.nlocal && atoms.numneigh != nullptr; ++i) {
    if (atoms.numneigh[i] < 0) throw invalid_input("atom ", i, " has ", atoms.numneigh[i], " neighbours");
    if (atoms.numneigh[i] > 0 && atoms.firstneigh[i] == nullptr) throw invalid_input("the list of neighbours of atom ", i, " is NULL");
  }
  atoms_ = atoms;
}

void Domain::require_lists() const {
  if (atoms_.nlocal > 0 && atoms_.numneigh == nullptr)
    throw invalid_input("the atoms were set without neighbour lists, which models on the CPU need: numneigh is NULL");
}

/// Rows of ghosts that nobody fills would be read.
void Domain::require_no_ghosts(const Edges& edges) const {
  const auto ghost = std::find_if(edges.j.begin(), edges.j.end(), [&](int j) { return j >= atoms_.nlocal; });
  if (ghost != edges.j.end())
    throw invalid_input("row ", *ghost / rows_of_atom_, " is a ghost and somebody's neighbour, but there is no exchange to fill it");
}

/// The lists that the model wants of these atoms: those of a model before it, if they are the same.
const Edges& Domain::lists(const NeighborSettings& settings, const DomainFrame& frame) {
  Lists* free = nullptr;
  for (Lists& l : lists_) {
    if (!l.current) {
      if (free == nullptr) free = &l;
    } else if (l.settings == settings && std::equal(l.types.begin(), l.types.end(), frame.types)) {
      return l.edges;
    }
  }
  if (free == nullptr) {
    free = &lists_.emplace_back();
    free->edges.keep_image = false;
    free->builder.set_guard([this](std::int64_t bytes) { require_memory(bytes, atoms_.nlocal); });
  }
  free->settings = settings;
  if (atoms_.nall > 0)
    free->types.assign(frame.types, frame.types + atoms_.nall);
  else
    free->types.clear();
  free->builder.set_ids(atoms_.ids);
  free->builder.build_from_list(atoms_.coords, frame.types, atoms_.nlocal, atoms_.nall, atoms_.numneigh, atoms_.firstneigh,
                                atoms_.index_mask, settings, frame.threads, free->edges);
  free->current = true;
  return free->edges;
}

Domain::Work& Domain::work(const std::shared_ptr<const Model>& model) {
  const auto found = std::find_if(work_.begin(), work_.end(), [&](const Work& w) { return w.model == model; });
  if (found != work_.end()) return *found;
  if (model->gpu() != nullptr) return work_.emplace_back(Work{model, nullptr, model->gpu()->another()});
  return work_.emplace_back(Work{model, std::make_unique<AnyEvaluator>(*model), nullptr});
}

template <class F>
void Domain::run(const std::shared_ptr<const Model>& model, const DomainFrame& asked, Remarks& remarks, F f) {
  require_lists();
  DomainFrame domain = asked;
  domain.threads = checked_threads(asked.threads);
  Frame frame;
  frame.edges = &lists(model->neighbor_settings(), domain);
  if (model->pair_settings()) frame.pairs = &lists(*model->pair_settings(), domain);
  if (domain.exchange == nullptr) require_no_ghosts(*frame.edges);
  Work& w = work(model);
  frame.types = domain.types;
  frame.ids = atoms_.ids;
  frame.fparam = domain.fparam;
  frame.aparam = domain.aparam;
  frame.weights = domain.weights;
  frame.pad_type = domain.pad_type;
  remarks.overflow = frame.edges->overflow;
  remarks.closest = frame.edges->closest;
  try {
    w.evaluator->with([&](auto& evaluator) {
      f(evaluator, frame, domain.threads);
      remarks.clamped = evaluator.clamped(atoms_.ids);
      evaluator.remark(frame, remarks);
    });
  } catch (...) {
    work_.remove_if([&](const Work& o) { return o.model == model; });  // its buffers may be half filled
    throw;
  }
}

void Domain::on_gpu(const std::shared_ptr<const Model>& model, const DomainFrame& domain, const gpu::Request& request, const Seeds& seeds,
                    const Outputs& out, Remarks& remarks) {
  static_cast<void>(checked_threads(domain.threads));
  if (const int* ids = atoms_.ids; ids != nullptr)
    if (const int* wrong = std::find_if(ids, ids + atoms_.nall, [](int id) { return id < 0; }); wrong != ids + atoms_.nall)
      throw invalid_input("the number of row ", wrong - ids, " is ", *wrong, ": on a GPU numbers of atoms must not be negative");
  gpu::Ghosts ghosts;
  ghosts.count = atoms_.nall - atoms_.nlocal;
  ghosts.ids = atoms_.ids;
  ghosts.pad_type = std::max(domain.pad_type, 0);
  ghosts.exchange = domain.exchange;
  gpu::Input input;
  input.atoms = atoms_.nlocal;
  input.ghosts = &ghosts;
  input.coords = atoms_.coords;
  input.types = domain.types;
  input.fparam = domain.fparam;
  input.aparam = domain.aparam;
  input.weights = domain.weights;
  input.seed_head = seeds.head;
  input.seed_descriptor = seeds.descriptor;
  input.seed_rot_mat = seeds.rot_mat;
  std::vector<Remarks> found;
  model->evaluate_frames(input, request, gpu_output(request, model->outputs(), out), &found, work(model).engine.get());
  remarks = found.at(0);
}

/// As far as a combination needs them before its parts look.
void Domain::check_types(const Model& model, const DomainFrame& domain) const {
  check_atoms(atoms_.coords, domain.types, atoms_.nall, model.config().ntypes(), atoms_.ids);
}

DomainFrame Domain::of_part(const LinearCombination::Part& part, const DomainFrame& domain, const int* types) {
  DomainFrame f = domain;
  f.types = types;
  if (domain.pad_type >= 0) f.pad_type = part.types[static_cast<std::size_t>(domain.pad_type)];
  return f;
}

void Domain::evaluate(const std::shared_ptr<const Model>& model, const DomainFrame& domain, AtomVirial atom_virial, const Outputs& out,
                      Remarks& remarks) {
  // The wrapped positions that deepmd-kit's kind refers to are the whole system's, not a part's.
  if (atom_virial == AtomVirial::deepmd) throw invalid_input("the atomic virial of deepmd-kit is not defined for a part of a system");
  model->check_parameters(domain.fparam != nullptr, domain.aparam != nullptr || atoms_.nlocal == 0);
  if (model->spin() != nullptr) return evaluate_spins(model, domain, atom_virial, out, remarks);
  if (const LinearCombination* linear = model->linear()) {
    check_types(*model, domain);
    return linear->evaluate(
        atoms_.nlocal, atoms_.nall, domain.types, domain.weights, out, remarks,
        [&](const LinearCombination::Part& part, const int* types, const double* weights, const Outputs& own, Remarks& found) {
          DomainFrame f = of_part(part, domain, types);
          f.weights = weights;
          evaluate(part.model, f, atom_virial, own, found);
        });
  }
  if (model->gpu() != nullptr) {
    gpu::Request request;
    request.forces = out.array("force") != nullptr;
    request.atom_virial = request.forces && atom_virial == AtomVirial::edge;
    return on_gpu(model, domain, request, {}, out, remarks);
  }
  run(model, domain, remarks,
      [&](auto& evaluator, const Frame& frame, int threads) { evaluator.evaluate(frame, threads, domain.exchange, atom_virial, out); });
}

void Domain::descriptor(const std::shared_ptr<const Model>& model, const DomainFrame& domain, const Outputs& out, Remarks& remarks) {
  if (model->spin() != nullptr) return spin_descriptor(model, domain, out, remarks);
  if (const LinearCombination* linear = model->linear()) {
    check_types(*model, domain);
    const std::vector<int> types = LinearCombination::types_of(linear->base(), domain.types, atoms_.nall);
    return descriptor(linear->base().model, of_part(linear->base(), domain, types.data()), out, remarks);
  }
  if (model->gpu() != nullptr) {
    gpu::Request request;
    request.values = false;
    request.descriptor = out.array("descriptor") != nullptr;
    request.rot_mat = out.array("rot_mat") != nullptr;
    return on_gpu(model, domain, request, {}, out, remarks);
  }
  run(model, domain, remarks,
      [&](auto& evaluator, const Frame& frame, int threads) { evaluator.descriptor(frame, threads, domain.exchange, out); });
}

void Domain::vjp(const std::shared_ptr<const Model>& model, const DomainFrame& domain, const Seeds& seeds, const Outputs& out,
                 Remarks& remarks) {
  if (model->spin() != nullptr) throw unsupported(no_weighted_sums);
  if (const LinearCombination* linear = model->linear()) {
    check_types(*model, domain);
    return linear->vjp(atoms_.nlocal, atoms_.nall, domain.types, seeds, out, remarks,
                       [&](const LinearCombination::Part& part, const int* types, const Seeds& own_seeds, const Outputs& own,
                           Remarks& found) { vjp(part.model, of_part(part, domain, types), own_seeds, own, found); });
  }
  if (seeds.head != nullptr) model->check_parameters(domain.fparam != nullptr, domain.aparam != nullptr || atoms_.nlocal == 0);
  if (model->gpu() != nullptr) {
    gpu::Request request;
    request.values = false;
    request.forces = request.vjp = true;
    request.atom_virial = out.array("atom_virial") != nullptr;
    return on_gpu(model, domain, request, seeds, out, remarks);
  }
  run(model, domain, remarks,
      [&](auto& evaluator, const Frame& frame, int threads) { evaluator.vjp(frame, threads, domain.exchange, seeds, out); });
}

}  // namespace dpa2
