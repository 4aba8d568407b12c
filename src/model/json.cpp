#include "model/json.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "error.hpp"

namespace dpa2 {
namespace {

constexpr int max_depth = 32;
constexpr std::size_t max_list = 100'000'000 / sizeof(Json);

int checked_integer(const Json& value, const std::string& path, int lowest, int highest) {
  bool good = value.is_number();
  double number = 0.0;
  if (good) {
    number = value.get<double>();
    good = number == std::floor(number) && number >= lowest && number <= highest;
  }
  if (!good)
    throw model_file_error("the configuration is inconsistent: ", path, " is ", shown(value), ", expected an integer from ", lowest,
                           " to ", highest);
  return static_cast<int>(number);
}

double checked_number(const Json& value, const std::string& path) {
  const double number = value.is_number() ? value.get<double>() : HUGE_VAL;
  if (!(std::abs(number) <= 1e300))
    throw model_file_error("the configuration is inconsistent: ", path, " is ", shown(value), ", expected a finite number");
  return number;
}

}  // namespace

std::string printable(std::string_view value) {
  std::string out;
  for (const char c : value.substr(0, 100)) out += c >= ' ' && c <= '~' ? c : '?';
  if (value.size() > 100) out += "...";
  return out;
}

std::string shown(const Json& value) {
  if (value.is_array()) return "a list of " + std::to_string(value.size());
  if (value.is_object()) return "an object";
  if (value.is_string()) return "'" + printable(value.get_ref<const std::string&>()) + "'";
  return value.dump();
}

Json parse_json_object(std::string_view input, const std::string& what) {
  // The parser keeps the last of two equal keys: two readers could then see two different models.
  std::vector<std::set<std::string>> keys;
  const auto callback = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > max_depth) throw model_file_error("corrupt file: ", what, " is nested too deeply");
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second)
        throw model_file_error("corrupt file: the key '", printable(key), "' occurs twice in ", what);
    }
    return true;
  };
  Json value;
  try {
    value = Json::parse(input.begin(), input.end(), callback);
  } catch (const Json::exception&) {
    throw model_file_error("corrupt file: ", what, " is not valid JSON");
  }
  if (!value.is_object()) throw model_file_error("corrupt file: ", what, " is not a JSON object");
  return value;
}

JsonObject::JsonObject(const Json& value, std::string where) : value_(&value), where_(std::move(where)) {
  if (!value.is_object())
    throw model_file_error("the configuration is inconsistent: ", where_, " is ", shown(value), ", expected an object");
}

std::string JsonObject::path(const char* key) const { return where_.empty() ? key : where_ + "." + key; }

const Json& JsonObject::get(const char* key) {
  const auto found = value_->find(key);
  if (found == value_->end()) throw model_file_error("the configuration is incomplete: ", path(key), " is missing");
  read_.emplace_back(key);
  return *found;
}

const Json& JsonObject::list(const char* key) {
  const Json& value = get(key);
  if (!value.is_array() || value.size() > max_list)
    throw model_file_error("the configuration is inconsistent: ", path(key), " is ", shown(value), ", expected a list");
  return value;
}

bool JsonObject::boolean(const char* key) {
  const Json& value = get(key);
  if (!value.is_boolean())
    throw model_file_error("the configuration is inconsistent: ", path(key), " is ", shown(value), ", expected true or false");
  return value.get<bool>();
}

int JsonObject::integer(const char* key, int lowest, int highest) {
  return checked_integer(get(key), path(key), lowest, highest);
}

double JsonObject::number(const char* key) { return checked_number(get(key), path(key)); }

double JsonObject::positive(const char* key) {
  const double value = number(key);
  if (!(value > 0.0))
    throw model_file_error("the configuration is inconsistent: ", path(key), " is ", value, ", expected a positive number");
  return value;
}

std::optional<double> JsonObject::optional_number(const char* key) {
  if (get(key).is_null()) return std::nullopt;
  return number(key);
}

bool JsonObject::is_null(const char* key) { return get(key).is_null(); }

bool JsonObject::has(const char* key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

const std::string& JsonObject::word(const char* key) {
  const Json& value = get(key);
  if (!value.is_string())
    throw model_file_error("the configuration is inconsistent: ", path(key), " is ", shown(value), ", expected a text");
  return value.get_ref<const std::string&>();
}

JsonObject JsonObject::object(const char* key) { return {get(key), path(key)}; }

std::vector<std::optional<double>> JsonObject::holes(const char* key) {
  std::vector<std::optional<double>> out;
  for (const Json& item : list(key)) {
    if (item.is_null())
      out.emplace_back();
    else
      out.emplace_back(checked_number(item, path(key)));
  }
  return out;
}

std::vector<double> JsonObject::numbers(const char* key) {
  std::vector<double> out;
  for (const Json& item : list(key)) out.push_back(checked_number(item, path(key)));
  return out;
}

std::vector<int> JsonObject::integers(const char* key, int lowest, int highest) {
  std::vector<int> out;
  for (const Json& item : list(key)) out.push_back(checked_integer(item, path(key), lowest, highest));
  return out;
}

std::vector<std::string> JsonObject::words(const char* key) {
  std::vector<std::string> out;
  for (const Json& item : list(key)) {
    if (!item.is_string())
      throw model_file_error("the configuration is inconsistent: ", path(key), " holds ", shown(item), ", expected texts");
    out.push_back(item.get<std::string>());
  }
  return out;
}

std::vector<int> JsonObject::tuples(const char* key, std::size_t width, int lowest, int highest) {
  std::vector<int> out;
  for (const Json& item : list(key)) {
    if (!item.is_array() || item.size() != width)
      throw model_file_error("the configuration is inconsistent: ", path(key), " holds ", shown(item), ", expected lists of ", width,
                             " integers");
    for (const Json& entry : item) out.push_back(checked_integer(entry, path(key), lowest, highest));
  }
  return out;
}

void JsonObject::finish() const {
  for (const auto& [key, value] : value_->items()) {
    if (value.is_null() || std::find(read_.begin(), read_.end(), key) != read_.end()) continue;
    throw unsupported("the option ", where_.empty() ? "" : where_ + ".", printable(key),
                      " is unknown; the model cannot be evaluated safely");
  }
}

}  // namespace dpa2
