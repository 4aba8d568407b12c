// The ranges of the threads and the sums over them, and the memory that is kept from step to step.
#include <algorithm>
#include <cstdint>
#include <new>
#include <numeric>
#include <random>
#include <stdexcept>

#include "check.hpp"
#include "cpu/arena.hpp"
#include "graph/buffer.hpp"
#include "graph/parallel.hpp"

namespace {

using namespace dpa2;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Lists of random neighbours among nall rows, some centres without any.
Edges random_edges(int nlocal, int nall, int most, std::mt19937& random) {
  Edges edges;
  edges.nlocal = nlocal;
  edges.nall = nall;
  edges.start.push_back(0);
  for (int i = 0; i < nlocal; ++i) {
    const int n = static_cast<int>(random() % static_cast<unsigned>(most + 1));
    for (int e = 0; e < n; ++e) edges.j.push_back(static_cast<int>(random() % static_cast<unsigned>(nall)));
    edges.start.push_back(static_cast<std::int64_t>(edges.j.size()));
    edges.n_repformer.push_back(n / 2);
  }
  return edges;
}

void check_ranges(const Edges& edges, const Partition& partition, int threads) {
  CHECK(partition.threads() == threads);
  int next = 0;
  for (int t = 0; t < threads; ++t) {
    const ThreadRange& range = partition.range(t);
    CHECK(range.begin == next && range.end >= range.begin);
    next = range.end;
    CHECK(range.rows() == range.end - range.begin + static_cast<int>(range.halo.size()));
    CHECK(std::is_sorted(range.halo.begin(), range.halo.end()));
    CHECK(std::adjacent_find(range.halo.begin(), range.halo.end()) == range.halo.end());
    std::vector<char> touched(at(edges.nall), 0);
    for (std::int64_t e = edges.start[at(range.begin)]; e < edges.start[at(range.end)]; ++e) {
      const int j = edges.j[at(e)], row = partition.local()[e];
      if (!CHECK(row >= 0 && row < range.rows())) continue;
      const bool own = j >= range.begin && j < range.end;
      CHECK(own ? row == j - range.begin : row >= range.end - range.begin && range.halo[at(row - (range.end - range.begin))] == j);
      if (!own) touched[at(j)] = 1;
    }
    // Nothing is in the halo that no edge needs.
    CHECK(std::count(touched.begin(), touched.end(), 1) == static_cast<std::ptrdiff_t>(range.halo.size()));
  }
  CHECK(next == edges.nlocal);
}

/// Every edge adds whole numbers to its neighbour and to its centre; whole numbers add up exactly in any order.
template <class T>
void check_merge(const Edges& edges, const Partition& partition, int width, std::mt19937& random) {
  std::vector<double> expected(at(static_cast<std::int64_t>(edges.nall) * width), 0.0);
  std::vector<Buffer<T>> parts(at(partition.threads() + 1));  // one more than there are threads: buffers outlive their step
  for (int t = 0; t < partition.threads(); ++t) {
    const ThreadRange& range = partition.range(t);
    T* part = parts[at(t)].zeros(at(static_cast<std::int64_t>(range.rows()) * width));
    for (int i = range.begin; i < range.end; ++i)
      for (std::int64_t e = edges.start[at(i)]; e < edges.start[at(i + 1)]; ++e)
        for (int c = 0; c < width; ++c) {
          const double value = static_cast<double>(random() % 1000u);
          part[static_cast<std::int64_t>(partition.local()[e]) * width + c] += static_cast<T>(value);
          part[static_cast<std::int64_t>(i - range.begin) * width + c] -= static_cast<T>(value);
          expected[at(static_cast<std::int64_t>(edges.j[at(e)]) * width + c)] += value;
          expected[at(static_cast<std::int64_t>(i) * width + c)] -= value;
        }
  }
  for (const int stride : {width, width + 3}) {  // alone, and beside others
    std::vector<T> out(at(static_cast<std::int64_t>(edges.nall) * stride + 1), T(-1));
    partition.merge(parts, width, out.data(), stride);
    bool equal = true;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t row = i / at(stride), column = i % at(stride);
      const bool written = row < at(edges.nall) && column < at(width);
      equal = equal && static_cast<double>(out[i]) == (written ? expected[row * at(width) + column] : -1.0);
    }
    CHECK(equal);
  }
}

void test_partition() {
  std::mt19937 random(1);
  Partition partition;  // one object for all: a smaller frame must not see what a larger one left
  for (const int nlocal : {40, 0, 1, 2, 7, 100})
    for (const int ghosts : {0, 1, 23})
      for (const int threads : {1, 2, 3, 8, 13})
        for (const int most : {0, 3, 30}) {
          if (nlocal + ghosts == 0 && most > 0) continue;
          const Edges edges = random_edges(nlocal, nlocal + ghosts, most, random);
          partition.build(edges, threads);
          check_ranges(edges, partition, threads);
          check_merge<double>(edges, partition, 1, random);
          check_merge<double>(edges, partition, 9, random);
          check_merge<float>(edges, partition, 16, random);
        }
  // Equal centres, equal shares.
  Edges even;
  even.nlocal = even.nall = 64;
  for (int i = 0; i <= 64; ++i) even.start.push_back(10 * i);
  even.j.assign(640, 0);
  even.n_repformer.assign(64, 5);
  partition.build(even, 4);
  for (int t = 0; t < 4; ++t) CHECK(partition.range(t).end - partition.range(t).begin == 16);
}

void test_parallel() {
  for (const int threads : {1, 2, 7}) {
    std::vector<int> calls(at(threads), 0);
    parallel(threads, [&](int t) { ++calls[at(t)]; });
    CHECK(calls == std::vector<int>(at(threads), 1));
    bool thrown = false;
    try {
      parallel(threads, [&](int t) {
        if (t == threads - 1) throw std::runtime_error("from thread");
      });
    } catch (const std::runtime_error& error) { thrown = std::string(error.what()) == "from thread"; }
    CHECK(thrown);
  }
}

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 64 == 0; }

void test_arena() {
  Arena arena;
  CHECK(arena.capacity() == 0);
  arena.reset();
  const Arena::Mark empty = arena.mark();
  CHECK(aligned(arena.take<double>(0)));
  arena.release(empty);

  // Blocks of all sizes, across several pieces of memory, keep what is written to them and do not overlap.
  std::vector<std::pair<char*, long>> blocks;
  const Arena::Mark start = arena.mark();
  for (long n = 1; n < 400000; n = n * 3 + 1) {
    blocks.emplace_back(arena.take<char>(n), n);
    CHECK(aligned(blocks.back().first));
    std::fill_n(blocks.back().first, n, static_cast<char>(blocks.size()));
  }
  bool kept = true;
  for (std::size_t b = 0; b < blocks.size(); ++b)
    for (long i = 0; i < blocks[b].second; ++i) kept = kept && blocks[b].first[i] == static_cast<char>(b + 1);
  CHECK(kept);

  // A mark gives the same memory again, also from a later piece back to an earlier one.
  arena.release(start);
  CHECK(arena.take<char>(1) == blocks[0].first);
  const Arena::Mark small = arena.mark();
  char* const second = arena.take<char>(4);
  arena.release(small);
  arena.take<double>(1000000);
  arena.release(small);
  CHECK(arena.take<char>(4) == second);

  // After a reset the memory is one piece, and a step like the last one takes no more.
  arena.reset();
  const std::size_t held = arena.capacity();
  CHECK(held >= 8000000);
  char* previous = nullptr;
  for (int step = 0; step < 5; ++step) {
    arena.reset();
    char* const first = arena.take<char>(100);
    arena.take<double>(900000);
    if (step > 0) CHECK(first == previous);
    previous = first;
    CHECK(arena.capacity() == held);
  }

  // Negative sizes count as nothing; an impossible size is refused and leaves the arena usable.
  arena.reset();
  CHECK(arena.take<int>(-5) == arena.take<int>(0));
  bool refused = false;
  try {
    arena.take<double>(1L << 56);
  } catch (const std::bad_alloc&) { refused = true; }
  CHECK(refused);
  *arena.take<double>(1) = 1.0;
  CHECK(arena.capacity() == held);
}

void test_buffer() {
  Buffer<double> buffer;
  CHECK(buffer.data() == nullptr && buffer.bytes() == 0);
  CHECK(buffer.resize(0) == nullptr && buffer.zeros(0) == nullptr);
  double* const p = buffer.resize(10);
  CHECK(aligned(p) && buffer.bytes() >= 80);
  std::iota(p, p + 10, 0.0);
  CHECK(buffer.resize(5) == p && buffer.resize(10) == p && p[9] == 9.0);
  const double* const z = buffer.zeros(7);
  CHECK(z == p && std::count(z, z + 7, 0.0) == 7 && p[9] == 9.0);
  CHECK(aligned(buffer.resize(1000)) && buffer.bytes() >= 8000);
  const double* const large = buffer.data();
  Buffer<double> moved(std::move(buffer));
  CHECK(moved.data() == large && buffer.data() == nullptr && buffer.bytes() == 0);  // NOLINT: a moved-from buffer is empty
  Buffer<double> other;
  other.resize(3);
  other = std::move(moved);
  CHECK(other.data() == large);
  bool refused = false;
  try {
    other.resize(std::size_t{1} << 56);
  } catch (const std::bad_alloc&) { refused = true; }
  CHECK(refused && other.bytes() == 0);
  CHECK(aligned(other.resize(4)));
}

}  // namespace

// Sanitizers end a program that asks for too much memory, unless they are told that it is meant.
#define DPA2_SANITIZER_OPTIONS(name)                                          \
  extern "C" __attribute__((used, visibility("default"))) const char* name(); \
  const char* name() { return "allocator_may_return_null=1"; }
DPA2_SANITIZER_OPTIONS(__asan_default_options)
DPA2_SANITIZER_OPTIONS(__tsan_default_options)

int main() {
  test_partition();
  test_parallel();
  test_arena();
  test_buffer();
  return check::finish();
}
