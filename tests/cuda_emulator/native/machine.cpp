#include "machine.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

namespace emulated {

namespace {

long long number(const char* name, long long otherwise) {
  const char* given = std::getenv(name);
  return given != nullptr && *given != '\0' ? std::atoll(given) : otherwise;
}

bool is_set(const char* name, const char* value) {
  const char* given = std::getenv(name);
  return given != nullptr && std::strcmp(given, value) == 0;
}

thread_local std::string details_of_thread;
thread_local int status_of_thread = SUCCESS;

struct Words {
  int status;
  const char *name, *words;
};
constexpr Words all_words[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {UNSUPPORTED_PTX, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"},
    {CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
    {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"},
    {CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a thread-local capture from another thread"},
};

const Words* words(int status) {
  for (const Words& one : all_words)
    if (one.status == status) return &one;
  return nullptr;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

void write_log() {
  const char* path = std::getenv("DPA2_EMULATED_LOG");
  if (path == nullptr || *path == '\0') return;
  if (std::FILE* file = std::fopen(path, "w")) {
    const std::string text = log_text();
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
  }
}

bool can_run(const Work& work) { return work.wait == nullptr || work.wait->come >= work.number; }

void run_one(Stream& stream) {
  const Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (work.record != nullptr) work.record->come = std::max(work.record->come, work.number);
  if (work.run && stream.context->sticky == SUCCESS) {
    open_memory(true);
    work.run();
    open_memory(false);
  }
}

std::vector<Stream*> every_stream() {
  std::vector<Stream*> all;
  for (auto& entry : machine().default_streams) all.push_back(entry.second.get());
  for (auto& entry : machine().streams) all.push_back(entry.second.get());
  return all;
}

}  // namespace

const char* name_of(int status) { return words(status) != nullptr ? words(status)->name : nullptr; }
const char* words_of(int status) { return words(status) != nullptr ? words(status)->words : nullptr; }

const Settings& settings() {
  static const Settings all = {static_cast<int>(number("DPA2_EMULATED_DEVICES", 1)),
                               static_cast<int>(number("DPA2_EMULATED_SHARED", 65536)),
                               static_cast<int>(number("DPA2_EMULATED_ARCHITECTURE", 75)),
                               static_cast<int>(number("DPA2_EMULATED_MULTIPROCESSORS", 132)),
                               static_cast<int>(number("DPA2_EMULATED_VERSION", 13000)),
                               static_cast<std::size_t>(number("DPA2_EMULATED_MEMORY", 1LL << 33)),
                               is_set("DPA2_EMULATED_STREAMS", "deferred"),
                               is_set("DPA2_EMULATED_MEMORY_ACCESS", "kernels")};
  return all;
}

Machine::Machine() {
  for (int k = 0; k < settings().devices; ++k) {
    contexts.push_back(std::make_unique<Context>());
    contexts.back()->device = k;
  }
  seed = number("DPA2_EMULATED_SEED", -1);
  random.seed(static_cast<std::uint64_t>(seed + 1));
  std::atexit(write_log);
}

Machine& machine() {
  static Machine* const all = new Machine;
  return *all;
}

std::vector<Context*>& stack() {
  static thread_local std::vector<Context*> pushed;
  return pushed;
}

int fault(int status, const std::string& details) {
  details_of_thread = details;
  status_of_thread = status;
  ++machine().counts["faults"];
  std::fprintf(stderr, "emulated CUDA: %s: %s\n", name_of(status), details.c_str());
  return status;
}
const std::string& last_details() { return details_of_thread; }
int last_status() { return status_of_thread; }

int current(Context*& context) {
  if (!machine().started) return NOT_INITIALIZED;
  if (stack().empty()) return fault(INVALID_CONTEXT, "no context is current in this thread");
  context = stack().back();
  if (context->retained == 0) return fault(INVALID_CONTEXT, "the current context has been destroyed");
  return context->sticky;
}

std::shared_ptr<Stream> stream_of(void* handle, Context* context) {
  const auto code = reinterpret_cast<std::uintptr_t>(handle);
  if (code > 2) {
    const auto found = machine().streams.find(handle);
    return found == machine().streams.end() ? nullptr : found->second;
  }
  std::shared_ptr<Stream>& stream = machine().default_streams[context];  // 1 and 2 are names for it, too
  if (stream == nullptr) {
    stream = std::make_shared<Stream>();
    stream->context = context;
  }
  return stream;
}

// One piece of work after another, of any stream whose next one need not wait.
void run_until(const std::function<bool()>& done) {
  while (!done()) {
    std::vector<Stream*> able;
    for (Stream* stream : every_stream())
      if (!stream->queue.empty() && can_run(stream->queue.front())) able.push_back(stream);
    if (able.empty()) {
      fault(LAUNCH_FAILED, "streams wait for events of each other");
      std::abort();
    }
    run_one(*able[machine().random() % able.size()]);
  }
  if (is_idle()) {
    for (const auto& [at, pinned] : machine().graveyard) free_memory(at, pinned);
    machine().graveyard.clear();
  }
}

bool is_idle() {
  for (Stream* stream : every_stream())
    if (!stream->queue.empty()) return false;
  return true;
}

int enqueue(Stream& stream, Work work) {
  if (stream.capture != nullptr) {
    if (stream.capture->invalid) return fault(CAPTURE_INVALIDATED, "the capture of this stream is void");
    if (work.run) stream.capture->graph.work.push_back(std::move(work));
    return SUCCESS;
  }
  stream.queue.push_back(std::move(work));
  if (!settings().deferred) run_until([&] { return stream.queue.empty(); });
  return SUCCESS;
}

int forbidden(const char* what) {
  bool found = false;
  for (Stream* stream : every_stream()) {
    Capture* capture = stream->capture.get();
    if (capture == nullptr || capture->mode == 2) continue;  // 2: relaxed
    if (capture->mode == 1 && capture->thread != std::this_thread::get_id()) continue;
    capture->invalid = true;
    found = true;
  }
  return found ? fault(CAPTURE_UNSUPPORTED, std::string(what) + " during a capture") : SUCCESS;
}

long long next_seed() {
  Machine& m = machine();
  return m.seed < 0 ? -1 : (m.seed + 7919 * static_cast<long long>(m.launches.size())) % (1LL << 62);
}

std::string log_text() {
  const Machine& m = machine();
  std::ostringstream out;
  out << "{\"counts\": {";
  const char* comma = "";
  for (const auto& [name, count] : m.counts) {
    out << comma << quoted(name) << ": " << count;
    comma = ", ";
  }
  long long live = 0;
  for (const auto& entry : m.memory) live += entry.second.pinned ? 0 : 1;
  out << comma << "\"live_allocations\": " << live << "}, \"launches\": [";
  comma = "";
  for (const LaunchRecord& one : m.launches) {
    out << comma << "\n {\"source\": " << quoted(one.source) << ", \"kernel\": " << quoted(one.name) << ", \"grid\": [" << one.grid[0]
        << ", " << one.grid[1] << ", " << one.grid[2] << "], \"block\": [" << one.block[0] << ", " << one.block[1] << ", " << one.block[2]
        << "], \"shared\": " << one.shared << ", \"bytes\": " << one.bytes << ", \"device\": " << one.device
        << ", \"stream\": " << one.stream << ", \"graph\": " << (one.graph ? "true" : "false") << "}";
    comma = ",";
  }
  out << "]}\n";
  return out.str();
}

}  // namespace emulated

extern "C" {

#define EXPORT __attribute__((visibility("default")))

EXPORT void emulated_set_seed(long long seed) {
  const std::lock_guard<std::mutex> lock(emulated::machine().mutex);
  emulated::machine().seed = seed;
  emulated::machine().random.seed(static_cast<std::uint64_t>(seed + 1));
}

// Writes the log as JSON; returns how many bytes it has with the last zero: call again with as many.
EXPORT std::size_t emulated_launches(char* to, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(emulated::machine().mutex);
  const std::string text = emulated::log_text();
  if (bytes > 0) std::snprintf(to, bytes, "%s", text.c_str());
  return text.size() + 1;
}

EXPORT long long emulated_count(const char* name) {
  const std::lock_guard<std::mutex> lock(emulated::machine().mutex);
  const auto& counts = emulated::machine().counts;
  const auto found = counts.find(name);
  return found == counts.end() ? 0 : found->second;
}

EXPORT void emulated_reset_log() {
  const std::lock_guard<std::mutex> lock(emulated::machine().mutex);
  emulated::machine().launches.clear();
  emulated::machine().counts.clear();
}

// Devices on which a kernel has failed work again, which real ones do not.
EXPORT void emulated_repair() {
  const std::lock_guard<std::mutex> lock(emulated::machine().mutex);
  for (auto& context : emulated::machine().contexts) context->sticky = emulated::SUCCESS;
}

// Contexts that this thread has pushed and not popped.
EXPORT int emulated_depth() { return static_cast<int>(emulated::stack().size()); }

}  // extern "C"
