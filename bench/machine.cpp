#include "machine.hpp"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>

#include "fma.hpp"

namespace dpa2::isa {
struct base;
struct v2;
struct v3;
struct v4;
}  // namespace dpa2::isa

namespace machine {

namespace {

template <class T>
struct Loops {
  const char* name;
  double (*run)(long, T*);
  void (*triad)(long, T*, const T*, const T*, T);
};

template <class T>
const Loops<T>& loops(const std::string& level) {
  using namespace dpa2;
  static const Loops<T> list[] = {
#if defined(DPA2_HAVE_BASE)
      {"base", &FmaLoop<T, isa::base>::run, &FmaLoop<T, isa::base>::triad},
#endif
#if defined(DPA2_HAVE_V2)
      {"v2", &FmaLoop<T, isa::v2>::run, &FmaLoop<T, isa::v2>::triad},
#endif
#if defined(DPA2_HAVE_V3)
      {"v3", &FmaLoop<T, isa::v3>::run, &FmaLoop<T, isa::v3>::triad},
#endif
#if defined(DPA2_HAVE_V4)
      {"v4", &FmaLoop<T, isa::v4>::run, &FmaLoop<T, isa::v4>::triad},
#endif
  };
  for (const Loops<T>& l : list)
    if (level == l.name) return l;
  throw std::runtime_error("no such instruction-set level in this build: " + level);
}

struct Free {
  void operator()(void* p) const noexcept { std::free(p); }
};

/// Time of the slowest of the threads that run `work`, all started together.
template <class Work>
double together(int threads, Clock clock, Work work) {
  const auto read = [clock] { return clock == Clock::wall ? now() : thread_now(); };
  double longest = 0;
#pragma omp parallel num_threads(threads) reduction(max : longest)
  {
    const int t = omp_get_thread_num();
#pragma omp barrier
    const double start = read();
    work(t);
    longest = read() - start;
  }
  return longest;
}

long system_size(int name, long otherwise) {
  const long found = name < 0 ? 0 : sysconf(name);
  return found > 0 ? found : otherwise;
}

}  // namespace

template <class T>
double peak(const std::string& level, int threads, double seconds, Clock clock) {
  const Loops<T>& l = loops<T>(level);
  constexpr int slot = 64;  // results of the threads lie apart
  std::vector<T> results(static_cast<std::size_t>(slot) * static_cast<std::size_t>(threads), T(0.5));
  double flops = 0;
  const auto work = [&](long rounds) {
    return together(threads, clock, [&](int t) {
      const double done = l.run(rounds, results.data() + static_cast<std::ptrdiff_t>(t) * slot);
      if (t == 0) flops = done;
    });
  };
  long rounds = 1000;
  double time = work(rounds);
  while (time < 1e-4) {
    rounds *= 4;
    time = work(rounds);
  }
  rounds = std::max(1L, static_cast<long>(static_cast<double>(rounds) * seconds / (4 * time)));
  double best = 0;
  for (int i = 0; i < 4; ++i) {
    const double t = work(rounds);
    best = std::max(best, flops * threads / t / 1e9);
  }
  return best;
}

template double peak<double>(const std::string&, int, double, Clock);
template double peak<float>(const std::string&, int, double, Clock);

double bandwidth(const std::string& level, int threads, long bytes, double seconds, Clock clock) {
  const Loops<double>& l = loops<double>(level);
  const long n = std::max(64L, bytes / 3 / static_cast<long>(sizeof(double)) / 64 * 64);
  std::vector<std::unique_ptr<double, Free>> arrays(3 * static_cast<std::size_t>(threads));
  for (auto& a : arrays) {
    a.reset(static_cast<double*>(std::aligned_alloc(64, static_cast<std::size_t>(n) * sizeof(double))));
    if (!a) throw std::bad_alloc();
  }
  const auto of = [&](int t, int k) { return arrays[3 * static_cast<std::size_t>(t) + static_cast<std::size_t>(k)].get(); };
  together(threads, clock, [&](int t) {  // every thread touches its own pages first
    for (int k = 0; k < 3; ++k) std::fill_n(of(t, k), n, 1.0);
  });
  long rounds = 1;
  const auto work = [&] {
    return together(threads, clock, [&](int t) {
      for (long r = 0; r < rounds; ++r) l.triad(n, of(t, 0), of(t, 1), of(t, 2), 0.5);
    });
  };
  double time = work();
  while (time < 1e-4) {
    rounds *= 4;
    time = work();
  }
  rounds = std::max(1L, static_cast<long>(static_cast<double>(rounds) * seconds / (4 * time)));
  double best = 0;
  for (int i = 0; i < 4; ++i)
    best = std::max(best, 3.0 * static_cast<double>(n) * sizeof(double) * static_cast<double>(rounds) * threads / work() / 1e9);
  return best;
}

long private_cache() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  return system_size(_SC_LEVEL2_CACHE_SIZE, 512L << 10);
#else
  return system_size(-1, 512L << 10);
#endif
}

long shared_cache() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  return system_size(_SC_LEVEL3_CACHE_SIZE, 32L << 20);
#else
  return system_size(-1, 32L << 20);
#endif
}

}  // namespace machine
