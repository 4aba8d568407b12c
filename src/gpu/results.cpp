// What becomes of a step: results for the host, results on the device that are judged later, and what was wrong with its atoms.
#include <algorithm>
#include <cstring>

#include "error.hpp"
#include "gpu/engine_of.hpp"
#include "neighbors/errors.hpp"

namespace dpa2::gpu {

template <class T>
bool EngineOf<T>::host_results(Program& p, const Call& call, Handle stream) {
  const Input& input = call.input;
  const Output& out = call.out;
  Staging::Slot& slot = out_->next(p.out.layout.bytes());
  unsigned char* const host = slot.memory->at<unsigned char>();
  gpu::check(driver().copy_out(host, address(workspace_.at(Workspace::output)), p.out.layout.bytes(), stream),
             "copying the results from the device");
  slot.copied->record(stream);
  last_->record(stream);
  last_stream_ = stream;
  slot.copied->wait();
  if (!judge(&p, p.key, p.capacity, call.cells, host + p.out.status, call.remarks)) return false;
  const auto take = [&](double* to, std::int64_t offset, std::size_t n) {
    if (to != nullptr && offset >= 0 && n > 0) std::memcpy(to, host + offset, n * sizeof(double));
  };
  const std::size_t frames = static_cast<std::size_t>(input.frames), each = evaluation_->components(call.request);
  take(out.value, p.out.value, frames * evaluation_->width());
  take(out.atom_value, p.out.atom_value, count(input, evaluation_->width()));
  take(out.force, p.out.force, count_all(input, 3 * each));
  take(out.virial, p.out.virial, 9 * frames * each);
  take(out.atom_virial, p.out.atom_virial, count_all(input, 9 * each));
  take(out.descriptor, p.out.descriptor, count(input, static_cast<std::size_t>(evaluation_->config().descriptor_dim())));
  take(out.rot_mat, p.out.rot_mat, count(input, 3 * static_cast<std::size_t>(evaluation_->config().g2_dim())));
  return true;
}

// Pinned memory is slow to make.
template <class T>
typename EngineOf<T>::Pending EngineOf<T>::take_pending(std::size_t bytes) {
  Pending step;
  if (!spare_.empty()) {
    step = std::move(spare_.back());
    spare_.pop_back();
  }
  if (!step.done) step.done = std::make_unique<Event>(device_);
  if (!step.status || step.status->bytes() < bytes) step.status = std::make_unique<Pinned>(device_, bytes);
  return step;
}

template <class T>
bool EngineOf<T>::device_results(Program& p, const Call& call, Handle stream, bool capturing) {
  const Input& input = call.input;
  const Output& out = call.out;
  const auto give = [&](double* to, std::int64_t offset, std::size_t n) {
    if (to != nullptr && offset >= 0)
      gpu::check(driver().copy_within(address(to), address(workspace_.at(Workspace::output)) + static_cast<Address>(offset),
                                      n * sizeof(double), stream),
                 "handing over results on the device");
  };
  const std::size_t frames = static_cast<std::size_t>(input.frames), each = evaluation_->components(call.request);
  give(out.value, p.out.value, frames * evaluation_->width());
  give(out.atom_value, p.out.atom_value, count(input, evaluation_->width()));
  give(out.force, p.out.force, count(input, 3 * each));
  give(out.virial, p.out.virial, 9 * frames * each);
  give(out.atom_virial, p.out.atom_virial, count(input, 9 * each));
  give(out.descriptor, p.out.descriptor, count(input, static_cast<std::size_t>(evaluation_->config().descriptor_dim())));
  give(out.rot_mat, p.out.rot_mat, count(input, 3 * static_cast<std::size_t>(evaluation_->config().g2_dim())));
  if (capturing) return true;  // what went wrong shows as NaN
  Pending step = take_pending(p.out.status_bytes);
  step.key = p.key;
  step.tried = p.capacity;
  step.cells = call.cells;
  gpu::check(driver().copy_out(step.status->template at<void>(),
                               address(workspace_.at(Workspace::output)) + static_cast<Address>(p.out.status), p.out.status_bytes, stream),
             "copying the state of a step");
  step.done->record(stream);
  last_->record(stream);
  last_stream_ = stream;
  pending_.push_back(std::move(step));
  return true;
}

// ------------------------------------------------------------------------------------------------ what went wrong

template <class T>
bool EngineOf<T>::judge(Program* p, const ProgramKey& key, const Capacity& tried, const std::vector<cuda::SearchInput>& cells,
                        const unsigned char* at, std::vector<Remarks>* remarks) {
  const std::size_t frames = static_cast<std::size_t>(key.frames);
  cuda::SearchStatus status;
  std::vector<cuda::SystemStatus> systems(frames);
  std::memcpy(&status, at, sizeof status);
  std::memcpy(systems.data(), at + sizeof status, frames * sizeof(cuda::SystemStatus));
  evaluation_->search().check(key.frames, cells.data(), systems.data());
  if (status.failed != 0) {
    if (p != nullptr) {
      p->capacity = evaluation_->search().grown(extent_of(key), p->capacity, status);
      p->planned = p->proven = false;
    }
    return false;
  }
  // One that was queued before the lists grew proves nothing of the buffers that come.
  if (p != nullptr && !p->proven && p->planned && p->capacity == tried) {
    // Now the numbers are known, and everything is planned for them.
    p->capacity = evaluation_->search().fitted(extent_of(key), p->capacity, status);
    p->planned = false;
    p->proven = true;
  }
  for (const cuda::SystemStatus& system : systems)
    if (system.closest[0] >= 0 && system.closest_r < table_begins_)
      throw before_table(system.closest[0], system.closest[1], system.closest_r, table_begins_);
  if (remarks != nullptr) remarks->resize(frames);
  for (std::size_t f = 0; remarks != nullptr && f < frames; ++f) (*remarks)[f] = evaluation_->search().remarks(systems[f]);
  return true;
}

template <class T>
void EngineOf<T>::settle(bool wait) {
  while (!pending_.empty()) {
    if (wait)
      pending_.front().done->wait();
    else if (!pending_.front().done->has_come())
      return;
    spare_.push_back(std::move(pending_.front()));
    pending_.pop_front();
    const Pending& step = spare_.back();
    const auto p = std::find_if(programs_.begin(), programs_.end(), [&](const Program& each) { return each.key == step.key; });
    if (!judge(p == programs_.end() ? nullptr : &*p, step.key, step.tried, step.cells, step.status->template at<unsigned char>(),
               &last_remarks_))
      void_ = true;
  }
}

template <class T>
bool EngineOf<T>::check(std::vector<Remarks>* remarks) {
  const Device::Use use(*device_);
  const std::lock_guard<std::mutex> lock(mutex_);
  settle(true);
  const bool good = !void_;
  void_ = false;
  if (remarks != nullptr) *remarks = last_remarks_;
  return good;
}

#define DPA2_INSTANTIATE(T)                                                                                             \
  template bool EngineOf<T>::host_results(Program&, const Call&, Handle);                                               \
  template bool EngineOf<T>::device_results(Program&, const Call&, Handle, bool);                                       \
  template bool EngineOf<T>::judge(Program*, const ProgramKey&, const Capacity&, const std::vector<cuda::SearchInput>&, \
                                   const unsigned char*, std::vector<Remarks>*);                                        \
  template void EngineOf<T>::settle(bool);                                                                              \
  template bool EngineOf<T>::check(std::vector<Remarks>*);                                                              \
  template typename EngineOf<T>::Pending EngineOf<T>::take_pending(std::size_t);
DPA2_INSTANTIATE(float)
DPA2_INSTANTIATE(double)
#undef DPA2_INSTANTIATE

}  // namespace dpa2::gpu
