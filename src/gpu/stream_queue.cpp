#include "gpu/stream_queue.hpp"

#include "error.hpp"

namespace dpa2::gpu {

namespace {

// What stands for piece k while it is planned: not null, and never read.
void* stand_in(std::size_t piece) { return pointer((piece + 1) * Plan::alignment); }

}  // namespace

void* PlanningQueue::take_bytes(const char* name, std::size_t bytes) { return stand_in(plan_.take(name, bytes)); }

void PlanningQueue::release_bytes(void* at) {
  if (at != nullptr) plan_.release(static_cast<std::size_t>(address(at) / Plan::alignment) - 1);
}

void* StreamQueue::take_bytes(const char* name, std::size_t bytes) {
  if (next_ >= plan_.pieces().size()) throw internal_error("the buffer ", name, " is not in the plan");
  const Plan::Piece& piece = plan_.pieces()[next_];
  if (piece.bytes != bytes || piece.name != name)
    throw internal_error("the plan has ", piece.bytes, " bytes for ", piece.name, ", not ", bytes, " for ", name);
  return places_[next_++];
}

void StreamQueue::clear(void* at, std::size_t bytes) {
  if (bytes > 0) check(driver().fill_bytes(address(at), 0, bytes, stream_), "clearing a buffer");
}

void StreamQueue::launch_bytes(const Function& kernel, std::int64_t blocks, int threads, std::size_t shared, const void* args,
                               std::size_t) {
  // The driver copies the struct before it returns, and writes nothing through this pointer.
  void* values[] = {const_cast<void*>(args)};
  const int status = driver().launch(kernel.handle, static_cast<unsigned>(blocks), 1, 1, static_cast<unsigned>(threads), 1, 1,
                                     static_cast<unsigned>(shared), stream_, values, nullptr);
  if (status != cu::success) throw driver_error(status, text("launching the kernel ", kernel.name));
}

}  // namespace dpa2::gpu
