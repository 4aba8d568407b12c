// The machine behind the emulated driver: devices, their memory, streams of work, and a log of what was asked of them.
//
// One lock for all of it; kernels run with the lock held, one at a time. Environment variables, read once:
//   DPA2_EMULATED_DEVICES=1        how many devices there are
//   DPA2_EMULATED_SHARED=65536     bytes of shared memory that a block may have
//   DPA2_EMULATED_MEMORY=8589934592  bytes of each device
//   DPA2_EMULATED_ARCHITECTURE=75  compute capability
//   DPA2_EMULATED_VERSION=13000    CUDA of the driver
//   DPA2_EMULATED_SEED             a random order of threads and blocks; absent: a fixed one
//   DPA2_EMULATED_STREAMS=deferred work waits until the host does, and then streams run in a random order that events allow
//   DPA2_EMULATED_MEMORY_ACCESS=kernels  only kernels and copies can touch memory of the device: anything else ends the process
//   DPA2_EMULATED_LOG=<file>       the log is written there at the end of the process
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace emulated {

// Statuses of CUDA's driver that the emulation returns.
enum Status : int {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  UNSUPPORTED_PTX = 222,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_FAILED = 719,
  NOT_SUPPORTED = 801,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_UNMATCHED = 903,
  CAPTURE_ISOLATION = 905,
  CAPTURED_EVENT = 907,
  CAPTURE_WRONG_THREAD = 908,
};
const char* name_of(int status);
const char* words_of(int status);

constexpr int shared_without_asking = 48 * 1024, largest_block = 1024;
constexpr unsigned largest_grid[3] = {2147483647u, 65535u, 65535u};

struct Settings {
  int devices, shared, architecture, multiprocessors, version;
  std::size_t memory;
  bool deferred, only_kernels;
};
const Settings& settings();

struct Context {
  int device = 0;
  int retained = 0;
  std::size_t bytes = 0;  // of memory in use
  int sticky = SUCCESS;   // what every call returns after a kernel has failed
};

struct Module {
  Context* context = nullptr;
  void* library = nullptr;
  std::string path, source;
};

struct Function {
  Context* context = nullptr;
  const void* module = nullptr;  // null: it has been unloaded
  std::string name, source;
  int (*launch)(void**, const unsigned*, const unsigned*, std::size_t, long long, char*, std::size_t) = nullptr;
  std::vector<std::size_t> arguments;  // bytes of each
  int bound = largest_block, static_shared = 0, dynamic_shared = shared_without_asking;
};

struct Event {
  Context* context = nullptr;
  long long recorded = 0, come = 0;  // the last record that was queued, and that was reached
  const void* capture = nullptr;     // recorded in that capture
};

// One piece of work of a stream.
struct Work {
  std::function<void()> run;
  std::shared_ptr<Event> wait, record;
  long long number = 0;  // of the record
};

struct Graph {
  Context* context = nullptr;
  std::vector<Work> work;
};

struct Capture {
  Graph graph;
  std::thread::id thread;
  int mode = 0;
  bool invalid = false;
};

struct Stream {
  Context* context = nullptr;
  int number = 0;
  std::deque<Work> queue;
  std::unique_ptr<Capture> capture;
};

struct Allocation {
  Context* context = nullptr;
  std::size_t bytes = 0;
  bool pinned = false;  // memory of the host
};

struct LaunchRecord {
  std::string source, name;
  unsigned grid[3], block[3];
  std::size_t shared, bytes;
  int device, stream;
  bool graph;
};

struct Machine {
  std::mutex mutex;
  bool started = false;
  std::vector<std::unique_ptr<Context>> contexts;
  std::map<void*, std::shared_ptr<Stream>> streams;
  std::map<Context*, std::shared_ptr<Stream>> default_streams;
  std::map<void*, std::shared_ptr<Event>> events;
  std::map<void*, std::unique_ptr<Module>> modules;
  std::map<void*, std::shared_ptr<Function>> functions;
  std::map<void*, std::unique_ptr<Graph>> graphs, executables;
  std::map<std::uintptr_t, Allocation> memory;             // by address
  std::vector<std::pair<std::uintptr_t, bool>> graveyard;  // freed while work was waiting, and whether pinned
  std::vector<LaunchRecord> launches;
  std::map<std::string, long long> counts;
  long long seed = -1;
  int next_stream = 0;
  std::mt19937_64 random{1};

  Machine();
};
// Never destroyed: destructors of the program may still call.
Machine& machine();

// Contexts that this thread has pushed.
std::vector<Context*>& stack();

// `status`, with details for cuGetErrorString and for the reader of standard error.
int fault(int status, const std::string& details);
const std::string& last_details();
int last_status();

// The current context of this thread, or the status for there being none, or none that still works.
int current(Context*& context);

// Memory. `find`: the allocation that holds all of these bytes, or null.
void* new_memory(Context* context, std::size_t bytes, bool pinned);
int free_memory(std::uintptr_t at, bool pinned);
const Allocation* find(std::uintptr_t at, std::size_t bytes, bool pinned);
void check_ends(Context* context);  // a kernel has written beyond a buffer: the context is lost
void open_memory(bool open);        // to the code of the host, where only kernels may touch it
void free_all(Context* context);

// Streams. The stream of a handle in the current context, or null.
std::shared_ptr<Stream> stream_of(void* handle, Context* context);
int enqueue(Stream& stream, Work work);
void run_until(const std::function<bool()>& done);
bool is_idle();

// Whether this thread, or a capture that watches all threads, forbids a call; the captures are void then.
int forbidden(const char* what);

long long next_seed();
std::string log_text();

}  // namespace emulated
