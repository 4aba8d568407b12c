// Time of every operation, forward, backward and in training, in turn with the peak of the processor. Prints JSON, one object per line;
// kernels.py runs it, adds the useful work, and makes a table.
//
//   kernels MODEL.safetensors float64|float32 N NR [ROUNDS] [NAME]
//
// N and NR: neighbours of a centre in the repformer and in the repinit list. One thread, by its processor time; the level is that of DPA2_ISA.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cpu/kernels.hpp"
#include "machine.hpp"
#include "operations.hpp"
#include "schema/safetensors.hpp"

namespace {

constexpr double slice = 4e-3;  // seconds of one measurement

/// Calls of f that take about a slice.
long calls_for(const std::function<void()>& f) {
  f();
  long calls = 1;
  for (;;) {
    const double start = machine::thread_now();
    for (long i = 0; i < calls; ++i) f();
    const double time = machine::thread_now() - start;
    if (time > slice / 4) return std::max(1L, static_cast<long>(static_cast<double>(calls) * slice / time));
    calls *= 4;
  }
}

double seconds_per_call(const std::function<void()>& f, long calls) {
  const double start = machine::thread_now();
  for (long i = 0; i < calls; ++i) f();
  return (machine::thread_now() - start) / static_cast<double>(calls);
}

struct Timed {
  const char* direction;
  const std::function<void()>& f;
  double bytes;
  long calls;
  double best;
};

int run(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: kernels MODEL.safetensors float64|float32 N NR [ROUNDS] [NAME]\n");
    return 2;
  }
  const std::string precision = argv[2], level = dpa2::isa_name(), only = argc > 6 ? argv[6] : "";
  bench::Sizes sizes;
  sizes.n = std::atoi(argv[3]);
  sizes.nr = std::atoi(argv[4]);
  const int rounds = argc > 5 ? std::atoi(argv[5]) : 5;
  if ((precision != "float64" && precision != "float32") || sizes.n < 1 || sizes.nr < sizes.n || rounds < 1) {
    std::fprintf(stderr, "kernels: wrong precision or sizes\n");
    return 2;
  }
  const dpa2::SafetensorsFile file = dpa2::read_safetensors(argv[1]);
  const dpa2::Config config = dpa2::parse_config(file.config_json);
  const bool single = precision == "float32";
  const std::unique_ptr<bench::Bench> bench(single ? bench::make_bench<float>(config, file.weights, sizes)
                                                   : bench::make_bench<double>(config, file.weights, sizes));
  const auto peak = [&] {
    return single ? machine::peak<float>(level, 1, slice, machine::Clock::thread)
                  : machine::peak<double>(level, 1, slice, machine::Clock::thread);
  };
  std::printf("{\"isa\": \"%s\", \"series\": %s, \"cache_gb_per_s\": %.2f, \"memory_gb_per_s\": %.2f}\n", level.c_str(),
              bench->series ? "true" : "false", machine::bandwidth(level, 1, machine::private_cache() / 2, 0.05, machine::Clock::thread),
              machine::bandwidth(level, 1, std::min(4 * machine::shared_cache(), 512L << 20), 0.05, machine::Clock::thread));
  std::fflush(stdout);
  for (const bench::Operation& op : bench->operations) {
    if (!only.empty() && only != op.name) continue;
    std::vector<Timed> timed;
    if (op.forward) timed.push_back({"forward", op.forward, op.bytes_forward, calls_for(op.forward), 1e30});
    if (op.backward) timed.push_back({"backward", op.backward, op.bytes_backward, calls_for(op.backward), 1e30});
    if (op.training) timed.push_back({"training", op.training, 2 * op.bytes_backward, calls_for(op.training), 1e30});
    double best_peak = 0;
    for (int round = 0; round < rounds; ++round) {
      best_peak = std::max(best_peak, peak());
      for (Timed& t : timed) t.best = std::min(t.best, seconds_per_call(t.f, t.calls));
    }
    for (const Timed& t : timed) {
      std::printf("{\"operation\": \"%s\", \"direction\": \"%s\", \"us\": %.5f, \"bytes\": %.0f, \"peak_gflops\": %.2f}\n", op.name.c_str(),
                  t.direction, t.best / bench::centres * 1e6, t.bytes, best_peak);
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kernels: %s\n", error.what());
    return 1;
  }
}
