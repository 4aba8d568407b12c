// Runs a kernel on the CPU: blocks one after another, the threads of a block as fibres that switch where threads meet.
//
// Compiled without sanitizers, which would take the switches for errors; the thread sanitizer is told of the fibres and of
// what orders their memory accesses: barriers and __syncwarp do, shuffles and votes do not, as in CUDA.
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "emulation.hpp"
#include "fibre.hpp"

#undef threadIdx
#undef blockIdx

extern "C" {
void* __tsan_create_fiber(unsigned flags) __attribute__((weak));
void __tsan_destroy_fiber(void* fiber) __attribute__((weak));
void* __tsan_get_current_fiber() __attribute__((weak));
void __tsan_switch_to_fiber(void* fiber, unsigned flags) __attribute__((weak));
void __tsan_acquire(void* address) __attribute__((weak));
void __tsan_release(void* address) __attribute__((weak));
void __asan_unpoison_memory_region(void const volatile* address, std::size_t bytes) __attribute__((weak));
}

namespace emulation {
namespace {

constexpr int lanes = 32, max_threads = 1024;
constexpr std::size_t stack_bytes = std::size_t{1} << 18;  // taken from the system only where it is touched
constexpr std::size_t guard_bytes = 1 << 14;
constexpr unsigned no_sync = 1;  // a switch of fibres by itself orders nothing

enum class State { ready, waiting, arrived, ended };

struct Thread {
  Context context;
  Position position{};
  State state = State::ended;
  Operation operation{};
  unsigned mask = 0;
  std::uint64_t value = 0, result = 0;
  int argument = 0, width = lanes;
  const char* file = "";
  int line = 0;
  void* stack = nullptr;
  void* tsan = nullptr;
};

// Threads that are about to meet: all of a block, or the lanes of a mask. Nothing is allocated while threads run: the thread
// sanitizer would take memory that one of them frees and another one gets for theirs.
struct Meeting {
  int warp = -1;  // -1: a barrier
  unsigned mask = 0;
  std::vector<int> threads;
  char* order = nullptr;  // the address by which the thread sanitizer knows this meeting

  void begin(int its_warp, unsigned its_mask) {
    warp = its_warp;
    mask = its_mask;
    threads.clear();
    // Another one every time: who comes late must not learn of what others did after the meeting.
    order = &orders[next_order = (next_order + 8) % orders.size()];
  }

 private:
  static std::vector<char> orders;
  static std::size_t next_order;
};
std::vector<char> Meeting::orders(1 << 16);
std::size_t Meeting::next_order = 0;

struct Launch {
  void (*call)(void**) = nullptr;
  void** values = nullptr;
  unsigned char *shared_begin = nullptr, *shared_end = nullptr;
};

Launch launch;
std::vector<Thread> threads;
int nthreads = 0, running = -1, alive = 0;
std::vector<int> ready;
std::size_t ready_at = 0;
bool random_order = false;
std::mt19937_64 random_numbers;
bool warps_race = false;
bool wrong_products = false;  // $DPA2_EMULATED_PRODUCTS=wrong: tensor cores that take another column of b
int warp_rank[max_threads / lanes];
Context main_context;
void* main_tsan = nullptr;
// Two, or a thread that begins late would learn of what those that have ended did.
char block_begins = 0, block_ends = 0;
Meeting barrier_meeting;
std::vector<Meeting> warp_meetings[max_threads / lanes];  // those that somebody waits for; others have no threads
std::string failure;
unsigned char* dynamic_shared = nullptr;

const char* name_of(Operation operation) {
  static const char* const names[] = {"__syncthreads", "__syncthreads_count", "__syncthreads_and", "__syncthreads_or", "__syncwarp",
                                      "__shfl_sync",   "__shfl_up_sync",      "__shfl_down_sync",  "__shfl_xor_sync",  "__ballot_sync",
                                      "__any_sync",    "__all_sync",          "mma.m16n8k8",       "mma.m8n8k4"};
  return names[static_cast<int>(operation)];
}

bool is_barrier(Operation operation) { return operation <= Operation::barrier_or; }

std::string ranges(const std::vector<int>& numbers) {
  std::string text;
  for (std::size_t k = 0; k < numbers.size();) {
    std::size_t end = k + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    if (!text.empty()) text += ", ";
    text += std::to_string(numbers[k]);
    if (end - k > 1) text += "-" + std::to_string(numbers[end - 1]);
    k = end;
  }
  return text;
}

std::string place(const Thread& t) {
  std::string text = name_of(t.operation);
  if (!is_barrier(t.operation)) {
    char mask[32];
    std::snprintf(mask, sizeof mask, " (mask 0x%08x)", t.mask);
    text += mask;
  }
  return text + " at " + t.file + ":" + std::to_string(t.line);
}

// Who does what, for a report.
std::string account() {
  std::map<std::string, std::vector<int>> groups;
  for (int i = 0; i < nthreads; ++i) {
    const Thread& t = threads[static_cast<std::size_t>(i)];
    groups[t.state == State::waiting ? "waits in " + place(t) : t.state == State::ended ? "has ended" : "runs"].push_back(i);
  }
  std::string text;
  for (const auto& [what, who] : groups) text += "\n  " + what + ": threads " + ranges(who);
  return text;
}

std::string block_name() {
  const Index3& b = threads[0].position.block;
  return "block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + ", " + std::to_string(b.z) + ")";
}

void enter(int next) {
  const int before = running;
  running = next;
  Context& from = before < 0 ? main_context : threads[static_cast<std::size_t>(before)].context;
  Context& to = next < 0 ? main_context : threads[static_cast<std::size_t>(next)].context;
  if (next >= 0) emulation_position = &threads[static_cast<std::size_t>(next)].position;
  if (before == next) return;
  if (__tsan_switch_to_fiber != nullptr)
    __tsan_switch_to_fiber(next < 0 ? main_tsan : threads[static_cast<std::size_t>(next)].tsan, no_sync);
  Context::change(from, to);
}

// One of the threads that can run. In every other block some warps go ahead of others as far as they can: where all have the same
// chance, they stay so close together that a barrier that is missing at the end of a loop is hardly ever missed.
std::size_t pick() {
  std::size_t best = ready_at + random_numbers() % (ready.size() - ready_at);
  if (!warps_race) return best;
  for (std::size_t k = ready_at; k < ready.size(); ++k)
    if (warp_rank[ready[k] / lanes] < warp_rank[ready[best] / lanes]) best = k;
  return best;
}

// Goes to a thread that can run, or back to the launch when there is none or something failed.
void run_another() {
  if (!failure.empty() || ready_at == ready.size()) return enter(-1);
  if (random_order) std::swap(ready[ready_at], ready[pick()]);
  const int next = ready[ready_at++];
  if (ready_at == ready.size()) {
    ready.clear();
    ready_at = 0;
  }
  enter(next);
}

void make_ready(int thread) {
  if (ready.size() == ready.capacity()) {
    std::size_t n = 0;
    while (ready_at < ready.size()) ready[n++] = ready[ready_at++];
    ready.resize(n);
    ready_at = 0;
  }
  threads[static_cast<std::size_t>(thread)].state = State::ready;
  ready.push_back(thread);
}

std::uint64_t shuffled(const Thread& t, const Thread* const (&present)[lanes], int lane) {
  const int first = lane & ~(t.width - 1);
  int from = lane;
  switch (t.operation) {
    case Operation::shuffle:
      from = first + (t.argument & (t.width - 1));
      break;
    case Operation::shuffle_up:
      from = lane - t.argument < first ? lane : lane - t.argument;
      break;
    case Operation::shuffle_down:
      from = lane + t.argument >= first + t.width ? lane : lane + t.argument;
      break;
    default:
      from = (lane ^ t.argument) >= first + t.width ? lane : lane ^ t.argument;
      break;
  }
  return present[from & (lanes - 1)] == nullptr ? ~std::uint64_t{0}
                                                : present[from & (lanes - 1)]->value;  // of a lane that does not take part: NaN
}

// A float between the number and zero.
float toward_zero(double v) {
  const float near = static_cast<float>(v);
  return std::fabs(static_cast<double>(near)) > std::fabs(v) ? std::nextafterf(near, 0.0f) : near;
}

// What each lane's fragments are, lane = 4 group + member. float: a0 to a3 are rows group, group + 8, group, group + 8 of columns member,
// member, member + 4, member + 4; b0 and b1 rows member and member + 4 of column group; d0 to d3 columns 2 member, 2 member + 1 of row
// group and then of row group + 8. double: the same without the second halves.
//
// The manual leaves open how a card rounds sums of tf32. Cards have been found to drop bits, toward zero: here products and their sum are
// exact, and what is dropped is what does not fit into the result. Sums of double are fused multiply-adds in the order of the columns of a.
void multiply_tf32(ProductTf32* const (&all)[lanes]) {
  const auto number = [](unsigned bits) {
    float x = 0;
    std::memcpy(&x, &bits, sizeof x);
    if ((bits & 0x1fffu) != 0 && !std::isnan(x)) failure = "a factor of mma.m16n8k8 is not rounded to tf32 in " + block_name();
    return static_cast<double>(x);
  };
  double a[16][8], b[8][8];
  for (int lane = 0; lane < lanes; ++lane) {
    const int group = lane / 4, member = lane % 4;
    for (int k = 0; k < 4; ++k) a[group + 8 * (k % 2)][member + 4 * (k / 2)] = number(all[lane]->a[k]);
    for (int k = 0; k < 2; ++k) b[member + 4 * k][group] = number(all[lane]->b[k]);
  }
  for (int lane = 0; lane < lanes; ++lane)
    for (int k = 0; k < 4; ++k) {
      const int row = lane / 4 + 8 * (k / 2), column = 2 * (lane % 4) + k % 2;
      double sum = static_cast<double>(all[lane]->d[k]);
      for (int j = 0; j < 8; ++j) sum += a[row][j] * b[j][wrong_products ? (column + 1) % 8 : column];
      all[lane]->d[k] = toward_zero(sum);
    }
}

void multiply_f64(ProductF64* const (&all)[lanes]) {
  for (int lane = 0; lane < lanes; ++lane)
    for (int k = 0; k < 2; ++k) {
      const int row = lane / 4, column = (2 * (lane % 4) + k + (wrong_products ? 1 : 0)) % 8;
      double sum = all[lane]->d[k];
      for (int j = 0; j < 4; ++j) sum = std::fma(all[4 * row + j]->a, all[4 * column + j]->b, sum);
      all[lane]->d[k] = sum;
    }
}

template <class Product>
void multiply(const Thread* const (&present)[lanes], void (*of_warp)(Product* const (&)[lanes])) {
  Product* all[lanes];
  for (int lane = 0; lane < lanes; ++lane) all[lane] = reinterpret_cast<Product*>(static_cast<std::uintptr_t>(present[lane]->value));
  of_warp(all);
}

void complete(Meeting& meeting) {
  std::uint64_t count = 0, ballot = 0;
  const Thread* present[lanes] = {};
  const Thread& first = threads[static_cast<std::size_t>(meeting.threads[0])];
  for (const int i : meeting.threads) {
    const Thread& t = threads[static_cast<std::size_t>(i)];
    if (t.operation != first.operation || t.line != first.line || std::strcmp(t.file, first.file) != 0) {
      failure = "threads of " + block_name() + " meet in different places" + account();
      return;
    }
    present[i % lanes] = &t;
    count += t.value != 0 ? 1 : 0;
    ballot |= (t.value & 1) << (i % lanes);
  }
  const bool all = count == meeting.threads.size();
  if (first.operation == Operation::product_tf32) multiply(present, multiply_tf32);
  if (first.operation == Operation::product_f64) multiply(present, multiply_f64);
  for (const int i : meeting.threads) {
    Thread& t = threads[static_cast<std::size_t>(i)];
    switch (t.operation) {
      case Operation::barrier:
      case Operation::warp:
      case Operation::product_tf32:
      case Operation::product_f64:
        break;
      case Operation::barrier_count:
        t.result = count;
        break;
      case Operation::barrier_and:
      case Operation::all:
        t.result = all ? 1 : 0;
        break;
      case Operation::barrier_or:
      case Operation::any:
        t.result = count > 0 ? 1 : 0;
        break;
      case Operation::ballot:
        t.result = ballot;
        break;
      default:
        t.result = shuffled(t, present, i % lanes);
        break;
    }
  }
  // In the order of their numbers, in whatever order they came: it was that of the warp or block. No std::sort: its memmove would
  // be watched.
  const int begin = meeting.warp < 0 ? 0 : meeting.warp * lanes;
  const int end = meeting.warp < 0 ? nthreads : std::min(nthreads, begin + lanes);
  for (const int i : meeting.threads) threads[static_cast<std::size_t>(i)].state = State::arrived;
  for (int i = begin; i < end; ++i)
    if (threads[static_cast<std::size_t>(i)].state == State::arrived) make_ready(i);
}

// A meeting takes place when everybody has come: at a barrier all threads that have not ended.
void complete_if_full(Meeting& meeting) {
  const int expected = meeting.warp < 0 ? alive : __builtin_popcount(meeting.mask);
  if (meeting.threads.empty() || static_cast<int>(meeting.threads.size()) != expected) return;
  complete(meeting);
  meeting.threads.clear();
}

Meeting& meeting_of(int warp, unsigned mask) {
  if (warp < 0) {
    if (barrier_meeting.threads.empty()) barrier_meeting.begin(-1, 0);
    return barrier_meeting;
  }
  Meeting* unused = nullptr;
  for (Meeting& meeting : warp_meetings[warp]) {
    if (meeting.threads.empty())
      unused = &meeting;
    else if (meeting.mask == mask)
      return meeting;
  }
  unused->begin(warp, mask);  // there is one: a lane waits for one meeting at most
  return *unused;
}

void thread_main() {
  for (;;) {
    Thread& t = threads[static_cast<std::size_t>(running)];
    if (__tsan_acquire != nullptr) __tsan_acquire(&block_begins);
    launch.call(launch.values);
    if (__tsan_release != nullptr) __tsan_release(&block_ends);
    t.state = State::ended;
    --alive;
    complete_if_full(barrier_meeting);
    run_another();
  }
}

void fill(unsigned char* begin, const unsigned char* end) {
  for (volatile unsigned char* at = begin; at < end; ++at) *at = 0xff;  // NaN, -1; not memset, which sanitizers watch
}

void make_threads(int n, bool anew) {
  if (threads.empty()) {
    threads.resize(max_threads);
    ready.reserve(4 * max_threads);
    barrier_meeting.threads.reserve(max_threads);
    for (auto& of_warp : warp_meetings) {
      of_warp.resize(lanes);
      for (Meeting& meeting : of_warp) meeting.threads.reserve(lanes);
    }
  }
  for (int i = 0; i < n; ++i) {
    Thread& t = threads[static_cast<std::size_t>(i)];
    if (t.stack == nullptr) {
      t.stack = mmap(nullptr, stack_bytes + guard_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (t.stack == MAP_FAILED) std::abort();
      mprotect(t.stack, guard_bytes, PROT_NONE);
      if (__tsan_create_fiber != nullptr) t.tsan = __tsan_create_fiber(0);
    } else if (!anew) {
      continue;
    }
    unsigned char* bottom = static_cast<unsigned char*>(t.stack) + guard_bytes;
    if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(bottom, stack_bytes);
    t.context.prepare(bottom, stack_bytes, thread_main);
  }
}

void run_block(Index3 block) {
  fill(launch.shared_begin, launch.shared_end);
  nthreads = static_cast<int>(emulation_block_size.x * emulation_block_size.y * emulation_block_size.z);
  alive = nthreads;
  ready.clear();
  ready_at = 0;
  barrier_meeting.threads.clear();
  for (auto& of_warp : warp_meetings)
    for (Meeting& meeting : of_warp) meeting.threads.clear();
  for (int i = 0; i < nthreads; ++i) {
    const unsigned n = static_cast<unsigned>(i), nx = emulation_block_size.x, ny = emulation_block_size.y;
    threads[static_cast<std::size_t>(i)].position = {{n % nx, n / nx % ny, n / (nx * ny)}, block};
    make_ready(i);
  }
  if (random_order) {
    warps_race = random_numbers() % 2 == 0;
    for (int& rank : warp_rank) rank = static_cast<int>(random_numbers() % 1000);
  }
  if (__tsan_release != nullptr) __tsan_release(&block_begins);
  running = -1;
  run_another();
  if (__tsan_acquire != nullptr) __tsan_acquire(&block_ends);
  if (failure.empty() && alive > 0) failure = "deadlock in " + block_name() + account();
}

}  // namespace

extern "C" {

const Position* emulation_position = nullptr;
Index3 emulation_block_size{}, emulation_grid_size{};

void* emulation_dynamic_shared() { return dynamic_shared; }

void emulation_yield() {
  if (!random_order || running < 0) return;
  make_ready(running);
  run_another();
}

std::uint64_t emulation_meet(Operation operation, unsigned mask, std::uint64_t value, int argument, int width, const char* file, int line) {
  const int me = running;
  Thread& t = threads[static_cast<std::size_t>(me)];
  const bool barrier = is_barrier(operation);
  t.operation = operation;
  t.mask = mask;
  t.value = value;
  t.argument = argument;
  t.width = width;
  t.file = file;
  t.line = line;
  t.state = State::waiting;
  const bool known_width = width > 0 && width <= lanes && (width & (width - 1)) == 0;
  if (!barrier && ((mask >> (me % lanes) & 1u) == 0 || !known_width)) {
    failure = block_name() + ": " + place(t) + (known_width ? " is not for lane " : " has a wrong width, lane ") +
              std::to_string(me % lanes) + account();
    run_another();
  }
  Meeting& meeting = meeting_of(barrier ? -1 : me / lanes, mask);
  char* const order = meeting.order;
  const bool orders_memory = barrier || operation == Operation::warp;
  if (orders_memory && __tsan_release != nullptr) __tsan_release(order);
  meeting.threads.push_back(me);
  complete_if_full(meeting);
  run_another();
  if (orders_memory && __tsan_acquire != nullptr) __tsan_acquire(order);
  return t.result;
}

// Runs a kernel; 0, or 1 and what went wrong in `message`. With a seed >= 0 threads and blocks run in a random order.
int emulation_launch(void (*call)(void**), void** values, unsigned char* shared_begin, unsigned char* shared_end, const unsigned* grid,
                     const unsigned* block, std::size_t shared, long long seed, char* message, std::size_t message_bytes) {
  launch = {call, values, shared_begin, shared_end};
  emulation_grid_size = {grid[0], grid[1], grid[2]};
  emulation_block_size = {block[0], block[1], block[2]};
  const char* const products = std::getenv("DPA2_EMULATED_PRODUCTS");
  wrong_products = products != nullptr && std::strcmp(products, "wrong") == 0;
  random_order = seed >= 0;
  random_numbers.seed(static_cast<std::uint64_t>(seed));
  if (__tsan_get_current_fiber != nullptr) main_tsan = __tsan_get_current_fiber();
  make_threads(static_cast<int>(block[0] * block[1] * block[2]), !failure.empty());
  failure.clear();
  const std::size_t nblocks = std::size_t{grid[0]} * grid[1] * grid[2];
  std::vector<std::size_t> sequence(nblocks);
  for (std::size_t b = 0; b < nblocks; ++b) sequence[b] = b;
  if (random_order) std::shuffle(sequence.begin(), sequence.end(), random_numbers);
  for (const std::size_t b : sequence) {
    // Of exactly this size, so that the address sanitizer knows its end; a new one per block.
    dynamic_shared = shared > 0 ? static_cast<unsigned char*>(std::malloc(shared)) : nullptr;
    if (shared > 0) fill(dynamic_shared, dynamic_shared + shared);
    run_block(
        {static_cast<unsigned>(b % grid[0]), static_cast<unsigned>(b / grid[0] % grid[1]), static_cast<unsigned>(b / grid[0] / grid[1])});
    std::free(dynamic_shared);
    if (!failure.empty()) break;
  }
  if (failure.empty()) return 0;
  std::snprintf(message, message_bytes, "%s", failure.c_str());
  return 1;
}

}  // extern "C"

}  // namespace emulation
