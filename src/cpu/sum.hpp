// What the few sums are made in that carry their last digits into everything.
#pragma once

#include <type_traits>

namespace dpa2 {

/// Doubles for floats. Dual numbers are for training, which does not need it.
template <class T>
using Sum = std::conditional_t<std::is_same_v<T, float>, double, T>;

}  // namespace dpa2
