// What C++ code made from PTX needs (see ptx.py): operations with PTX's meaning, and the counting of what a warp executes.
//
// Threads run one after another, so what the lanes of a warp execute together is found by order: between two meetings of a warp, the
// k-th time that a lane comes to an instruction belongs to the k-th time of every other lane. That is how a warp runs whose
// lanes go through the same loops the same number of times; where they do not, it is the least number of executions.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "emulation.hpp"

namespace compiled {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
using f32 = float;
using f64 = double;

/// The bits of one type as another; integers of other sizes are cut or extended as their own sign says.
template <class To, class From>
inline To as(From v) {
  if constexpr (std::is_same_v<To, From>) {
    return v;
  } else if constexpr (sizeof(To) == sizeof(From)) {
    To to;
    __builtin_memcpy(&to, &v, sizeof(To));
    return to;
  } else {
    static_assert(std::is_integral_v<To> && std::is_integral_v<From>, "registers of other sizes hold integers");
    return static_cast<To>(v);
  }
}
template <class To, class From>
inline void set(To& to, From v) {
  to = as<To>(v);
}

// Conversions of numbers. Integers from floating point: nearest within the range, NaN is 0.
template <class To>
inline To saturated(double v) {
  if (v != v) return 0;
  if (v <= static_cast<double>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  if (v >= static_cast<double>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
  return static_cast<To>(v);
}
inline float unit(float v) { return v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f; }
inline double unit(double v) { return v > 0.0 ? (v < 1.0 ? v : 1.0) : 0.0; }
/// A double rounded down.
inline float down(double v) {
  const float near = static_cast<float>(v);
  return static_cast<double>(near) > v ? std::nextafterf(near, -INFINITY) : near;
}
inline float up(double v) { return -down(-v); }
inline float toward_zero(double v) { return v < 0 ? up(v) : down(v); }

template <class T>
inline T shift_left(T v, u32 by) {
  return by >= 8 * sizeof(T) ? T(0) : static_cast<T>(v << by);
}
template <class T>
inline T shift_right(T v, u32 by) {
  if (by >= 8 * sizeof(T)) return v < 0 ? T(-1) : T(0);
  return static_cast<T>(v >> by);
}
template <class T>
inline T insert(T a, T b, u32 at, u32 bits) {
  const T mask = bits >= 8 * sizeof(T) ? ~T(0) : static_cast<T>((T(1) << bits) - 1);
  return static_cast<T>((b & ~shift_left<T>(mask, at)) | shift_left<T>(a & mask, at));
}
template <class T>
inline T extract(T a, u32 at, u32 bits) {
  using U = std::make_unsigned_t<T>;
  constexpr u32 width = 8 * sizeof(T);
  if (bits == 0) return 0;
  if (at >= width) return std::is_signed_v<T> && a < 0 ? T(-1) : T(0);
  if (bits > width - at) bits = width - at;
  const T top = static_cast<T>(static_cast<U>(a) << (width - at - bits));
  return static_cast<T>(top >> (width - bits));
}
inline u32 permuted(u32 a, u32 b, u32 selector) {
  const u64 bytes = static_cast<u64>(b) << 32 | a;
  u32 result = 0;
  for (int k = 0; k < 4; ++k) {
    const u32 which = selector >> (4 * k);
    u32 byte = static_cast<u32>(bytes >> (8 * (which & 7))) & 0xff;
    if ((which & 8) != 0) byte = (byte & 0x80) != 0 ? 0xff : 0;
    result |= byte << (8 * k);
  }
  return result;
}
template <class T>
inline T quotient(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(a));
  return a / b;
}
template <class T>
inline T remainder_of(T a, T b) {
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
  return a % b;
}

inline u32 reversed(u32 v) {
  u32 to = 0;
  for (int k = 0; k < 32; ++k) to |= (v >> k & 1u) << (31 - k);
  return to;
}

// --- what is counted ----------------------------------------------------------------------------------------------------------------

constexpr int lanes = 32, most_warps = 32, banks = 32;

struct Block {  // of instructions without a jump
  u64 warps = 0, threads = 0;
};
struct Access {  // an instruction that reads or writes shared memory, in wavefronts, or memory of the device, in sectors of 32 bytes
  u64 warps = 0, pieces = 0, ideal = 0, generic = 0;
};

constexpr u32 sector_words = 8;

/// Different numbers of 32 bits.
class Set {
 public:
  void insert(u32 v) {
    if (2 * (number_ + 1) > cells_.size()) grow();
    if (put(v)) ++number_;
  }
  [[nodiscard]] u64 size() const { return number_; }
  void clear() {
    cells_.assign(cells_.size(), 0);
    number_ = 0;
  }

 private:
  bool put(u32 v) {
    const u64 kept = u64{v} + 1;
    for (std::size_t at = v * 2654435769u;; ++at) {
      u64& cell = cells_[at & (cells_.size() - 1)];
      if (cell == kept) return false;
      if (cell != 0) continue;
      cell = kept;
      return true;
    }
  }
  void grow() {
    std::vector<u64> old(std::max<std::size_t>(1024, 2 * cells_.size()));
    old.swap(cells_);
    for (const u64 v : old)
      if (v != 0) put(static_cast<u32>(v - 1));
  }
  std::vector<u64> cells_;
  u64 number_ = 0;
};

/// Wavefronts of one access of a warp, `bytes` for each lane, and the fewest that could bring the same words. In each wavefront a bank
/// gives one word of 4 bytes. 8 bytes go by half warps and 16 by quarters; loads of which lanes k and k ^ 1 (or all k and k ^ 2) ask for
/// the same go by the whole warp and by halves.
struct Wavefronts {
  int needed = 0, least = 0;

  Wavefronts(const u32* at, u32 mask, int bytes, bool load) {
    int pieces = bytes <= 4 ? 1 : bytes / 4;
    if (load && pieces > 1 && (paired(at, mask, 1) || paired(at, mask, 2))) pieces /= 2;
    const int size = lanes / pieces, words = bytes < 4 ? 1 : bytes / 4;
    for (int piece = 0; piece < pieces; ++piece) {
      u32 kept[lanes * 4];
      int number = 0, most = 0, of_bank[banks] = {};
      for (int lane = piece * size; lane < (piece + 1) * size; ++lane) {
        if ((mask >> lane & 1u) == 0) continue;
        for (int w = 0; w < words; ++w) {
          const u32 word = at[lane] / 4 + static_cast<u32>(w);
          bool known = false;
          for (int k = number - 1; k >= 0 && !known; --k) known = kept[k] == word;
          if (known) continue;
          kept[number++] = word;
          const int n = ++of_bank[word % banks];
          if (n > most) most = n;
        }
      }
      needed += most;
      least += (number + banks - 1) / banks;
    }
  }

 private:
  static bool paired(const u32* at, u32 mask, int with) {
    for (int lane = 0; lane < lanes; ++lane)
      if ((mask >> lane & 1u) != 0 && (mask >> (lane ^ with) & 1u) != 0 && at[lane] != at[lane ^ with]) return false;
    return true;
  }
};

/// What one kernel has executed, in all its launches.
class Counts {
 public:
  Counts(int blocks, int accesses)
      : blocks(static_cast<std::size_t>(blocks)),
        accesses(static_cast<std::size_t>(accesses)),
        marks_(static_cast<std::size_t>(most_warps * blocks)),
        groups_(static_cast<std::size_t>(most_warps * accesses)) {}

  std::vector<Block> blocks;
  std::vector<Access> accesses;
  u64 launches[6] = {};  // launches, blocks; the largest block's threads and shared memory; sectors read and written

  const char* wrong = nullptr;

  void launched(u64 number, u64 threads, u64 shared) {
    ++launches[0];
    launches[1] += number;
    if (threads > launches[2]) launches[2] = threads;
    if (shared > launches[3]) launches[3] = shared;
  }
  void clear() {
    for (Block& b : blocks) b = {};
    for (Access& a : accesses) a = {};
    for (u64& n : launches) n = 0;
  }

  struct Mark {
    u64 epoch = 0;
    u32 count = 0;
  };
  struct Group {
    u32 at[lanes];
    u32 mask;
  };
  struct Groups {
    u64 epoch = 0;
    int bytes = 0;
    bool load = false, shared = true;
    std::vector<Group> of;
    std::size_t used = 0;
  };

  void enter(int warp, int block, Mark& own, u64 epoch) {
    Block& all = blocks[static_cast<std::size_t>(block)];
    ++all.threads;
    if (own.epoch != epoch) own = {epoch, 0};
    Mark& mark = marks_[static_cast<std::size_t>(warp) * blocks.size() + static_cast<std::size_t>(block)];
    if (mark.epoch != epoch) mark = {epoch, 0};
    if (++own.count > mark.count) {
      mark.count = own.count;
      ++all.warps;
    }
  }

  void access(int warp, int lane, int number, Mark& own, u64 epoch, u32 at, int bytes, bool load, bool shared) {
    if (own.epoch != epoch) own = {epoch, 0};
    Groups& groups = groups_[static_cast<std::size_t>(warp) * accesses.size() + static_cast<std::size_t>(number)];
    if (groups.epoch != epoch) {
      close(groups, accesses[static_cast<std::size_t>(number)]);
      groups.epoch = epoch;
      groups.bytes = bytes;
      groups.load = load;
      groups.shared = shared;
    }
    const std::size_t k = own.count++;
    if (k >= groups.used) {
      groups.used = k + 1;
      if (groups.of.size() < groups.used) groups.of.resize(2 * groups.used);
      groups.of[k].mask = 0;
    }
    groups.of[k].at[lane] = at;
    groups.of[k].mask |= 1u << lane;
  }

  /// The end of a launch.
  void finish() {
    for (std::size_t k = 0; k < groups_.size(); ++k) close(groups_[k], accesses[k % accesses.size()]);
    launches[4] += read_.size();
    launches[5] += written_.size();
    read_.clear();
    written_.clear();
  }

 private:
  void close(Groups& groups, Access& sum) {
    for (std::size_t k = 0; k < groups.used; ++k) {
      ++sum.warps;
      if (groups.shared) {
        const Wavefronts found(groups.of[k].at, groups.of[k].mask, groups.bytes, groups.load);
        sum.pieces += static_cast<u64>(found.needed);
        sum.ideal += static_cast<u64>(found.least);
      } else {
        close_sectors(groups.of[k], groups.bytes, sum, groups.load ? read_ : written_);
      }
    }
    groups.used = 0;
  }

  // Words of memory of the device: how many sectors, how many would do for as many lanes.
  static void close_sectors(const Group& group, int bytes, Access& sum, Set& all) {
    u32 known[lanes];
    u64 number = 0, words = 0;
    for (int lane = 0; lane < lanes; ++lane) {
      if ((group.mask >> lane & 1u) == 0) continue;
      const u32 sector = group.at[lane] / sector_words;
      bool same = false, again = false;
      for (u64 k = 0; k < number && !same; ++k) same = known[k] == sector;
      for (int other = 0; other < lane && !again; ++other) again = (group.mask >> other & 1u) != 0 && group.at[other] == group.at[lane];
      if (!again) words += static_cast<u64>((bytes + 3) / 4);
      if (same) continue;
      known[number++] = sector;
      all.insert(sector);
    }
    sum.pieces += number;
    sum.ideal += (words + sector_words - 1) / sector_words;
  }

  Set read_, written_;
  std::vector<Mark> marks_;
  std::vector<Groups> groups_;
};

/// The shared memory of the block that runs, and the number of blocks before.
struct Window {
  unsigned char* at;
  std::size_t most;
  u32 bytes = 0;
  u64 blocks_before = 0, blocks = 0;

  /// Of the block that runs: no two have the same.
  [[nodiscard]] u64 first_epoch() const {
    return (blocks_before + blockIdx.x + u64(gridDim.x) * (blockIdx.y + u64(gridDim.y) * blockIdx.z) + 1) << 24;
  }
};

/// The thread that runs: its place, and how often it has come where since its warp last met.
template <int blocks, int accesses>
struct Thread {
  Counts& counts;
  unsigned char* const window;  // the shared memory of the block
  const u32 window_bytes;
  int index, warp, lane;
  u64 epoch;
  alignas(16) unsigned char lost[32] = {};  // where accesses go that are refused
  Counts::Mark of_block[blocks], of_access[accesses > 0 ? accesses : 1];

  Thread(Counts& its_counts, const Window& shared_memory)
      : counts(its_counts), window(shared_memory.at), window_bytes(shared_memory.bytes), epoch(shared_memory.first_epoch()) {
    index = static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
    warp = index / lanes;
    lane = index % lanes;
  }

  void enter(int block) { counts.enter(warp, block, of_block[block], epoch); }

  template <class T, int n>
  unsigned char* shared(int number, u64 at, bool load) {
    constexpr int bytes = static_cast<int>(sizeof(T)) * n;
    if (at + bytes > window_bytes || at % bytes != 0) {
      counts.wrong =
          at % bytes != 0 ? "an access to shared memory that is not aligned" : "an access beyond the shared memory of the launch";
      return lost;
    }
    counts.access(warp, lane, number, of_access[number], epoch, static_cast<u32>(at), bytes, load, true);
    return window + at;
  }
  template <class T, int n>
  unsigned char* global(int number, u64 at, bool load) {
    counts.access(warp, lane, number, of_access[number], epoch, static_cast<u32>(at / 4), static_cast<int>(sizeof(T)) * n, load, false);
    return reinterpret_cast<unsigned char*>(at);
  }
  /// By an address that may be of any memory.
  template <class T, int n>
  unsigned char* generic(int number, u64 at, bool load) {
    const u64 begin = reinterpret_cast<u64>(window);
    if (at < begin || at >= begin + window_bytes) return reinterpret_cast<unsigned char*>(at);
    ++counts.accesses[static_cast<std::size_t>(number)].generic;
    return shared<T, n>(number, at - begin, load);
  }

  u64 meet(emulation::Operation operation, u32 mask, u64 value, int argument, int width, int line) {
    const u64 result = emulation::emulation_meet(operation, mask, value, argument, width, "PTX", line);
    if (operation <= emulation::Operation::barrier_or || mask == 0xffffffffu) ++epoch;
    return result;
  }
  void multiply_tf32(f32* d, const u32* a, const u32* b, int line) {
    emulation::multiply_tf32(d, a, b, "PTX", line);
    ++epoch;
  }
  void multiply_f64(f64* d, const f64* a, const f64* b, int line) {
    emulation::multiply_f64(d, *a, *b, "PTX", line);
    ++epoch;
  }
  u32 shuffle(emulation::Operation operation, u32 mask, u32 value, u32 argument, u32 clamp, int line) {
    return static_cast<u32>(meet(operation, mask, value, static_cast<int>(argument), lanes - static_cast<int>(clamp >> 8 & 31), line));
  }
};

extern "C" int emulation_launch(void (*)(void**), void**, unsigned char*, unsigned char*, const unsigned*, const unsigned*, std::size_t,
                                long long, char*, std::size_t);

/// Runs a kernel that has `fixed` bytes of static shared memory; 0, or 1 and what went wrong in `message`.
inline int start(void (*run)(void**), Counts& counts, Window& window, std::size_t fixed, void** values, const unsigned* grid,
                 const unsigned* block, std::size_t shared, long long seed, char* message, std::size_t n) {
  const auto fail = [&](const char* what) {
    strncpy(message, what, n - 1);
    return 1;
  };
  if (fixed + shared > window.most) return fail("more shared memory than is emulated");
  window.bytes = static_cast<u32>(fixed + shared);
  window.blocks_before += window.blocks;
  window.blocks = u64(grid[0]) * grid[1] * grid[2];
  counts.launched(window.blocks, u64(block[0]) * block[1] * block[2], window.bytes);
  const int status = emulation_launch(run, values, window.at, window.at + window.bytes, grid, block, 0, seed, message, n);
  counts.finish();
  if (status != 0 || counts.wrong == nullptr) return status;
  const char* const wrong = counts.wrong;
  counts.wrong = nullptr;
  return fail(wrong);
}

/// Everything that has been counted, in rows: see compiled.py.
inline void report(const Counts& counts, unsigned long long* launches, unsigned long long* blocks, unsigned long long* accesses) {
  for (const u64 n : counts.launches) *launches++ = n;
  for (const Block& b : counts.blocks)
    for (const u64 n : {b.warps, b.threads}) *blocks++ = n;
  for (const Access& a : counts.accesses)
    for (const u64 n : {a.warps, a.pieces, a.ideal, a.generic}) *accesses++ = n;
}

template <class T, class F>
inline T atomic(u64 at, F change) {
  emulation::emulation_yield();
  T* const cell = reinterpret_cast<T*>(at);
  T old = __atomic_load_n(cell, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(cell, &old, change(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  return old;
}
template <class T>
inline T load(const void* at) {
  T v;
  __builtin_memcpy(&v, at, sizeof(T));
  return v;
}
template <class T>
inline void store(void* at, T v) {
  __builtin_memcpy(at, &v, sizeof(T));
}

}  // namespace compiled
