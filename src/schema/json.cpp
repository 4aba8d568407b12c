#include "schema/json.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "error.hpp"

namespace dpa2 {
namespace {

constexpr std::size_t max_depth = 32;
constexpr std::size_t max_values = 1'000'000;  // models have thousands; a value takes up to fifty times the memory of its text

/// Builds a value from the events of the parser, in time and memory linear in the text. Of two equal keys the parser itself would
/// keep the last one: two readers could then see two different models.
class Builder {
 public:
  explicit Builder(const std::string& what) : what_(what) {}
  Json root;

  bool null() { return add(nullptr) != nullptr; }
  bool boolean(bool value) { return add(value) != nullptr; }
  bool number_integer(Json::number_integer_t value) { return add(value) != nullptr; }
  bool number_unsigned(Json::number_unsigned_t value) { return add(value) != nullptr; }
  bool number_float(Json::number_float_t value, const std::string&) { return add(value) != nullptr; }
  bool string(std::string& value) { return add(std::move(value)) != nullptr; }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool parse_error(std::size_t, const std::string&, const Json::exception&) { return false; }
  bool key(std::string& name) {
    const auto [slot, is_new] = open_.back()->get_ref<Json::object_t&>().emplace(std::move(name), nullptr);
    if (!is_new) throw model_file_error("corrupt file: the key '", printable(slot->first), "' occurs twice in ", what_);
    member_ = &slot->second;
    return true;
  }

 private:
  Json* add(Json value) {
    if (++values_ > max_values) throw model_file_error("corrupt file: ", what_, " has more than ", max_values, " values");
    if (open_.empty()) {
      root = std::move(value);
      return &root;
    }
    if (open_.back()->is_array()) {
      Json::array_t& list = open_.back()->get_ref<Json::array_t&>();
      list.push_back(std::move(value));
      return &list.back();
    }
    *member_ = std::move(value);
    return member_;
  }
  // A pointer to an open value holds: its parent does not grow before it is closed.
  bool open(Json value) {
    if (open_.size() > max_depth) throw model_file_error("corrupt file: ", what_, " is nested too deeply");
    open_.push_back(add(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& what_;
  std::vector<Json*> open_;
  Json* member_ = nullptr;
  std::size_t values_ = 0;
};

int checked_integer(const Json& value, const std::string& path, int lowest, int highest) {
  bool good = value.is_number();
  double number = 0.0;
  if (good) {
    number = value.get<double>();
    good = number == std::floor(number) && number >= lowest && number <= highest;
  }
  if (!good)
    throw model_file_error("the configuration is inconsistent: ", path, " is ", shown(value), ", expected an integer from ", lowest, " to ",
                           highest);
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
  Builder builder(what);
  if (!Json::sax_parse(input.begin(), input.end(), &builder)) throw model_file_error("corrupt file: ", what, " is not valid JSON");
  if (!builder.root.is_object()) throw model_file_error("corrupt file: ", what, " is not a JSON object");
  return std::move(builder.root);
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
  if (!value.is_array())
    throw model_file_error("the configuration is inconsistent: ", path(key), " is ", shown(value), ", expected a list");
  return value;
}

bool JsonObject::boolean(const char* key) {
  const Json& value = get(key);
  if (!value.is_boolean())
    throw model_file_error("the configuration is inconsistent: ", path(key), " is ", shown(value), ", expected true or false");
  return value.get<bool>();
}

int JsonObject::integer(const char* key, int lowest, int highest) { return checked_integer(get(key), path(key), lowest, highest); }

double JsonObject::number(const char* key) { return checked_number(get(key), path(key)); }

double JsonObject::positive(const char* key) {
  const double value = number(key);
  if (!(value > 0.0))
    throw model_file_error("the configuration is inconsistent: ", path(key), " is ", value, ", expected a positive number");
  return value;
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

std::vector<JsonObject> JsonObject::objects(const char* key) {
  std::vector<JsonObject> out;
  for (const Json& item : list(key)) out.emplace_back(item, path(key) + "[" + std::to_string(out.size()) + "]");
  return out;
}

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
