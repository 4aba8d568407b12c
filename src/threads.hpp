// Threads of the library: OpenMP, made safe against fork.
#pragma once

#include <pthread.h>

#include <atomic>
#include <exception>

namespace dpa2 {

/// GNU's OpenMP keeps its worker threads between parallel regions. They do not exist in a forked child (multiprocessing's
/// "fork" method), and a region there would wait for them for ever: a child whose parent had started workers runs alone.
class ForkGuard {
 public:
  /// The number of threads that may be used now, when `threads` are wanted.
  static int threads(int wanted) {
    if (wanted <= 1 || state().forked.load(std::memory_order_relaxed)) return 1;
    state().started.store(true, std::memory_order_relaxed);
    return wanted;
  }

 private:
  struct State {
    std::atomic<bool> started{false}, forked{false};
    State() {
      pthread_atfork(nullptr, nullptr, [] {
        if (state().started.load()) state().forked.store(true);
      });
    }
  };
  static State& state() {
    static State s;
    return s;
  }
};

/// Runs f(0) ... f(tasks-1), each on a thread of its own where possible. If tasks throw, one of the exceptions is thrown again.
template <class F>
void parallel(int tasks, F f) {
  if (ForkGuard::threads(tasks) == 1) {
    for (int t = 0; t < tasks; ++t) f(t);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for num_threads(tasks) schedule(static, 1)
  for (int t = 0; t < tasks; ++t) {
    try {
      f(t);
    } catch (...) {
#pragma omp critical(dpa2_parallel_error)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace dpa2
