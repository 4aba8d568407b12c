// Devices, kernels and graphs of src/gpu on whatever driver there is: tests/cuda/test_driver.py runs it on the emulated one, a check at a
// time by its name, with the kernels of tests/cuda/sources.
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "check.hpp"
#include "gpu/device.hpp"
#include "gpu/device_loader.hpp"
#include "gpu/nvrtc.hpp"
#include "sources/cuda/small.hpp"

namespace {

using namespace dpa2;
using namespace dpa2::gpu;
using cuda::ScaleArgs;

// What the host keeps of one device for these checks.
struct Bench {
  std::shared_ptr<const Device> device;
  Device::Use use;
  DeviceLoader loader;
  Stream stream;

  explicit Bench(int number = 0, const Hooks& hooks = {})
      : device(Device::open(number)), use(*device), loader(device, hooks, "double"), stream(device) {}

  void launch(const Function& f, unsigned blocks, unsigned threads, unsigned shared, ScaleArgs<double> args) const {
    void* values[] = {&args};
    gpu::check(driver().launch(f.handle, blocks, 1, 1, threads, 1, 1, shared, stream.handle(), values, nullptr), "launching");
  }
  [[nodiscard]] std::vector<double> read(const Memory& from, std::size_t count) const {
    std::vector<double> to(count);
    gpu::check(driver().copy_out(to.data(), address(from.at), count * sizeof(double), stream.handle()), "copying to the host");
    stream.wait();
    return to;
  }
};

void message(const char* where, const Error& error) {
  std::printf("%s: status %d: %s\n", where, static_cast<int>(error.status()), error.what());
}

template <class F>
void expect_error(const char* where, F what) {
  try {
    what();
    std::printf("%s: no error\n", where);
  } catch (const Error& error) { message(where, error); }
}

void launch() {
  Bench b;
  CHECK(b.device->capability() == 75 && b.device->max_shared() == 65536 && b.device->free_bytes() > 0);
  const Function scale = b.loader.function("small.cu", "scale");
  const double* values = b.loader.upload<double>(std::vector<double>{1, 2, 3, 4, 5});
  const float* more = b.loader.upload<float>(std::vector<double>{1.5});
  CHECK(reinterpret_cast<std::uintptr_t>(values) % 256 == 0 && reinterpret_cast<std::uintptr_t>(more) % 256 == 0);
  CHECK(b.loader.upload<double>(std::vector<double>{}) == nullptr && b.loader.bytes() >= 44);
  const Memory out = allocate(b.device, 5 * sizeof(double));
  b.launch(scale, 3, 2, 0, {values, static_cast<double*>(out.at), 10.0, 5});
  CHECK(b.read(out, 5) == (std::vector<double>{10, 20, 30, 40, 50}));
  // the limit of shared memory is that of static and dynamic together: 256 are static
  const Function shared = b.loader.function("small.cu", "through_shared");
  for (const unsigned bytes : {49152u - 256u, 49152u, 65536u - 256u}) {
    b.launch(shared, 1, 8, bytes, {values, static_cast<double*>(out.at), 1.0, 5});
    CHECK(b.read(out, 5) == (std::vector<double>{1, 2, 3, 4, 5}));
  }
  expect_error("shared", [&] { b.launch(shared, 1, 8, 65536u - 255u, {values, nullptr, 1.0, 5}); });
  expect_error("threads", [&] { b.launch(scale, 1, 65, 0, {values, nullptr, 1.0, 5}); });
  expect_error("kernel", [&] { b.loader.function("small.cu", "nothing"); });
  expect_error("source", [&] { b.loader.function("nothing.cu", "nothing"); });
  expect_error("compile", [&] { b.loader.function("small.cu", "scale", {{"MISTAKE", "1"}}); });
  const Function as_float = b.loader.function("small.cu", "scale", {{"real", "float"}, {"FACTOR", "2"}});
  CHECK(as_float.handle != scale.handle && std::strcmp(as_float.name, "scale") == 0);
}

void graph() {
  Bench b;
  const Function scale = b.loader.function("small.cu", "scale");
  const Memory in = allocate(b.device, 4 * sizeof(double)), out = allocate(b.device, 4 * sizeof(double));
  const Pinned host(b.device, 8 * sizeof(double));
  Handle graph = nullptr, executable = nullptr;
  gpu::check(driver().capture_begin(b.stream.handle(), cu::capture_thread_local), "capturing");
  gpu::check(driver().fill_bytes(address(out.at), 0, 32, b.stream.handle()), "filling");
  gpu::check(driver().copy_in(address(in.at), host.at<double>(), 32, b.stream.handle()), "copying");
  b.launch(scale, 2, 2, 0, {static_cast<double*>(in.at), static_cast<double*>(out.at), 3.0, 3});
  gpu::check(driver().copy_out(host.at<double>(32), address(out.at), 32, b.stream.handle()), "copying");
  gpu::check(driver().capture_end(b.stream.handle(), &graph), "ending the capture");
  gpu::check(driver().graph_instantiate(&executable, graph, 0), "instantiating");
  gpu::check(driver().graph_free(graph), "freeing the graph");
  for (int step = 1; step < 3; ++step) {
    for (int k = 0; k < 4; ++k) host.at<double>()[k] = k + step;
    gpu::check(driver().graph_launch(executable, b.stream.handle()), "launching the graph");
    b.stream.wait();
    const double* got = host.at<double>(32);
    CHECK(got[0] == 3.0 * step && got[1] == 3.0 * (1 + step) && got[2] == 3.0 * (2 + step) && got[3] == 0.0);
  }
  gpu::check(driver().graph_executable_free(executable), "freeing the graph");
  // what may not be captured
  Stream another(b.device);
  Event event(b.device);
  event.record(another.handle());
  const auto capture = [&](const char* name, auto what) {
    gpu::check(driver().capture_begin(b.stream.handle(), cu::capture_thread_local), "capturing");
    expect_error(name, what);
    Handle broken = nullptr;
    std::printf("%s ends with %d\n", name, driver().capture_end(b.stream.handle(), &broken));
    CHECK(broken == nullptr);
  };
  capture("allocating", [&] { allocate(b.device, 8); });
  capture("waiting", [&] { b.stream.wait(); });
  capture("isolation", [&] { event.block(b.stream.handle()); });
  gpu::check(driver().capture_begin(b.stream.handle(), cu::capture_thread_local), "capturing");
  std::thread([&] {  // another thread may do what it likes
    const Device::Use use(*b.device);
    allocate(b.device, 8);
  })
      .join();
  gpu::check(driver().capture_end(b.stream.handle(), &graph), "ending the capture");
  gpu::check(driver().graph_free(graph), "freeing the graph");
}

void devices() {
  Bench first(0);
  const Function scale = first.loader.function("small.cu", "scale");
  const double* values = first.loader.upload<double>(std::vector<double>{1, 2});
  const Memory out = allocate(first.device, 16);
  {
    Bench second(1);
    const double* others = second.loader.upload<double>(std::vector<double>{5, 6});
    const Function other = second.loader.function("small.cu", "scale");
    const Memory there = allocate(second.device, 16);
    second.launch(other, 1, 2, 0, {others, static_cast<double*>(there.at), 2.0, 2});
    CHECK(second.read(there, 2) == (std::vector<double>{10, 12}));
    expect_error("function", [&] { second.launch(scale, 1, 2, 0, {values, nullptr, 2.0, 2}); });
    expect_error("stream", [&] { first.launch(scale, 1, 2, 0, {values, nullptr, 2.0, 2}); });
    expect_error("memory", [&] { CHECK(second.read(out, 2).empty()); });
    const Device::Use again(*first.device);
    first.launch(scale, 1, 2, 0, {values, static_cast<double*>(out.at), 2.0, 2});
    CHECK(first.read(out, 2) == (std::vector<double>{2, 4}));
  }
  CHECK(first.read(out, 2) == (std::vector<double>{2, 4}));
  std::thread([&] { expect_error("thread", [&] { CHECK(first.read(out, 2).empty()); }); }).join();
  for (const int number : {-1, 2}) expect_error("number", [&] { Device::open(number); });
}

void memory() {
  Bench b;
  expect_error("memory", [&] { allocate(b.device, std::size_t{1} << 40); });
  std::vector<std::size_t> asked;
  Hooks hooks;
  hooks.memory = [&](std::size_t bytes) {
    asked.push_back(bytes);
    return allocate(b.device, bytes);
  };
  Bench with_hooks(0, hooks);
  with_hooks.loader.upload<double>(std::vector<double>{1, 2});
  CHECK(asked.size() == 1);
  CHECK(allocate(b.device, hooks, 0).at == nullptr && asked.size() == 1);
}

void failure() {
  Bench b;
  const Function f = b.loader.function("small.cu", "apart");
  b.launch(f, 1, 32, 0, {nullptr, nullptr, 0.0, 0});
  expect_error("waiting", [&] { b.stream.wait(); });
  expect_error("next", [&] { allocate(b.device, 8); });
}

// A kernel that writes one element too many.
void overrun() {
  Bench b;
  const Function scale = b.loader.function("small.cu", "scale");
  const double* values = b.loader.upload<double>(std::vector<double>{1, 2});
  const Memory out = allocate(b.device, 8);
  b.launch(scale, 1, 2, 0, {values, static_cast<double*>(out.at), 1.0, 2});
  expect_error("overrun", [&] { b.stream.wait(); });
}

// A kernel whose threads read what others write, with a barrier between and without.
void barrier(bool present) {
  const Bench b;
  Defines defines;
  if (!present) defines.emplace_back("NO_BARRIER", "1");
  DeviceLoader loader(b.device, {}, "double");
  const Function f = loader.function("small.cu", "through_shared", defines);
  const double* values = loader.upload<double>(std::vector<double>{1, 2, 3, 4, 5});
  const Memory out = allocate(b.device, 40);
  b.launch(f, 1, 64, 512, {values, static_cast<double*>(out.at), 1.0, 5});
  std::printf("%s\n", b.read(out, 5) == std::vector<double>{1, 2, 3, 4, 5} ? "right" : "wrong");
}

// Two threads with an engine's parts each, on one device.
void threads() {
  std::vector<std::thread> all;
  std::vector<int> right(4);
  for (std::size_t k = 0; k < right.size(); ++k)
    all.emplace_back([&right, k] {
      Bench b;
      const Function scale = b.loader.function("small.cu", "scale");
      const double* values = b.loader.upload<double>(std::vector<double>{1, 2});
      const Memory out = allocate(b.device, 16);
      for (int step = 0; step < 20; ++step) {
        const double by = static_cast<double>(k) + step;
        b.launch(scale, 1, 2, 0, {values, static_cast<double*>(out.at), by, 2});
        right[k] += b.read(out, 2) == std::vector<double>{by, 2 * by} ? 1 : 0;
      }
    });
  for (std::thread& one : all) one.join();
  CHECK(right == std::vector<int>(4, 20));
}

// Two streams, the second of which reads what the first writes; `waits` for it, or not.
void streams(bool waits) {
  Bench b;
  const Function scale = b.loader.function("small.cu", "scale");
  const double* values = b.loader.upload<double>(std::vector<double>{1, 2});
  const Memory mid = allocate(b.device, 16), out = allocate(b.device, 16);
  Stream second(b.device);
  Event event(b.device);
  CHECK(event.has_come());
  int right = 0;
  for (int k = 0; k < 32; ++k) {
    gpu::check(driver().fill_bytes(address(mid.at), 0, 16, b.stream.handle()), "filling");
    b.stream.wait();
    b.launch(scale, 1, 2, 0, {values, static_cast<double*>(mid.at), 3.0, 2});
    event.record(b.stream.handle());
    if (waits) event.block(second.handle());
    ScaleArgs<double> args{static_cast<double*>(mid.at), static_cast<double*>(out.at), 2.0, 2};
    void* list[] = {&args};
    gpu::check(driver().launch(scale.handle, 1, 1, 1, 2, 1, 1, 0, second.handle(), list, nullptr), "launching");
    event.record(second.handle());
    while (!event.has_come()) {}
    right += b.read(out, 2) == std::vector<double>{6, 12} ? 1 : 0;
    b.stream.wait();
  }
  std::printf("right: %d\n", right);
}

// The host reads memory of the device.
void peek() {
  Bench b;
  const Memory out = allocate(b.device, 16);
  gpu::check(driver().fill_bytes(address(out.at), 0, 16, b.stream.handle()), "filling");
  b.stream.wait();
  CHECK(b.read(out, 1)[0] == 0.0);
  std::printf("peeking\n");
  std::fflush(stdout);
  const volatile double* at = static_cast<double*>(out.at);
  std::printf("got %f\n", *at);
}

void open() {
  expect_error("open", [] { Bench b; });
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  try {
    if (name == "launch") launch();
    if (name == "graph") graph();
    if (name == "devices") devices();
    if (name == "memory") memory();
    if (name == "failure") failure();
    if (name == "overrun") overrun();
    if (name == "barrier") barrier(true);
    if (name == "no_barrier") barrier(false);
    if (name == "threads") threads();
    if (name == "waits") streams(true);
    if (name == "no_wait") streams(false);
    if (name == "peek") peek();
    if (name == "open") open();
  } catch (const Error& error) {
    message("thrown", error);
    return 1;
  }
  return check::finish();
}
