// The `loss` section of an input: keys with defaults, checked as deepmd-kit checks them.
#pragma once

#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "schema/json.hpp"

namespace dpa2::train {

/// A prefactor that follows the learning rate from start to limit.
struct Prefactor {
  double start = 0.0, limit = 0.0;

  /// deepmd-kit has a term only where both ends have a weight.
  [[nodiscard]] bool on() const { return start != 0.0 && limit != 0.0; }
  /// At a fraction of the first learning rate.
  [[nodiscard]] double at(double fraction) const { return limit + (start - limit) * fraction; }
};

class Section {
 public:
  explicit Section(std::string_view text);

  /// A finite number.
  double number(const char* key, double fallback, double lowest = -std::numeric_limits<double>::infinity());
  std::optional<double> number_or_null(const char* key);
  bool boolean(const char* key, bool fallback);
  int integer(const char* key, int fallback, int lowest, int highest);
  std::string word(const char* key, const std::string& fallback, std::initializer_list<const char*> known);
  std::vector<std::string> words(const char* key, std::vector<std::string> fallback);
  /// A number for all, or a list of `count`; none negative.
  std::vector<double> numbers(const char* key, double fallback, std::size_t count);
  /// start_pref_<name> and limit_pref_<name>.
  Prefactor prefactor(const std::string& name, double start, double limit, double lowest = -std::numeric_limits<double>::infinity());

  /// Throws when the section has a key that nobody has asked for. Those that begin with an underscore are comments.
  void finish() const;

 private:
  const Json* find(const std::string& key);
  Json section_;
  std::vector<std::string> asked_;
};

}  // namespace dpa2::train
