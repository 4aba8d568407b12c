#include "gpu/search.hpp"

#include <algorithm>

#include "cuda/bins.hpp"
#include "cuda/candidates.hpp"
#include "cuda/lists.hpp"
#include "cuda/prefix_sums.hpp"

namespace dpa2::gpu {
namespace {

using cuda::SearchInput;
using cuda::SearchStatus;
using cuda::SystemNotes;
using cuda::SystemStatus;

// Nothing in the search is of the model's precision.
const Defines defines{{"real", "double"}};

std::vector<signed char> exclusions(const NeighborSettings& s) {
  std::vector<signed char> mask;
  if (s.pair_excluded.empty() && s.descr_excluded.empty()) return mask;
  mask.assign(static_cast<std::size_t>(s.ntypes) * static_cast<std::size_t>(s.ntypes), 0);
  for (std::size_t k = 0; k < mask.size(); ++k) {
    const bool model = !s.pair_excluded.empty() && s.pair_excluded[k] != 0,
               descriptor = !s.descr_excluded.empty() && s.descr_excluded[k] != 0;
    mask[k] = static_cast<signed char>((model ? 1 : 0) + (descriptor ? 2 : 0));
  }
  return mask;
}

// What must be zero when the kernels start, in one buffer: one order to clear it.
struct Zeroed {
  SearchStatus* notes = nullptr;
  SystemNotes* systems = nullptr;                                                          // (frames)
  unsigned long long *bin_sums = nullptr, *list_sums = nullptr, *incoming_sums = nullptr;  // states of prefix_sums
  int* tickets = nullptr;                                                                  // (3)
  int* bins = nullptr;                                                                     // (frames, bins_per_frame) atoms
  int *to_master = nullptr, *to_repformer = nullptr;                                       // (atoms) incoming edges
};

class Carver {
 public:
  explicit Carver(char* base) : base_(base) {}
  template <class T>
  T* next(std::int64_t count) {
    T* const at = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += (static_cast<std::size_t>(count) * sizeof(T) + 7) / 8 * 8;
    return at;
  }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  char* base_;
  std::size_t bytes_ = 0;
};

Zeroed carve(Carver& from, const SearchExtent& n, int bins, int lists) {
  Zeroed z;
  z.notes = from.next<SearchStatus>(1);
  z.systems = from.next<SystemNotes>(n.frames);
  z.bin_sums = from.next<unsigned long long>(cuda::sum_blocks(bins));
  z.list_sums = from.next<unsigned long long>(static_cast<std::int64_t>(lists) * cuda::sum_blocks(n.centres));
  z.incoming_sums = from.next<unsigned long long>(2LL * cuda::sum_blocks(n.atoms));
  z.tickets = from.next<int>(3);
  z.bins = from.next<int>(bins);
  z.to_master = from.next<int>(n.atoms);
  z.to_repformer = from.next<int>(n.atoms);
  return z;
}

constexpr cuda::SumJob no_job{nullptr, nullptr, nullptr, -1, 0};

List take_starts(Queue& queue, int centres, int most) {
  List list;
  list.start = queue.take<int>("start of a list", centres + 1LL);
  list.most = most;
  return list;
}

List take_list(Queue& queue, int centres, int capacity, int most, bool centres_of_edges) {
  List list = take_starts(queue, centres, most);
  list.j = queue.take<int>("neighbours", capacity);
  if (centres_of_edges) list.centre = queue.take<int>("centres of edges", capacity);
  list.capacity = capacity;
  return list;
}

Incoming take_incoming(Queue& queue, int atoms, int capacity) {
  Incoming incoming;
  incoming.begin = queue.take<int>("start of incoming edges", atoms + 1LL);
  incoming.edges = queue.take<int>("incoming edges", capacity);
  return incoming;
}

// Frame shows constants to the kernels of the model; the search writes them.
template <class T>
T* writable(const T* at) {
  return const_cast<T*>(at);
}

cuda::ListOut out_of(const List& list, int* incoming) { return {writable(list.start), writable(list.j), writable(list.centre), incoming}; }

cuda::IncomingOut out_of(const List& list, const Incoming& incoming, int* items, int* left) {
  return {items, writable(incoming.edges), left, incoming.begin, list.start, list.j};
}

}  // namespace

Search::Search(const NeighborSettings& settings, Loader& loader)
    : settings_(settings),
      extents_(loader.function("bins.cu", "extents", defines)),
      wrap_(loader.function("bins.cu", "wrap_atoms", defines)),
      fill_bins_(loader.function("bins.cu", "fill_bins", defines)),
      sums_(loader.function("prefix_sums.cu", "prefix_sums", defines)),
      find_(loader.function("candidates.cu", "find_neighbors", defines)),
      store_(loader.function("lists.cu", "store_lists", defines)),
      fill_incoming_(loader.function("lists.cu", "fill_incoming", defines)),
      sort_incoming_(loader.function("lists.cu", "sort_incoming", defines)),
      excluded_(loader.uploaded(exclusions(settings))) {}

void Search::enqueue(Queue& queue, const SearchBuffers& in, const Capacity& capacity, Frame& out, SearchStatus* status,
                     SystemStatus* systems) const {
  constexpr int threads = cuda::search_threads, warps = cuda::search_warps;
  const SearchExtent& n = in.extent;
  const int atoms = n.atoms / n.frames, centres = n.centres / n.frames;  // of one frame
  const int bins = n.frames * capacity.bins_per_frame, candidates = capacity.candidates_per_centre;
  const int kept = std::min(candidates, most()), lists = settings_.use_three ? 3 : 2;
  const std::int64_t per_frame = std::max<std::int64_t>(1, blocks_of(atoms, threads));

  Carver size(nullptr);
  (void)carve(size, n, bins, lists);
  char* const zeroed = queue.take<char>("counters of the search", static_cast<std::int64_t>(size.bytes()));
  queue.clear(zeroed, size.bytes());
  Carver carver(zeroed);
  const Zeroed z = carve(carver, n, bins, lists);

  out = {};
  out.atoms = n.atoms;
  out.centres = n.centres;
  out.frames = n.frames;
  out.given_types = in.types;
  out.ids = in.ids;
  out.systems = systems;
  out.failed = status == nullptr ? nullptr : &status->failed;
  out.types = queue.take<int>("types", n.atoms);
  out.pad_types = queue.take<int>("types of padded slots", n.frames);
  out.wrapped = queue.take<double>("wrapped coordinates", 3LL * n.atoms);
  out.pad_repinit = queue.take<int>("padded slots", n.centres);
  out.pad_three = queue.take<int>("padded slots of the three-body block", n.centres);

  int* const shift = queue.take<int>("cells", 3LL * n.atoms);
  int* const bin = queue.take<int>("bins of atoms", n.atoms);
  int* const first = queue.take<int>("start of bins", bins + 1LL);
  int* const sorted = queue.take<int>("atoms by bin", n.atoms);
  auto* const layout = queue.take<cuda::SearchLayout>("layout of bins", n.frames);

  const int frame_blocks = static_cast<int>(per_frame);
  if (in.open)
    queue.launch(extents_, n.frames * per_frame, threads, 0,
                 cuda::ExtentArgs{z.systems, in.coords, in.types, in.input, atoms, frame_blocks, settings_.ntypes, 0});
  cuda::WrapArgs wrap{};
  wrap.wrapped = writable(out.wrapped);
  wrap.shift = shift;
  wrap.bin = bin;
  wrap.count = z.bins;
  wrap.types = writable(out.types);
  wrap.pad_types = writable(out.pad_types);
  wrap.layout = layout;
  wrap.notes = z.notes;
  wrap.systems = z.systems;
  wrap.coords = in.coords;
  wrap.given = in.types;
  wrap.input = in.input;
  wrap.radius = radius();
  wrap.atoms = atoms;
  wrap.blocks = frame_blocks;
  wrap.bins = capacity.bins_per_frame;
  wrap.ntypes = settings_.ntypes;
  queue.launch(wrap_, n.frames * per_frame, threads, 0, wrap);
  queue.launch(sums_, cuda::sum_blocks(bins), cuda::sum_threads, 0,
               cuda::SumArgs{{first, nullptr, z.bins, bins, most_edges}, no_job, no_job, z.bin_sums, z.tickets, nullptr});
  queue.launch(fill_bins_, blocks_of(n.atoms, threads), threads, 0, cuda::FillBinsArgs{sorted, z.bins, bin, first, n.atoms, 0});

  const std::int64_t all_candidates = static_cast<std::int64_t>(n.centres) * candidates;
  const int shared_warps = cuda::candidate_warps(candidates), block_warps = shared_warps > 0 ? shared_warps : warps;
  int* const stored = queue.take<int>("edges of centres", n.centres);
  int* const n_three = queue.take<int>("three-body edges of centres", n.centres);
  int* const n_repformer = queue.take<int>("repformer edges of centres", n.centres);
  double* const nearest = queue.take<double>("nearest distances", n.centres);
  int* const j = queue.take<int>("candidates", all_candidates);
  long long* const code = queue.take<long long>("images of candidates", all_candidates);
  int* const order = queue.take<int>("order of candidates", static_cast<std::int64_t>(n.centres) * kept);
  unsigned long long* const keys = shared_warps > 0 ? nullptr : queue.take<unsigned long long>("distances of candidates", all_candidates);
  cuda::CandidateArgs find{};
  find.stored = stored;
  find.three = n_three;
  find.repformer = n_repformer;
  find.pad_repinit = writable(out.pad_repinit);
  find.pad_three = writable(out.pad_three);
  find.nearest = nearest;
  find.j = j;
  find.code = code;
  find.order = order;
  find.keys = keys;
  find.notes = z.notes;
  find.systems = z.systems;
  find.input = in.input;
  find.layout = layout;
  find.wrapped = out.wrapped;
  find.shift = shift;
  find.bin = bin;
  find.first = first;
  find.sorted = sorted;
  find.types = out.types;
  find.ids = in.ids;
  find.excluded = excluded_;
  find.radius = radius();
  find.tolerance = distance_tolerance;
  find.repformer_rcut = settings_.repformer.rcut;
  find.three_rcut = settings_.three.rcut;
  find.scale = cuda::key_scale(radius(), candidates);
  find.index_bits = cuda::key_index_bits(candidates);
  find.capacity = candidates;
  find.kept = kept;
  find.nsel = settings_.repinit.nsel;
  find.most = most();
  find.repformer_nsel = settings_.repformer.nsel;
  find.three_nsel = three_sel();
  find.use_three = settings_.use_three ? 1 : 0;
  find.coincide = settings_.env_protection == 0.0 ? 1 : 0;
  find.ntypes = settings_.ntypes;
  find.centres = n.centres;
  find.per_system = std::max(1, centres);
  find.bins = capacity.bins_per_frame;
  const std::size_t shared = static_cast<std::size_t>(shared_warps) * static_cast<std::size_t>(candidates) * sizeof(unsigned long long);
  queue.launch(find_, blocks_of(n.centres, block_warps), 32 * block_warps, shared, find);
  queue.release(keys, bin, first, sorted, shift, layout);

  out.master = take_list(queue, n.centres, capacity.master, settings_.repinit.nsel, in.centres_of_edges);
  out.repformer = take_list(queue, n.centres, capacity.repformer, std::min(settings_.repformer.nsel, settings_.repinit.nsel), true);
  if (settings_.use_three) out.three = take_starts(queue, n.centres, std::min(three_sel(), settings_.repinit.nsel));
  out.d = queue.take<double>("displacements", 3LL * capacity.master);
  out.r = queue.take<double>("distances", capacity.master);
  cuda::SumArgs sums{{writable(out.master.start), nullptr, stored, n.centres, capacity.master},
                     {writable(out.repformer.start), nullptr, n_repformer, n.centres, capacity.repformer},
                     no_job,
                     z.list_sums,
                     z.tickets + 1,
                     nullptr};
  if (settings_.use_three) sums.third = {writable(out.three.start), nullptr, n_three, n.centres, most_edges};
  if (z.notes != nullptr) {
    sums.first.total = &z.notes->needed_master;
    sums.second.total = &z.notes->needed_repformer;
    sums.failed = &z.notes->failed;
  }
  queue.launch(sums_, static_cast<std::int64_t>(lists) * cuda::sum_blocks(n.centres), cuda::sum_threads, 0, sums);

  cuda::StoreArgs store{};
  store.master = out_of(out.master, z.to_master);
  store.repformer = out_of(out.repformer, z.to_repformer);
  store.three_start = writable(out.three.start);
  store.d = writable(out.d);
  store.r = writable(out.r);
  store.systems = z.systems;
  store.notes = z.notes;
  store.j = j;
  store.code = code;
  store.order = order;
  store.nearest = nearest;
  store.wrapped = out.wrapped;
  store.ids = in.ids;
  store.input = in.input;
  store.capacity = candidates;
  store.kept = kept;
  store.centres = n.centres;
  store.per_system = std::max(1, centres);
  queue.launch(store_, blocks_of(n.centres, warps), threads, 0, store);
  queue.release(j, code, order, nearest, stored, n_three, n_repformer);

  out.incoming = take_incoming(queue, n.atoms, capacity.master);
  out.repformer_incoming = take_incoming(queue, n.atoms, capacity.repformer);
  int* const items = queue.take<int>("unsorted incoming edges", capacity.master);
  int* const repformer_items = queue.take<int>("unsorted incoming edges of the repformer", capacity.repformer);
  const std::int64_t incoming_blocks = cuda::sum_blocks(n.atoms);
  queue.launch(sums_, 2 * incoming_blocks, cuda::sum_threads, 0,
               cuda::SumArgs{{writable(out.incoming.begin), nullptr, z.to_master, n.atoms, most_edges},
                             {writable(out.repformer_incoming.begin), nullptr, z.to_repformer, n.atoms, most_edges},
                             no_job,
                             z.incoming_sums,
                             z.tickets + 2,
                             nullptr});
  cuda::FillArgs fill{};
  fill.lists.master = out_of(out.master, out.incoming, items, z.to_master);
  fill.lists.repformer = out_of(out.repformer, out.repformer_incoming, repformer_items, z.to_repformer);
  fill.lists.atoms = n.atoms;
  fill.lists.centres = n.centres;
  fill.status = status;
  fill.system_status = systems;
  fill.notes = z.notes;
  fill.systems = z.systems;
  fill.coords = in.coords;
  fill.given = in.types;
  fill.ids = in.ids;
  fill.frames = n.frames;
  fill.per_system = atoms;
  const std::int64_t edges = std::max({capacity.master, capacity.repformer, 1});  // the first block has something to tell
  queue.launch(fill_incoming_, blocks_of(edges, threads), threads, 0, fill);
  queue.launch(sort_incoming_, blocks_of(2LL * n.atoms, warps), threads, 0, fill.lists);
  queue.release(items, repformer_items, zeroed);
}

}  // namespace dpa2::gpu
