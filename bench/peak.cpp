// The peak of the processor, per ISA level, precision and number of threads; one line of JSON each.
//
//   peak                               all levels, both precisions, one thread and all of them; memory bandwidth
//   peak --serve PRECISION THREADS     one measurement per line of input, at the level that the kernels would use
#include <omp.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "cpu/kernels.hpp"
#include "machine.hpp"

namespace {

constexpr double seconds = 0.1;

double measure(const std::string& level, bool single, int threads) {
  return single ? machine::peak<float>(level, threads, seconds) : machine::peak<double>(level, threads, seconds);
}

void report(const std::string& level, bool single, int threads) {
  std::printf("{\"isa\": \"%s\", \"precision\": \"%s\", \"threads\": %d, \"gflops\": %.2f}\n", level.c_str(),
              single ? "float32" : "float64", threads, measure(level, single, threads));
  std::fflush(stdout);
}

void report_bandwidth(const char* memory, int threads, long bytes) {
  const std::string level = dpa2::isa_name();
  std::printf("{\"memory\": \"%s\", \"isa\": \"%s\", \"threads\": %d, \"bytes\": %ld, \"gb_per_s\": %.2f}\n", memory, level.c_str(),
              threads, bytes, machine::bandwidth(level, threads, bytes, seconds));
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "--serve") == 0) {
    const bool single = std::strcmp(argv[2], "float32") == 0;
    const int threads = std::atoi(argv[3]);
    char line[64];
    while (threads > 0 && std::fgets(line, sizeof line, stdin) != nullptr) report(dpa2::isa_name(), single, threads);
    return threads > 0 ? 0 : 2;
  }
  if (argc != 1) {
    std::fprintf(stderr, "usage: peak [--serve float32|float64 THREADS]\n");
    return 2;
  }
  std::vector<int> counts{1};
  if (omp_get_max_threads() > 1) counts.push_back(omp_get_max_threads());
  for (const char* const* level = dpa2::isa_names(); *level != nullptr; ++level)
    for (const bool single : {false, true})
      for (const int threads : counts) report(*level, single, threads);
  for (const int threads : counts) {
    report_bandwidth("private cache", threads, machine::private_cache() / 2);
    report_bandwidth("main memory", threads, std::min(4 * machine::shared_cache(), 512L << 20) / threads);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "peak: %s\n", error.what());
    return 1;
  }
}
