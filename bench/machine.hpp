// What the processor can do: multiply-adds per second, bytes per second.
#pragma once

#include <time.h>

#include <chrono>
#include <string>
#include <vector>

namespace machine {

inline double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Processor time of this thread: what else the machine does counts less than by the clock on the wall.
inline double thread_now() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

enum class Clock { wall, thread };

/// GFLOP/s of multiply-adds on registers: all `threads` together, for about `seconds`. T is float or double; `level` an ISA level.
template <class T>
double peak(const std::string& level, int threads, double seconds, Clock clock = Clock::wall);

/// GB/s of a = b + s c, three arrays of `bytes` bytes in all per thread, counted as three streams: all `threads` together.
double bandwidth(const std::string& level, int threads, long bytes, double seconds, Clock clock = Clock::wall);

/// Of the largest cache of one core, and of the whole processor, bytes; a guess where the system does not tell.
long private_cache();
long shared_cache();

}  // namespace machine
