// The plan of memory: what an evaluation keeps and what it computes again, and how much it takes.
#pragma once

#include <cstdint>

#include "graph/workspace.hpp"

namespace dpa2 {

inline constexpr int tile_size = 16;          ///< centres whose dense products over atoms are done together
inline constexpr int weights_tile_size = 64;  ///< the same for gradients of weights

/// What a workspace goes without. Once memory is short it stays so: what the workspace holds itself would look free.
struct Thrift {
  int keep = 1;          ///< of the extent: grows when memory gets short
  bool generous = true;  ///< of the extent: ends when memory gets short
};

/// Shares the centres of a new evaluation out and clears the scratch memory of its threads; how many these are. A range per thread needs
/// centres: more threads would only widen the halos.
template <class T>
int share_out(Workspace<T>& ws, const Edges& edges, int threads);

/// Makes the buffers of an evaluation, with as much thrift as the memory there is asks for. Throws out_of_memory.
template <class T>
void plan(Workspace<T>& ws, Extent&& extent, Thrift& thrift);

/// Bytes that a first evaluation takes, the neighbour lists and the results included.
template <class T>
std::int64_t memory_estimate(const Prepared<T>& model, const Task& task, const MemoryQuestion& question);

}  // namespace dpa2
