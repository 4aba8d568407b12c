// Remarks of evaluations as Python gets them.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <vector>

#include "neighbors/edges.hpp"

namespace dpa2::python {

/// What dpa2.remarks.Remarks is made of.
inline pybind11::tuple to_tuple(const Remarks& remarks) {
  std::vector<std::tuple<std::string, int, int, int>> list;
  for (const Overflow& o : remarks.overflow) list.emplace_back(block_name(o.block), o.atom, o.count, o.sel);
  const ClosestPair& pair = remarks.closest;
  return pybind11::make_tuple(list, pair.i < 0 ? pybind11::object(pybind11::none()) : pybind11::make_tuple(pair.i, pair.j, pair.r),
                              remarks.clamped.atom, remarks.clamped.count);
}

}  // namespace dpa2::python
