// Sizes that do not overflow.
#pragma once

#include <cstdint>

namespace dpa2 {

/// A number of atoms, elements or bytes, not less than 0, that stays at the largest one where a sum or product is beyond it. The
/// memory of systems that no machine could hold is asked for as well, and "as much as there are numbers" is the right answer.
class Count {
 public:
  static constexpr std::int64_t largest = INT64_MAX;

  constexpr Count() = default;
  constexpr Count(std::int64_t value) : value_(value) {}  // NOLINT: numbers are counts
  /// The part before the point; 0 for NaN.
  [[nodiscard]] static Count of(double value) {
    if (!(value > 0.0)) return 0;
    return value < 9.2e18 ? static_cast<std::int64_t>(value) : largest;
  }
  [[nodiscard]] constexpr std::int64_t value() const noexcept { return value_; }

  friend Count operator+(Count a, Count b) {
    std::int64_t sum = 0;
    return __builtin_add_overflow(a.value_, b.value_, &sum) ? largest : sum;
  }
  friend Count operator*(Count a, Count b) {
    std::int64_t product = 0;
    return __builtin_mul_overflow(a.value_, b.value_, &product) ? largest : product;
  }
  friend bool operator<=(Count a, Count b) { return a.value_ <= b.value_; }

 private:
  std::int64_t value_ = 0;
};

}  // namespace dpa2
