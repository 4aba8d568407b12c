#include "graph/plan.hpp"

#include <algorithm>
#include <memory>
#include <utility>

namespace dpa2 {

template <class T>
int share_out(Workspace<T>& ws, const Edges& edges, int threads) {
  threads = std::max(1, std::min(threads, edges.nlocal));
  while (static_cast<int>(ws.arenas.size()) < threads) ws.arenas.push_back(std::make_unique<Arena>());
  for (auto& arena : ws.arenas) arena->reset();
  ws.partition.build(edges, threads);
  return threads;
}

template <class T>
void plan(Workspace<T>& ws, Extent&& extent, Thrift& thrift) {
  Extent& e = ws.extent = std::move(extent);
  e.keep = thrift.keep;
  e.generous = e.generous && thrift.generous;
  if (e.gradient && !fits(ws.growth(e))) {
    thrift.generous = e.generous = false;
    while (e.keep < e.nlayers && !fits(ws.growth(e))) ++e.keep;
  }
  thrift.keep = e.keep;
  require_memory(ws.growth(e), e.nlocal.value());
  ws.table(e, [](auto& array, Count n, int copies) { resize(array, n, copies); });
  ws.pairs.begin(e);
}

template <class T>
std::int64_t memory_estimate(const Prepared<T>& m, const Task& task, const MemoryQuestion& q) {
  Extent e = extent_of<T>(m, task, q.natoms, q.nedge, q.nedge_repformer);
  const std::int64_t threads = std::max<std::int64_t>(1, std::min<std::int64_t>(q.threads, q.natoms));
  // A thread sums into its own atoms and their neighbours outside: all atoms, if they are in no spatial order.
  e.rows.assign(static_cast<std::size_t>(threads),
                threads == 1 ? q.natoms : std::min(q.natoms, (Count(q.natoms / threads) + q.nedge / threads).value()));
  const Count bytes = Count(Workspace<T>().growth(e)) + partition_bytes(q) + neighbor_bytes(q) + result_bytes(q);
  // Scratch of a thread: the dense products of a tile, and the pair maps of one centre.
  const Count n1 = m.n1, n2 = m.n2, most = padded<T>(m.nsel_repformer);
  const Count coefficients = m.fitting.width > 1 ? Count(4) * m.fitting.stride : Count();  // of an atom, and their weights
  const Count dense = (Count(2) * m.nd + n1 * (Count(12) + Count(3) * m.nh1) + Count(2) * m.fitting.in + coefficients) * tile_size;
  const Count pairs = most * (n2 * 16 + (m.has().pair_map() ? most * 16 : 0));
  return (bytes + (dense + pairs) * threads * static_cast<std::int64_t>(sizeof(T))).value();
}

template int share_out(Workspace<double>&, const Edges&, int);
template int share_out(Workspace<float>&, const Edges&, int);
template int share_out(Workspace<Dual<double>>&, const Edges&, int);
template int share_out(Workspace<Dual<float>>&, const Edges&, int);
template void plan(Workspace<double>&, Extent&&, Thrift&);
template void plan(Workspace<float>&, Extent&&, Thrift&);
template void plan(Workspace<Dual<double>>&, Extent&&, Thrift&);
template void plan(Workspace<Dual<float>>&, Extent&&, Thrift&);
template std::int64_t memory_estimate(const Prepared<double>&, const Task&, const MemoryQuestion&);
template std::int64_t memory_estimate(const Prepared<float>&, const Task&, const MemoryQuestion&);

}  // namespace dpa2
