// The functions of the CUDA driver that are about order: streams, events, captures and graphs.
#include "calls.hpp"
#include "machine.hpp"

using namespace emulated;

#pragma GCC visibility push(default)
extern "C" {

int cuStreamCreate(void** handle, unsigned) {
  CURRENT(context);
  auto stream = std::make_shared<Stream>();
  stream->context = context;
  stream->number = ++machine().next_stream;
  *handle = stream.get();
  machine().streams[*handle] = stream;
  return SUCCESS;
}

int cuStreamDestroy_v2(void* handle) {
  CURRENT(context);
  if (machine().streams.find(handle) == machine().streams.end()) return fault(INVALID_HANDLE, "no stream to destroy");
  STREAM(stream, handle);
  if (stream->capture == nullptr) run_until([&] { return stream->queue.empty(); });
  machine().streams.erase(handle);
  return SUCCESS;
}

int cuStreamSynchronize(void* handle) {
  CURRENT(context);
  STREAM(stream, handle);
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    return fault(CAPTURE_UNSUPPORTED, "cuStreamSynchronize of a stream that is captured");
  }
  FORBIDDEN("cuStreamSynchronize");
  ++machine().counts["synchronizations"];
  run_until([&] { return stream->queue.empty(); });
  return context->sticky;
}

int cuStreamWaitEvent(void* handle, void* event_handle, unsigned) {
  const Lock lock(machine().mutex);
  Context* context = nullptr;
  if (const int status = current(context); status != SUCCESS) return status;
  STREAM(stream, handle);
  const auto found = machine().events.find(event_handle);
  if (found == machine().events.end()) return fault(INVALID_HANDLE, "not an event, or one that has been destroyed");
  const std::shared_ptr<Event> event = found->second;
  if (stream->capture != nullptr) {
    if (event->capture == stream->capture.get()) return SUCCESS;  // in order anyway
    stream->capture->invalid = true;
    return fault(CAPTURE_ISOLATION, "a captured stream waits for what is not captured");
  }
  if (event->capture != nullptr) return fault(NOT_SUPPORTED, "a capture that goes on in a second stream is not emulated");
  return enqueue(*stream, {nullptr, event, nullptr, event->recorded});
}

int cuStreamIsCapturing(void* handle, int* state) {
  CURRENT(context);
  STREAM(stream, handle);
  *state = stream->capture == nullptr ? 0 : stream->capture->invalid ? 2 : 1;
  return SUCCESS;
}

int cuEventCreate(void** handle, unsigned) {
  CURRENT(context);
  auto event = std::make_shared<Event>();
  event->context = context;
  *handle = event.get();
  machine().events[*handle] = event;
  return SUCCESS;
}

int cuEventDestroy_v2(void* handle) {
  CURRENT(context);
  EVENT(event, handle);
  machine().events.erase(handle);
  return SUCCESS;
}

int cuEventRecord(void* event_handle, void* handle) {
  CURRENT(context);
  STREAM(stream, handle);
  EVENT(event, event_handle);
  event->capture = stream->capture.get();
  if (stream->capture != nullptr) return SUCCESS;
  return enqueue(*stream, {nullptr, nullptr, event, ++event->recorded});
}

int cuEventQuery(void* handle) {
  CURRENT(context);
  EVENT(event, handle);
  if (event->capture != nullptr) return fault(CAPTURED_EVENT, "cuEventQuery of an event of a capture");
  FORBIDDEN("cuEventQuery");
  if (event->come >= event->recorded) return SUCCESS;
  // Who asks again and again gets there.
  long long steps = static_cast<long long>(1 + machine().random() % 3);
  run_until([&] { return steps-- == 0 || event->come >= event->recorded; });
  return event->come >= event->recorded ? SUCCESS : NOT_READY;
}

int cuEventSynchronize(void* handle) {
  CURRENT(context);
  EVENT(event, handle);
  if (event->capture != nullptr) return fault(CAPTURED_EVENT, "cuEventSynchronize of an event of a capture");
  FORBIDDEN("cuEventSynchronize");
  ++machine().counts["synchronizations"];
  run_until([&] { return event->come >= event->recorded; });
  return context->sticky;
}

int cuStreamBeginCapture_v2(void* handle, int mode) {
  CURRENT(context);
  STREAM(stream, handle);
  if (reinterpret_cast<std::uintptr_t>(handle) <= 2) return fault(CAPTURE_UNSUPPORTED, "the default stream cannot be captured");
  if (stream->capture != nullptr) return fault(INVALID_VALUE, "the stream is captured already");
  stream->capture = std::make_unique<Capture>();
  stream->capture->graph.context = context;
  stream->capture->thread = std::this_thread::get_id();
  stream->capture->mode = mode;
  ++machine().counts["captures"];
  return SUCCESS;
}

int cuStreamEndCapture(void* handle, void** graph) {
  CURRENT(context);
  STREAM(stream, handle);
  *graph = nullptr;
  if (stream->capture == nullptr) return fault(CAPTURE_UNMATCHED, "the stream is not captured");
  if (stream->capture->mode != 2 && stream->capture->thread != std::this_thread::get_id())
    return fault(CAPTURE_WRONG_THREAD, "another thread has begun the capture");
  const std::unique_ptr<Capture> capture = std::move(stream->capture);
  for (const auto& entry : machine().events)
    if (entry.second->capture == capture.get()) entry.second->capture = nullptr;
  if (capture->invalid) return CAPTURE_INVALIDATED;
  *graph = keep(machine().graphs, std::make_unique<Graph>(std::move(capture->graph)));
  return SUCCESS;
}

int cuGraphInstantiateWithFlags(void** executable, void* handle, unsigned long long) {
  CURRENT(context);
  FORBIDDEN("cuGraphInstantiate");
  const Graph* graph = lookup(machine().graphs, handle);
  if (graph == nullptr) return fault(INVALID_HANDLE, "no graph to instantiate");
  ++machine().counts["graphs"];
  *executable = keep(machine().executables, std::make_unique<Graph>(*graph));
  return SUCCESS;
}

int cuGraphLaunch(void* handle, void* stream_handle) {
  CURRENT(context);
  STREAM(stream, stream_handle);
  const Graph* graph = lookup(machine().executables, handle);
  if (graph == nullptr) return fault(INVALID_HANDLE, "no instantiated graph");
  if (graph->context != context) return fault(INVALID_HANDLE, "a graph of another device than the current one");
  ++machine().counts["graph_launches"];
  if (stream->capture != nullptr) return fault(NOT_SUPPORTED, "graphs within graphs are not emulated");
  for (const Work& work : graph->work)
    if (const int status = enqueue(*stream, work); status != SUCCESS) return status;
  return SUCCESS;
}

int cuGraphExecDestroy(void* handle) {
  CURRENT(context);
  if (settings().deferred) run_until(is_idle);
  return machine().executables.erase(handle) == 1 ? SUCCESS : fault(INVALID_HANDLE, "no instantiated graph to destroy");
}

int cuGraphDestroy(void* handle) {
  CURRENT(context);
  return machine().graphs.erase(handle) == 1 ? SUCCESS : fault(INVALID_HANDLE, "no graph to destroy");
}

}  // extern "C"
#pragma GCC visibility pop
