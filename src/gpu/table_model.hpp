// A pair table that is a model by itself, as a part of a linear combination.
#pragma once

#include "gpu/pair_table.hpp"
#include "gpu/stages.hpp"

namespace dpa2::gpu {

template <class T>
class TableModel final : public Stages<T> {
 public:
  TableModel(const FoldedPairTable& table, Loader& loader) : Stages<T>(loader), table_(table, loader) {}

  void enqueue(Queue& queue, const Frame& frame, const Request& request, const Parameters& given, const Output& out,
               GhostRows<T>* ghosts) const override;
  [[nodiscard]] const HeadShape& shape() const override { return shape_; }

 private:
  HeadShape shape_;
  PairTable<T> table_;
};

extern template class TableModel<float>;
extern template class TableModel<double>;

}  // namespace dpa2::gpu
