#include "gpu/engine_of.hpp"

#include <algorithm>
#include <cstring>

#include "error.hpp"
#include "gpu/stream_queue.hpp"

namespace dpa2::gpu {

namespace {

constexpr std::size_t most_programs = 8;  // sizes that an engine remembers
constexpr int most_attempts = 20;         // capacities grow each time

}  // namespace

template <class T>
EngineOf<T>::EngineOf(const Config& config, const Folded& folded, int device, Hooks hooks)
    : table_begins_(folded.table ? folded.table->grid.rmin : 0.0), device_(Device::open(device)), hooks_(std::move(hooks)) {
  const Device::Use use(*device_);
  const auto loader = std::make_shared<DeviceLoader>(device_, hooks_, sizeof(T) == 4 ? "float" : "double");
  evaluation_ = std::make_shared<Evaluation<T>>(config, folded, *loader);
  loader_ = loader;
  prepare();
}

template <class T>
EngineOf<T>::EngineOf(const EngineOf& model)
    : table_begins_(model.table_begins_),
      device_(model.device_),
      hooks_(model.hooks_),
      loader_(model.loader_),
      evaluation_(model.evaluation_) {
  const Device::Use use(*device_);
  prepare();
}

template <class T>
void EngineOf<T>::prepare() {
  stream_ = std::make_unique<Stream>(device_);
  capture_stream_ = std::make_unique<Stream>(device_);
  last_ = std::make_unique<Event>(device_);
  packed_ = std::make_unique<Event>(device_);
  in_ = std::make_unique<Staging>(device_);
  out_ = std::make_unique<Staging>(device_);
}

template <class T>
EngineOf<T>::~EngineOf() {
  const Device::Use use(*device_, std::nothrow);
  if (use) static_cast<void>(driver().event_wait(last_->handle()));  // nothing is let go of while it is used
}

// ------------------------------------------------------------------------------------------------ what is asked for

template <class T>
void EngineOf<T>::check_input(const Input& input, const Request& request) const {
  if (input.frames < 0 || input.atoms < 0) throw invalid_input("the numbers of systems and atoms must not be negative");
  evaluation_->check_size(input.frames, input.atoms);
  if ((request.atom_virial || request.deepmd_virial) && !request.forces) throw internal_error("atomic virials come with forces");
  if (request.forces && !request.vjp && evaluation_->shape().components == 0) throw internal_error("the model has no forces");
}

template <class T>
void EngineOf<T>::empty(const Input& input, const Request& request, const Output& out) const {
  const Device::Use use(*device_);
  const auto fill = [&](double* at, std::size_t n, unsigned char byte) {
    if (at == nullptr || n == 0) return;
    if (input.on_device)
      gpu::check(driver().fill_bytes(address(at), byte, n * sizeof(double), input.stream), "clearing results");
    else
      std::memset(at, byte, n * sizeof(double));
  };
  const std::size_t frames = static_cast<std::size_t>(input.frames);
  fill(out.value, frames * evaluation_->width(), evaluation_->shape().mean ? 0xff : 0);  // the mean of nothing is not a number
  fill(out.virial, 9 * frames * evaluation_->components(request), 0);
}

template <class T>
void EngineOf<T>::evaluate(const Input& input, const Request& request, const Output& out, std::vector<Remarks>* remarks) {
  check_input(input, request);
  if (remarks != nullptr) remarks->assign(static_cast<std::size_t>(input.frames), {});
  // A part without atoms still has its share in exchanges.
  if (input.ghosts == nullptr && (input.frames == 0 || input.atoms == 0)) return empty(input, request, out);
  std::vector<cuda::SearchInput> cells;
  for (int f = 0; f < input.frames; ++f)
    cells.push_back(
        evaluation_->search().input(input.boxes != nullptr ? input.boxes + 9 * std::size_t(f) : nullptr, input.pbc, input.atoms));
  const Device::Use use(*device_);
  if (halo_of(input) != nullptr && !halo_) {  // most models have no use for these kernels
    halo_loader_ = std::make_unique<DeviceLoader>(device_, hooks_, sizeof(T) == 4 ? "float" : "double");
    halo_ = std::make_unique<HaloKernels<T>>(*halo_loader_);
  }
  int failures = 0;
  while (!attempt({input, request, out, cells, remarks}, failures))
    if (failures > most_attempts) throw internal_error("the neighbour lists of a frame fit into no buffers");
}

template <class T>
void EngineOf<T>::plan(Program& p, const Call& call, bool whole) const {
  if (p.key.halo.sent < 0) return evaluation_->plan(p, call.input, call.request, whole, nullptr);
  PackedRows<T> rows(*halo_, p.key.halo, {}, nullptr);
  evaluation_->plan(p, call.input, call.request, whole, &rows);
}

// False: buffers have to grow, or have grown.
template <class T>
bool EngineOf<T>::attempt(const Call& call, int& failures) {
  const Input& input = call.input;
  bool capturing = false;
  if (input.on_device) {
    int status = 0;
    gpu::check(driver().stream_capturing(input.stream, &status), "asking whether a stream is captured");
    capturing = status != 0;
  }
  Workspace::Sizes wanted, missing;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!capturing) settle(false);
    Program& p = program(call);
    if (!p.planned) plan(p, call, p.proven || input.ghosts != nullptr);
    wanted = Workspace::sizes(p.in.layout.bytes(), p.out.layout.bytes(), p.plan);
    const bool fits = workspace_.fits(wanted);
    if (capturing && !(fits && p.proven))
      throw invalid_input(
          "a stream is captured while the buffers of the model are not made: evaluate the same number of atoms once before");
    missing = workspace_.missing(wanted);
    if (fits) {
      const Handle stream = input.on_device ? input.stream : stream_->handle();
      // A stream of the caller's may have the number of one that is gone, or be another one in each thread.
      if (!capturing && (input.on_device || stream != last_stream_)) last_->block(stream);
      try {
        const bool done = step(p, call, stream, capturing);
        failures += done ? 0 : 1;
        return done;
      } catch (...) {
        // What was queued before may still use the buffers.
        if (!capturing && driver().event_record(last_->handle(), stream) == cu::success) last_stream_ = stream;
        throw;
      }
    }
  }
  // Without the lock: memory may come from Python, which may want this engine.
  Workspace::Pieces pieces;
  try {
    try {
      pieces = Workspace::allocated(missing, device_, hooks_);
    } catch (const Error& error) {
      if (error.status() != Status::out_of_memory || !give_up_memory()) throw;
      missing = wanted;
      pieces = Workspace::allocated(missing, device_, hooks_);
    }
  } catch (const Error& error) {
    if (error.status() != Status::out_of_memory) throw;
    const std::lock_guard<std::mutex> lock(mutex_);
    report_shortage(call, error);
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!workspace_.fits(wanted)) {
      last_->wait();
      for (Program& p : programs_) p.graph.reset();
      workspace_.replace(pieces, missing);
      if (captured_) kept_.push_back(std::move(pieces));
    }
  }
  return false;
}

// Old and new buffers need not be there together, unless a caller's graph uses them.
template <class T>
bool EngineOf<T>::give_up_memory() {
  Workspace old;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (captured_ || workspace_.bytes() == 0) return false;
  last_->wait();
  for (Program& p : programs_) p.graph.reset();
  old = workspace_.taken();
  return true;
}

template <class T>
bool EngineOf<T>::step(Program& p, const Call& call, Handle stream, bool capturing) {
  bring_in(p, call, stream, capturing);
  // Where no other process takes part, a step that does not fit is done again like that of a whole system.
  const bool alone = p.proven && p.key.halo.sent == 0 && p.key.halo.received == 0;
  if (call.input.ghosts != nullptr && !alone) return run_part(p, call, stream);
  if (!p.proven) return prove(p, call, stream);
  run(p, call.request, stream, capturing);
  return call.input.on_device ? device_results(p, call, stream, capturing) : host_results(p, call, stream);
}

template <class T>
void EngineOf<T>::report_shortage(const Call& call, const Error& error) {
  const Program& tried = program(call);
  Program p;  // everything, even where the lists alone did not fit
  p.key = tried.key;
  p.capacity = tried.capacity;
  plan(p, call, true);
  const double atoms = std::max(1.0, static_cast<double>(p.key.frames) * p.key.atoms);
  const double each = static_cast<double>(p.plan.bytes() + p.in.layout.bytes() + p.out.layout.bytes()) / atoms;
  const double free = static_cast<double>(device_->free_bytes()) + static_cast<double>(workspace_.bytes());
  throw out_of_memory("the device has no memory for ", atoms, " atoms, which take ", each * atoms / 1e9, " GB: about ",
                      static_cast<std::int64_t>(0.95 * free / each), " fit; evaluate fewer at once, in float32, or on the CPU (",
                      error.what(), ")");
}

// ------------------------------------------------------------------------------------------------ programs

template <class T>
Program& EngineOf<T>::program(const Call& call) {
  const ProgramKey key = key_of(call.input, call.request);
  auto found = std::find_if(programs_.begin(), programs_.end(), [&](const Program& p) { return p.key == key; });
  if (found == programs_.end()) {
    if (programs_.size() == most_programs) {
      programs_.erase(
          std::min_element(programs_.begin(), programs_.end(), [](const Program& a, const Program& b) { return a.used < b.used; }));
    }
    programs_.emplace_back();
    found = std::prev(programs_.end());
    found->key = key;
    found->capacity =
        key.ghosts < 0 || parts_.master == 0 ? evaluation_->search().first_guess(extent_of(key), call.cells.data()) : part_guess(key);
  }
  found->used = ++clock_;
  return *found;
}

// ------------------------------------------------------------------------------------------------ a step

template <class T>
void EngineOf<T>::run(Program& p, const Request& request, Handle stream, bool capturing) {
  const auto launch_all = [&](Handle on) {
    StreamQueue queue(p.plan, workspace_.places(p.plan), on);
    void *const in = workspace_.at(Workspace::input), *const out = workspace_.at(Workspace::output);
    const Frame frame = evaluation_->enqueue_search(queue, p, in, out);
    if (p.key.halo.sent < 0) return evaluation_->enqueue_network(queue, p, frame, request, in, out, nullptr);
    PackedRows<T> images(*halo_, p.key.halo, evaluation_->halo_lists(p, in), nullptr);
    evaluation_->enqueue_network(queue, p, frame, request, in, out, &images);
  };
  launches_ = p.launches;
  if (capturing) {
    launch_all(stream);
    captured_ = true;
    return;
  }
  if (p.graph && p.graph->generation() != workspace_.generation()) p.graph.reset();
  // The first time plain: many sizes come once.
  if (!p.graph && p.runs > 0) {
    gpu::check(driver().capture_begin(capture_stream_->handle(), cu::capture_thread_local), "capturing a step");
    try {
      launch_all(capture_stream_->handle());
    } catch (...) {
      Handle graph = nullptr;
      if (driver().capture_end(capture_stream_->handle(), &graph) == cu::success) static_cast<void>(driver().graph_free(graph));
      throw;
    }
    p.graph = std::make_unique<Graph>(device_, capture_stream_->handle(), workspace_.generation());
  }
  if (p.graph)
    p.graph->launch(stream);
  else
    launch_all(stream);
  ++p.runs;
}

// Of a new size only the lists are made, to learn how long they are: everything else is planned for that.
template <class T>
bool EngineOf<T>::prove(Program& p, const Call& call, Handle stream) {
  StreamQueue queue(p.plan, workspace_.places(p.plan), stream);
  static_cast<void>(evaluation_->enqueue_search(queue, p, workspace_.at(Workspace::input), workspace_.at(Workspace::output)));
  last_->record(stream);
  last_stream_ = stream;
  judge(&p, p.key, p.capacity, call.cells, read_status(p, stream), nullptr);
  return false;
}

template <class T>
const unsigned char* EngineOf<T>::read_status(const Program& p, Handle stream) {
  Staging::Slot& slot = out_->next(p.out.status_bytes);
  unsigned char* const status = slot.memory->at<unsigned char>();
  gpu::check(
      driver().copy_out(status, address(workspace_.at(Workspace::output)) + static_cast<Address>(p.out.status), p.out.status_bytes, stream),
      "copying the state of the lists");
  slot.copied->record(stream);
  slot.copied->wait();
  return status;
}

template <class T>
void EngineOf<T>::write_cells(const Program& p, const Call& call, unsigned char* to) const {
  std::memcpy(to + p.in.cells, call.cells.data(), call.cells.size() * sizeof(cuda::SearchInput));
  for (std::size_t f = 0; p.in.boxes >= 0 && f < call.cells.size(); ++f) {
    cuda::GivenBox box{};
    if (call.input.boxes != nullptr) {
      const Box given(call.input.boxes + 9 * f, call.input.pbc);
      for (std::size_t a = 0; a < 3; ++a) {
        box.periodic[a] = given.periodic()[a] ? 1 : 0;
        for (std::size_t c = 0; c < 3; ++c) {
          box.rows[3 * a + c] = given.rows()[a][c];
          box.inverse[3 * a + c] = given.inverse()[a][c];
        }
      }
    }
    std::memcpy(to + static_cast<std::size_t>(p.in.boxes) + f * sizeof box, &box, sizeof box);
  }
}

template <class T>
void EngineOf<T>::bring_in(const Program& p, const Call& call, Handle stream, bool capturing) {
  const Input& input = call.input;
  auto* const to = static_cast<unsigned char*>(workspace_.at(Workspace::input));
  const auto copy = [&](std::int64_t offset, const void* from, std::size_t bytes, unsigned char* host) {
    if (offset < 0 || bytes == 0) return;
    if (host != nullptr)
      std::memcpy(host + offset, from, bytes);
    else
      gpu::check(driver().copy_within(address(to + offset), address(from), bytes, stream), "copying what is given on the device");
  };
  const auto all = [&](unsigned char* host) {
    const std::size_t frames = static_cast<std::size_t>(input.frames),
                      dim = static_cast<std::size_t>(evaluation_->config().descriptor_dim());
    const std::size_t d = sizeof(double);
    copy(p.in.coords, input.coords, count_all(input, 3 * d), host);
    copy(p.in.types, input.types, count_all(input, sizeof(int)), host);
    if (input.ghosts != nullptr) {
      copy(p.in.ids, input.ghosts->ids, count_all(input, sizeof(int)), host);
      copy(p.in.pad_type, &input.ghosts->pad_type, sizeof(int), host);
    }
    if (const Halo* halo = halo_of(input); halo != nullptr) {
      const auto list = [&](std::int64_t offset, const std::vector<int>& rows) {
        copy(offset, rows.data(), rows.size() * sizeof(int), host);
      };
      list(p.in.halo.send, halo->send);
      list(p.in.halo.receive, halo->receive);
      list(p.in.halo.images, halo->images);
      list(p.in.halo.owners, halo->owners);
      list(p.in.halo.atoms, halo->atoms);
      list(p.in.halo.begin, halo->begin);
      list(p.in.halo.sources, halo->sources);
    }
    copy(p.in.fparam, input.fparam, frames * static_cast<std::size_t>(evaluation_->config().base().fitting.numb_fparam) * d, host);
    copy(p.in.aparam, input.aparam, count(input, static_cast<std::size_t>(evaluation_->config().base().fitting.numb_aparam) * d), host);
    copy(p.in.weights, input.weights, count(input, d), host);
    copy(p.in.seed_head, input.seed_head, count(input, evaluation_->width() * d), host);
    copy(p.in.seed_descriptor, input.seed_descriptor, count(input, dim * d), host);
    copy(p.in.seed_rot_mat, input.seed_rot_mat, count(input, 3 * static_cast<std::size_t>(evaluation_->config().g2_dim()) * d), host);
  };
  if (capturing) {
    // A graph of the caller must not read memory of the host that is filled again: the words themselves are part of it.
    std::vector<unsigned> words(p.in.host_bytes / sizeof(unsigned));
    write_cells(p, call, reinterpret_cast<unsigned char*>(words.data()));
    for (std::size_t k = 0, end = 0; k < words.size(); k = end) {
      for (end = k + 1; end < words.size() && words[end] == words[k];) ++end;
      gpu::check(driver().fill_words(address(to + 4 * k), words[k], end - k, stream), "writing the cell");
    }
    return all(nullptr);
  }
  const std::size_t bytes = input.on_device ? p.in.host_bytes : p.in.layout.bytes();
  Staging::Slot& slot = in_->next(bytes);
  unsigned char* const host = slot.memory->at<unsigned char>();
  write_cells(p, call, host);
  if (!input.on_device) all(host);
  gpu::check(driver().copy_in(address(to), host, bytes, stream), "copying the atoms to the device");
  slot.copied->record(stream);
  if (input.on_device) all(nullptr);
}

template <class T>
std::int64_t EngineOf<T>::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<std::int64_t>(workspace_.bytes() + loader_->bytes());
}

template <class T>
MemoryUse EngineOf<T>::memory(const Expected& expected) const {
  MemoryUse use = evaluation_->memory(expected);
  use.constants = loader_->bytes();
  return use;
}

template <class T>
int EngineOf<T>::launches() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return launches_;
}

template class EngineOf<float>;
template class EngineOf<double>;

std::unique_ptr<Engine> make_engine(const Config& config, const Folded& folded, const std::string& precision, int device, Hooks hooks) {
  if (precision == "float32") return std::make_unique<EngineOf<float>>(config, folded, device, std::move(hooks));
  return std::make_unique<EngineOf<double>>(config, folded, device, std::move(hooks));
}

}  // namespace dpa2::gpu
