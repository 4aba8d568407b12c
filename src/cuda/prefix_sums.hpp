// Arguments of the kernel of prefix_sums.cu.
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace cuda {

/// start[k] = sum of count[0..k-1], for k <= n.
struct SumJob {
  int* start;        // (n + 1); sums beyond 2^31 - 1 are written as that
  long long* total;  // = the sum of all, or null
  const int* count;  // (n)
  int n;             // -1: no job
  int capacity;      // `failed` is set where the sum of all is larger
};
static_assert(sizeof(SumJob) == 32, "host and kernel agree");

struct SumArgs {
  SumJob first;
  SumJob second;
  SumJob third;
  unsigned long long* state;  // (blocks) zero before: what the blocks tell each other
  int* ticket;                // zero before
  int* failed;                // or null where no capacity can be exceeded
};
static_assert(sizeof(SumArgs) == 120, "host and kernel agree");

constexpr int sum_threads = 256;
constexpr int sum_each = 8;  // numbers of a thread
constexpr int sum_tile = sum_threads * sum_each;

/// Blocks of a job.
DPA2_MATH constexpr int sum_blocks(int n) { return n < 0 ? 0 : n / sum_tile + 1; }

}  // namespace cuda
}  // namespace dpa2
