// The plan of memory: buffers in use together never overlap, whatever the order of take and release; and what follows a plan is checked.
#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "error.hpp"
#include "gpu/plan.hpp"
#include "gpu/stream_queue.hpp"

namespace {

using namespace dpa2;
using gpu::Plan;

void check_random_orders(unsigned seed) {
  std::mt19937 random(seed);
  Plan plan;
  std::vector<std::size_t> live;
  std::vector<std::pair<std::size_t, std::size_t>> together;
  std::size_t most = 0;
  for (int step = 0; step < 400; ++step) {
    if (live.empty() || random() % 5 < 3) {
      const std::size_t piece = plan.take("piece", random() % 3 == 0 ? random() % 3 : random() % 5000);
      for (const std::size_t other : live) together.emplace_back(piece, other);
      live.push_back(piece);
    } else {
      const std::size_t k = random() % live.size();
      plan.release(live[k]);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(k));
    }
    std::size_t sum = 0;
    for (const std::size_t piece : live) sum += Plan::padded(plan.pieces()[piece].bytes);
    most = std::max(most, sum);
  }
  plan.place();
  for (const Plan::Piece& piece : plan.pieces()) CHECK(piece.offset % Plan::alignment == 0 && piece.offset + piece.bytes <= plan.bytes());
  for (const auto& [a, b] : together) {
    const Plan::Piece &mine = plan.pieces()[a], &theirs = plan.pieces()[b];
    CHECK(mine.offset + Plan::padded(mine.bytes) <= theirs.offset || theirs.offset + Plan::padded(theirs.bytes) <= mine.offset);
  }
  std::size_t sum = 0;
  for (const std::size_t piece : plan.peak()) sum += Plan::padded(plan.pieces()[piece].bytes);
  CHECK(sum == most);
  CHECK(plan.bytes() >= most && static_cast<double>(plan.bytes()) < 1.1 * static_cast<double>(most));
}

/// Small pieces that stay leave no gaps that a large one cannot use.
void check_pieces_that_stay() {
  Plan plan;
  const std::size_t unit = Plan::alignment;
  std::vector<std::size_t> gone;
  for (int k = 0; k < 8; ++k) {
    gone.push_back(plan.take("first", unit));
    plan.take("stays", unit);
  }
  for (const std::size_t piece : gone) plan.release(piece);
  plan.take("large", 8 * unit);
  plan.place();
  CHECK(plan.bytes() == 16 * unit);
  CHECK(plan.peak().size() == 16);
}

template <class F>
std::string message(F f) {
  try {
    f();
  } catch (const Error& error) { return error.what(); }
  return "";
}

}  // namespace

int main() {
  for (unsigned seed = 0; seed < 20; ++seed) check_random_orders(seed);
  check_pieces_that_stay();

  Plan plan;
  gpu::PlanningQueue planning(plan);
  const auto calls = [](gpu::Queue& queue, std::int64_t n) {
    float* a = queue.take<float>("a", n);
    double* b = queue.take<double>("b", 0);
    CHECK(a != nullptr);
    CHECK(b != nullptr);
    queue.release(a, static_cast<double*>(nullptr));
    float* c = queue.take<float>("c", 10);
    queue.release(b, c);
    return c;
  };
  calls(planning, 100);
  plan.place();
  CHECK(plan.pieces().size() == 3);
  CHECK(plan.pieces()[2].offset == plan.pieces()[0].offset);  // of what has been released

  std::vector<unsigned char> slab(plan.bytes());
  std::vector<void*> places;
  for (const Plan::Piece& piece : plan.pieces()) places.push_back(slab.data() + piece.offset);
  {
    gpu::StreamQueue running(plan, places, nullptr);
    CHECK(calls(running, 100) == places[2]);
    CHECK(message([&] { running.take<float>("d", 1); }) == "the buffer d is not in the plan");
  }
  gpu::StreamQueue other(plan, places, nullptr);
  CHECK(message([&] { calls(other, 101); }) == "the plan has 400 bytes for a, not 404 for a");
  CHECK(message([&] { plan.release(0); }) == "the buffer a is released twice");
  return check::finish();
}
