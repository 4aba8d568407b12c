// Evaluations of a part of a system, whose ghosts other processes own.
#include <algorithm>
#include <functional>
#include <vector>

#include "error.hpp"
#include "gpu/engine_of.hpp"
#include "gpu/stream_queue.hpp"

namespace dpa2::gpu {

namespace {

// Rows go through the host, where the exchange of the CPU takes them.
template <class T>
class HostExchange final : public GhostRows<T> {
 public:
  HostExchange(Exchange& exchange, Staging& staging, Handle stream, int centres, int atoms)
      : exchange_(exchange), staging_(staging), stream_(stream), centres_(centres), atoms_(atoms) {}

  void forward(Queue&, T* rows, int width, const Meanwhile& meanwhile) override {
    T* const host = fetch(rows, centres_, width, meanwhile);
    exchange_.forward(host, width);
    put(rows, host, centres_, atoms_, width);
  }
  void reverse(Queue&, T* rows, int width, const Meanwhile& meanwhile) override {
    T* const host = fetch(rows, atoms_, width, meanwhile);
    exchange_.reverse(host, width);
    put(rows, host, 0, centres_, width);
  }

 private:
  static std::size_t numbers(int rows, int width) { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(width); }

  T* fetch(const T* rows, int count, int width, const Meanwhile& meanwhile) {
    slot_ = &staging_.next(std::max(numbers(atoms_, width), std::size_t{1}) * sizeof(T));
    T* const host = slot_->memory->at<T>();
    if (count > 0)
      check(driver().copy_out(host, address(rows), numbers(count, width) * sizeof(T), stream_), "copying rows for other processes");
    slot_->copied->record(stream_);
    meanwhile();
    slot_->copied->wait();
    return host;
  }
  void put(T* rows, const T* host, int first, int last, int width) {
    const std::size_t from = numbers(first, width);
    if (last > first)
      check(driver().copy_in(address(rows + from), host + from, numbers(last - first, width) * sizeof(T), stream_),
            "copying rows of other processes");
    slot_->copied->record(stream_);
  }

  Exchange& exchange_;
  Staging& staging_;
  Handle stream_;
  int centres_, atoms_;
  Staging::Slot* slot_ = nullptr;
};

}  // namespace

template <class T>
bool EngineOf<T>::run_part(Program& p, const Call& call, Handle stream) {
  const Ghosts& ghosts = *call.input.ghosts;
  void *const in = workspace_.at(Workspace::input), *const out = workspace_.at(Workspace::output);
  StreamQueue queue(p.plan, workspace_.places(p.plan), stream);
  const Frame frame = evaluation_->enqueue_search(queue, p, in, out);
  const Capacity tried = p.capacity;
  if (!judge(&p, p.key, tried, call.cells, read_status(p, stream), nullptr)) return false;
  parts_ = p.capacity;  // before it is set back: guesses that follow from guesses would grow without end
  part_centres_ = p.key.atoms;
  // The plan that runs on is the one that was made.
  p.capacity = tried;
  p.planned = true;
  launches_ = p.launches;
  if (const Halo* halo = halo_of(call.input); halo != nullptr) {
    Transport transport(*halo, *in_, *packed_, stream);
    PackedRows<T> rows(*halo_, p.key.halo, evaluation_->halo_lists(p, in), &transport);
    evaluation_->enqueue_network(queue, p, frame, call.request, in, out, &rows);
  } else if (ghosts.exchange != nullptr) {
    HostExchange<T> rows(*ghosts.exchange, *in_, stream, frame.centres, frame.atoms);
    evaluation_->enqueue_network(queue, p, frame, call.request, in, out, &rows);
  } else {
    require_no_ghosts(p, frame, stream);
    evaluation_->enqueue_network(queue, p, frame, call.request, in, out, nullptr);
  }
  return host_results(p, call, stream);
}

// Rows of ghosts that nobody fills would be read.
template <class T>
void EngineOf<T>::require_no_ghosts(const Program& p, const Frame& frame, Handle stream) const {
  if (p.key.ghosts == 0) return;
  std::vector<int> begin(static_cast<std::size_t>(p.key.ghosts) + 1);
  gpu::check(driver().copy_out(begin.data(), address(frame.incoming.begin + frame.centres), begin.size() * sizeof(int), stream),
             "asking whether ghosts are neighbours");
  gpu::check(driver().stream_wait(stream), "waiting for a stream");
  const auto ghost = std::adjacent_find(begin.begin(), begin.end(), std::not_equal_to<>());
  if (ghost != begin.end())
    throw invalid_input("row ", frame.centres + (ghost - begin.begin()),
                        " is a ghost and somebody's neighbour, but there is no exchange to fill it");
}

template <class T>
Capacity EngineOf<T>::part_guess(const ProgramKey& key) const {
  Capacity guess = parts_;
  const double ratio = 1.1 * key.atoms / std::max(part_centres_, 1);
  const auto scaled = [&](int edges, int sel) {
    const double most = std::min(static_cast<double>(key.atoms) * sel, 2147483647.0);
    return static_cast<int>(std::min(most, 1000.0 + ratio * edges));
  };
  const Config& network = evaluation_->config().base();
  guess.master = scaled(parts_.master, evaluation_->config().nsel());
  guess.repformer = scaled(parts_.repformer, network.repformer.nsel);
  return guess;
}

template bool EngineOf<float>::run_part(Program&, const Call&, Handle);
template bool EngineOf<double>::run_part(Program&, const Call&, Handle);
template void EngineOf<float>::require_no_ghosts(const Program&, const Frame&, Handle) const;
template void EngineOf<double>::require_no_ghosts(const Program&, const Frame&, Handle) const;
template Capacity EngineOf<float>::part_guess(const ProgramKey&) const;
template Capacity EngineOf<double>::part_guess(const ProgramKey&) const;

}  // namespace dpa2::gpu
