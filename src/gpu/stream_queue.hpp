// The two queues of queue.hpp: one that plans, one that runs on a stream in the places of a plan.
#pragma once

#include <utility>
#include <vector>

#include "gpu/driver.hpp"
#include "gpu/plan.hpp"
#include "gpu/queue.hpp"

namespace dpa2::gpu {

/// Makes a plan; nothing runs.
class PlanningQueue final : public Queue {
 public:
  explicit PlanningQueue(Plan& plan) : plan_(plan) {}
  void clear(void*, std::size_t) override {}
  [[nodiscard]] int launches() const noexcept { return launches_; }

 private:
  void launch_bytes(const Function&, std::int64_t, int, std::size_t, const void*, std::size_t) override { ++launches_; }
  void* take_bytes(const char* name, std::size_t bytes) override;
  void release_bytes(void* at) override;

  Plan& plan_;
  int launches_ = 0;
};

/// Runs, in the memory that each piece of the plan has. The context must be current.
class StreamQueue final : public Queue {
 public:
  StreamQueue(const Plan& plan, std::vector<void*> places, Handle stream) : plan_(plan), places_(std::move(places)), stream_(stream) {}
  void clear(void* at, std::size_t bytes) override;

 private:
  void launch_bytes(const Function& kernel, std::int64_t blocks, int threads, std::size_t shared, const void* args,
                    std::size_t bytes) override;
  void* take_bytes(const char* name, std::size_t bytes) override;
  void release_bytes(void*) override {}

  const Plan& plan_;
  std::vector<void*> places_;
  Handle stream_;
  std::size_t next_ = 0;
};

}  // namespace dpa2::gpu
