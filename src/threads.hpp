// Threads of the library: OpenMP, made safe against fork and against threads that cannot be created.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <vector>

#include "error.hpp"

namespace dpa2 {

/// More than machines have processors. Every thread takes memory of its own: a larger number is a mistake.
inline constexpr int most_threads = 4096;

/// The number of threads of an evaluation, when `wanted` are asked for: at least 1. Throws invalid_input beyond most_threads.
inline int checked_threads(int wanted) {
  if (wanted > most_threads) throw invalid_input("threads must be between 1 and ", most_threads, ", not ", wanted);
  return std::max(1, wanted);
}

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

/// GNU's OpenMP ends the process where it cannot create a thread: for want of address space (RLIMIT_AS), or because a user or a
/// control group may have no more. Each thread of the caller has workers of its own, which wait for its next region. So before a
/// region that needs more of them than the last one had, as many are created for a trial. Where they cannot be, there are
/// half as many as could, from then on: the rest is left for the evaluation.
class ThreadSupply {
 public:
  /// How many threads, the calling one included, a region of up to `wanted` may have.
  static int threads(int wanted) {
    thread_local int last = 1, most = most_threads;  // of the last region; beyond this a trial has failed
    wanted = std::min(wanted, most);
    if (wanted > last) {
      // One region at a time grows: what a trial has found is not to be taken by another before OpenMP has it.
      static std::mutex growing;
      const std::lock_guard<std::mutex> lock(growing);
      const int missing = wanted - last;
      constexpr int spare = 1;  // the memory of a stack, for what OpenMP allocates itself
      const int possible = trial(missing + spare);
      if (possible < missing + spare) wanted = most = last + possible / 2;
#pragma omp parallel num_threads(wanted)
      // A thread that throws for want of memory needs some for its first exception, and the C library ends the process where there is
      // none. So each has one now, while there is room, and one after the other: malloc reserves much more for a moment.
#pragma omp critical(dpa2_first_exception)
      {
        try {
          throw 0;
        } catch (int) {}
      }
    }
    return last = wanted;
  }

 private:
  /// How many of `wanted` more threads can exist at once: creates them, and waits for their end.
  static int trial(int wanted) {
    std::vector<pthread_t> created;
    created.reserve(static_cast<std::size_t>(wanted));
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return 0;
    if (const std::size_t size = stack_size(); size > 0) static_cast<void>(pthread_attr_setstacksize(&attributes, size));
    std::mutex gate;
    gate.lock();
    const auto wait = [](void* closed) -> void* {
      const std::lock_guard<std::mutex> pass(*static_cast<std::mutex*>(closed));
      return nullptr;
    };
    pthread_t thread{};
    while (static_cast<int>(created.size()) < wanted && pthread_create(&thread, &attributes, wait, &gate) == 0) created.push_back(thread);
    gate.unlock();
    for (const pthread_t& t : created) pthread_join(t, nullptr);
    pthread_attr_destroy(&attributes);
    return static_cast<int>(created.size());
  }

  /// Bytes of the stack of an OpenMP thread, as the environment says: "512", in units of 1024, or with B, K, M, G. 0: the default.
  static std::size_t stack_size() {
    for (const char* name : {"OMP_STACKSIZE", "GOMP_STACKSIZE"}) {
      const char* text = std::getenv(name);
      if (text == nullptr) continue;
      char* end = nullptr;
      const unsigned long long value = std::strtoull(text, &end, 10);
      if (end == text) continue;
      while (*end == ' ' || *end == '\t') ++end;
      const int shift = *end == 'b' || *end == 'B' ? 0 : *end == 'm' || *end == 'M' ? 20 : *end == 'g' || *end == 'G' ? 30 : 10;
      return value > (SIZE_MAX >> shift) ? 0 : static_cast<std::size_t>(value << shift);
    }
    return 0;
  }
};

/// Runs f(0) ... f(tasks-1), each on a thread of its own where possible: where there are fewer threads, one after the other on
/// those that there are. If tasks throw, one of the exceptions is thrown again. The region has `team` threads, at least as many as
/// tasks: where the number changes from one region to the next, OpenMP ends threads and creates others.
template <class F>
void parallel(int tasks, int team, F f) {
  const int threads = tasks <= 1 ? 1 : ThreadSupply::threads(ForkGuard::threads(std::max(tasks, team)));
  if (threads == 1) {
    for (int t = 0; t < tasks; ++t) f(t);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
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

template <class F>
void parallel(int tasks, F f) {
  parallel(tasks, tasks, f);
}

}  // namespace dpa2
