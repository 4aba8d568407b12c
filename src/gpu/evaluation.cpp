#include "gpu/evaluation.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "error.hpp"
#include "gpu/network.hpp"
#include "gpu/planning_loader.hpp"
#include "gpu/stream_queue.hpp"
#include "gpu/table_model.hpp"
#include "neighbors/settings.hpp"

namespace dpa2::gpu {

namespace {

template <class A>
A* piece(void* block, std::int64_t offset) {
  return offset < 0 ? nullptr : reinterpret_cast<A*>(static_cast<unsigned char*>(block) + offset);
}

template <class T>
std::unique_ptr<const Stages<T>> make_stages(const Config& config, const Folded& folded, Loader& loader) {
  if (folded.network) return std::make_unique<Network<T>>(config.base(), folded, loader);
  return std::make_unique<TableModel<T>>(*folded.table, loader);
}

}  // namespace

template <class T>
Evaluation<T>::Evaluation(const Config& config, const Folded& folded, Loader& loader)
    : config_(config), search_(neighbor_settings(config), loader), stages_(make_stages<T>(config, folded, loader)) {}

template <class T>
void Evaluation<T>::check_size(std::int64_t frames, std::int64_t atoms) const {
  const std::int64_t sel = std::max(config_.nsel(), 1), most = std::numeric_limits<int>::max() / sel;
  if (atoms > 0 && (frames > most || atoms > most || frames * atoms > most))
    throw invalid_input(frames == 1 ? text(atoms) : text(frames, " times ", atoms), " atoms with up to ", sel,
                        " neighbours are more than one device can number: evaluate fewer at once");
}

template <class T>
void Evaluation<T>::plan(Program& p, const Input& input, const Request& request, bool whole, GhostRows<T>* ghosts) const {
  const std::size_t frames = static_cast<std::size_t>(input.frames), dim = static_cast<std::size_t>(config_.descriptor_dim());
  const std::size_t n2 = static_cast<std::size_t>(config_.g2_dim());
  // A part without atoms has places, too: null is what nobody asked for.
  const auto doubles = [](bool wanted, std::size_t n) { return wanted ? std::max(n, std::size_t{1}) * sizeof(double) : 0; };
  InputLayout in;
  in.cells = in.layout.add(frames * sizeof(cuda::SearchInput));
  in.boxes = in.layout.add(request.deepmd_virial ? frames * sizeof(cuda::GivenBox) : 0);
  in.host_bytes = in.layout.bytes();
  in.coords = in.layout.add(doubles(true, count_all(input, 3)));
  in.types = in.layout.add(count_all(input, sizeof(int)));
  if (input.ghosts != nullptr) {
    in.ids = in.layout.add(input.ghosts->ids != nullptr ? count_all(input, sizeof(int)) : 0);
    in.pad_type = in.layout.add(sizeof(int));
  }
  if (const Halo* halo = halo_of(input); halo != nullptr) {
    const auto ints = [&](const std::vector<int>& list) { return in.layout.add(std::max(list.size(), std::size_t{1}) * sizeof(int)); };
    in.halo = {ints(halo->send),  ints(halo->receive), ints(halo->images), ints(halo->owners),
               ints(halo->atoms), ints(halo->begin),   ints(halo->sources)};
  }
  in.fparam = in.layout.add(doubles(input.fparam != nullptr, frames * static_cast<std::size_t>(config_.base().fitting.numb_fparam)));
  in.aparam = in.layout.add(doubles(input.aparam != nullptr, count(input, static_cast<std::size_t>(config_.base().fitting.numb_aparam))));
  in.weights = in.layout.add(doubles(input.weights != nullptr, count(input, 1)));
  in.seed_head = in.layout.add(doubles(input.seed_head != nullptr, count(input, width())));
  in.seed_descriptor = in.layout.add(doubles(input.seed_descriptor != nullptr, count(input, dim)));
  in.seed_rot_mat = in.layout.add(doubles(input.seed_rot_mat != nullptr, count(input, 3 * n2)));
  OutputLayout out;
  out.status = out.layout.add(sizeof(cuda::SearchStatus) + frames * sizeof(cuda::SystemStatus));
  out.status_bytes = out.layout.bytes();
  const bool forces = request.forces || request.vjp;
  const std::size_t each = components(request);
  out.value = out.layout.add(doubles(request.values && shape().total, frames * width()));
  out.atom_value = out.layout.add(doubles(request.values, count(input, width())));
  out.force = out.layout.add(doubles(forces, count_all(input, 3 * each)));
  out.virial = out.layout.add(doubles(forces, 9 * frames * each));
  out.atom_virial = out.layout.add(doubles(request.atom_virial || request.deepmd_virial, count_all(input, 9 * each)));
  out.descriptor = out.layout.add(doubles(request.descriptor, count(input, dim)));
  out.rot_mat = out.layout.add(doubles(request.rot_mat, count(input, 3 * n2)));
  p.in = in;
  p.out = out;
  p.plan = Plan();
  p.graph.reset();
  p.runs = 0;
  PlanningQueue queue(p.plan);
  // Places to point to, for null is absent; nothing reads them.
  const Frame frame = enqueue_search(queue, p, pointer(Plan::alignment), pointer(Plan::alignment));
  if (whole) enqueue_network(queue, p, frame, request, pointer(Plan::alignment), pointer(Plan::alignment), ghosts);
  p.plan.place();
  p.launches = queue.launches();
  p.planned = true;
}

template <class T>
Frame Evaluation<T>::enqueue_search(Queue& queue, const Program& p, void* in, void* out) const {
  Frame frame;
  SearchBuffers buffers;
  buffers.extent = extent_of(p.key);
  buffers.open = p.key.pbc != 7;
  buffers.centres_of_edges = (p.key.request & ProgramKey::deepmd_virial) != 0;
  buffers.coords = piece<const double>(in, p.in.coords);
  buffers.types = piece<const int>(in, p.in.types);
  buffers.ids = piece<const int>(in, p.in.ids);
  buffers.input = piece<const cuda::SearchInput>(in, p.in.cells);
  auto* const status = piece<cuda::SearchStatus>(out, p.out.status);
  search_.enqueue(queue, buffers, p.capacity, frame, status, reinterpret_cast<cuda::SystemStatus*>(status + 1));
  if (p.in.pad_type >= 0) frame.pad_types = piece<const int>(in, p.in.pad_type);
  return frame;
}

template <class T>
HaloLists Evaluation<T>::halo_lists(const Program& p, void* in) const {
  const auto list = [&](std::int64_t offset) { return piece<const int>(in, offset); };
  const auto& at = p.in.halo;
  return {list(at.send), list(at.receive), list(at.images), list(at.owners), list(at.atoms), list(at.begin), list(at.sources)};
}

template <class T>
void Evaluation<T>::enqueue_network(Queue& queue, const Program& p, const Frame& frame, const Request& request, void* in, void* out,
                                    GhostRows<T>* ghosts) const {
  Parameters given;
  given.coords = piece<const double>(in, p.in.coords);
  given.boxes = piece<const cuda::GivenBox>(in, p.in.boxes);
  given.fparam = piece<const double>(in, p.in.fparam);
  given.aparam = piece<const double>(in, p.in.aparam);
  given.weights = piece<const double>(in, p.in.weights);
  given.seed_head = piece<const double>(in, p.in.seed_head);
  given.seed_descriptor = piece<const double>(in, p.in.seed_descriptor);
  given.seed_rot_mat = piece<const double>(in, p.in.seed_rot_mat);
  Output results;
  results.value = piece<double>(out, p.out.value);
  results.atom_value = piece<double>(out, p.out.atom_value);
  results.force = piece<double>(out, p.out.force);
  results.virial = piece<double>(out, p.out.virial);
  results.atom_virial = piece<double>(out, p.out.atom_virial);
  results.descriptor = piece<double>(out, p.out.descriptor);
  results.rot_mat = piece<double>(out, p.out.rot_mat);
  stages_->enqueue(queue, frame, request, given, results, ghosts);
}

// ------------------------------------------------------------------------------------------------ memory

template <class T>
MemoryUse Evaluation<T>::memory(const Expected& expected) const {
  MemoryUse use;
  if (expected.atoms == 0) return use;
  check_size(1, expected.atoms);
  // Places that are not null, for what this model takes.
  const double* const given = static_cast<const double*>(pointer(Plan::alignment));
  Input input;
  input.atoms = static_cast<int>(expected.atoms);
  input.coords = given;
  input.types = static_cast<const int*>(pointer(Plan::alignment));
  input.pbc = {true, true, true};
  const FittingConfig& fitting = config_.base().fitting;
  if (fitting.numb_fparam > 0) input.fparam = given;
  if (fitting.numb_aparam > 0) input.aparam = given;
  if (expected.weighted) input.weights = given;
  Program p;
  p.key = key_of(input, expected.request);
  const auto [lists, whole] = search_.expected(extent_of(p.key), expected.neighbors);
  // First the lists alone (EngineOf::prove), then everything in the same memory.
  for (const bool all : {false, true}) {
    p.capacity = all ? whole : lists;
    plan(p, input, expected.request, all, nullptr);
    use.slab = std::max(use.slab, static_cast<std::int64_t>(p.plan.bytes()));
  }
  use.in = static_cast<std::int64_t>(p.in.layout.bytes());
  use.out = static_cast<std::int64_t>(p.out.layout.bytes());
  for (const std::size_t k : p.plan.peak()) {
    const Plan::Piece& piece = p.plan.pieces()[k];
    const std::int64_t bytes = static_cast<std::int64_t>(Plan::padded(piece.bytes));
    const auto same = std::find_if(use.pieces.begin(), use.pieces.end(), [&](const auto& known) { return known.name == piece.name; });
    if (same == use.pieces.end())
      use.pieces.push_back({piece.name, bytes});
    else
      same->bytes += bytes;
  }
  return use;
}

namespace {

template <class T>
class PlannerOf final : public Planner {
 public:
  PlannerOf(const Config& config, const Folded& folded)
      : loader_(sizeof(T) == 4 ? "float" : "double"), evaluation_(config, folded, loader_) {}
  [[nodiscard]] MemoryUse memory(const Expected& expected) const override {
    MemoryUse use = evaluation_.memory(expected);
    use.constants = loader_.bytes();
    return use;
  }
  [[nodiscard]] std::vector<NeededKernel> kernels() const override { return loader_.kernels(); }

 private:
  PlanningLoader loader_;
  Evaluation<T> evaluation_;
  HaloKernels<T> halo_{loader_};  // which engines load when they need them
};

}  // namespace

std::unique_ptr<Planner> make_planner(const Config& config, const Folded& folded, const std::string& precision) {
  if (precision == "float32") return std::make_unique<PlannerOf<float>>(config, folded);
  return std::make_unique<PlannerOf<double>>(config, folded);
}

template class Evaluation<float>;
template class Evaluation<double>;

}  // namespace dpa2::gpu
