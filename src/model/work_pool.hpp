// Memory of evaluations that wait for the next one: any number of threads may evaluate at once, each with a piece of its own.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace dpa2 {

template <class Work>
struct WorkPool {
  std::mutex mutex;
  std::vector<std::unique_ptr<Work>> idle;
};

/// A Work that goes back when it is done with.
template <class Work>
class Borrowed {
 public:
  explicit Borrowed(WorkPool<Work>& pool) : pool_(pool) {
    const std::lock_guard<std::mutex> lock(pool_.mutex);
    if (!pool_.idle.empty()) {
      work_ = std::move(pool_.idle.back());
      pool_.idle.pop_back();
    }
    if (!work_) work_ = std::make_unique<Work>();
  }
  ~Borrowed() {
    const std::lock_guard<std::mutex> lock(pool_.mutex);
    try {
      pool_.idle.push_back(std::move(work_));
    } catch (...) {  // then the next evaluation makes another
    }
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  Work* operator->() const noexcept { return work_.get(); }

 private:
  WorkPool<Work>& pool_;
  std::unique_ptr<Work> work_;
};

}  // namespace dpa2
