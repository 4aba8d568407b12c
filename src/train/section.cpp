#include "train/section.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "error.hpp"

namespace dpa2::train {
namespace {

[[noreturn]] void refuse(const std::string& key, const Json& value, const std::string& wanted) {
  throw invalid_input("loss.", key, " is ", shown(value), ", expected ", wanted);
}

double finite(const std::string& key, const Json& value, const std::string& wanted) {
  const double number = value.is_number() ? value.get<double>() : HUGE_VAL;
  if (!(std::abs(number) <= 1e300)) refuse(key, value, wanted);
  return number;
}

}  // namespace

Section::Section(std::string_view text) {
  try {
    section_ = parse_json_object(text, "the loss section");
  } catch (const Error&) { throw invalid_input("the loss section is not a JSON object of numbers that a double holds and of valid texts"); }
}

const Json* Section::find(const std::string& key) {
  asked_.push_back(key);
  const auto found = section_.find(key);
  return found == section_.end() ? nullptr : &*found;
}

double Section::number(const char* key, double fallback, double lowest) {
  const Json* const value = find(key);
  if (value == nullptr) return fallback;
  const std::string wanted = lowest >= 0.0 ? "a number that is not negative" : "a number";
  const double number = finite(key, *value, wanted);
  if (number < lowest) refuse(key, *value, wanted);
  return number;
}

std::optional<double> Section::number_or_null(const char* key) {
  const Json* const value = find(key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  return finite(key, *value, "a number or null");
}

bool Section::boolean(const char* key, bool fallback) {
  const Json* const value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) refuse(key, *value, "true or false");
  return value->get<bool>();
}

int Section::integer(const char* key, int fallback, int lowest, int highest) {
  const Json* const value = find(key);
  if (value == nullptr) return fallback;
  const double number = value->is_number_integer() ? value->get<double>() : HUGE_VAL;
  if (!(number >= lowest && number <= highest)) refuse(key, *value, text("an integer from ", lowest, " to ", highest));
  return static_cast<int>(number);
}

std::string Section::word(const char* key, const std::string& fallback, std::initializer_list<const char*> known) {
  const Json* const value = find(key);
  if (value == nullptr) return fallback;
  std::string all;
  for (const char* const name : known) {
    if (value->is_string() && value->get_ref<const std::string&>() == name) return name;
    all += text(all.empty() ? "" : " or ", "'", name, "'");
  }
  refuse(key, *value, all);
}

std::vector<std::string> Section::words(const char* key, std::vector<std::string> fallback) {
  const Json* const value = find(key);
  if (value == nullptr) return fallback;
  const bool texts = value->is_array() && std::all_of(value->begin(), value->end(), [](const Json& item) { return item.is_string(); });
  if (!texts) refuse(key, *value, "a list of names");
  return value->get<std::vector<std::string>>();
}

std::vector<double> Section::numbers(const char* key, double fallback, std::size_t count) {
  const Json* const value = find(key);
  if (value == nullptr) return std::vector<double>(count, fallback);
  const std::string wanted = text("a number that is not negative, or a list of ", count, " such numbers");
  if (value->is_array() && value->size() != count) refuse(key, *value, wanted);
  std::vector<double> out(count);
  for (std::size_t k = 0; k < count; ++k) {
    out[k] = finite(key, value->is_array() ? (*value)[k] : *value, wanted);
    if (out[k] < 0.0) refuse(key, value->is_array() ? (*value)[k] : *value, wanted);
  }
  return out;
}

Prefactor Section::prefactor(const std::string& name, double start, double limit, double lowest) {
  const std::string start_key = "start_pref_" + name, limit_key = "limit_pref_" + name;
  return {number(start_key.c_str(), start, lowest), number(limit_key.c_str(), limit, lowest)};
}

void Section::finish() const {
  for (const auto& [key, value] : section_.items())
    if (key.rfind('_', 0) != 0 && std::find(asked_.begin(), asked_.end(), key) == asked_.end())
      throw invalid_input("loss.", printable(key), " is not a key of this type of loss");
}

}  // namespace dpa2::train
