// JSON of model files, read with distrust: bounded depth, no key twice, and every access checked.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dpa2 {

using Json = nlohmann::json;

/// Parses a text that must hold one object; `what` names it in messages. Throws model_file_error.
Json parse_json_object(std::string_view text, const std::string& what);

/// Reads the members of an object by name and kind, and in the end refuses what was not asked for.
class JsonObject {
 public:
  /// `where` is the path of the object in messages, empty for the outermost one.
  JsonObject(const Json& value, std::string where);

  bool boolean(const char* key);
  int integer(const char* key, int lowest, int highest);
  double number(const char* key);
  double positive(const char* key);
  const std::string& word(const char* key);
  bool is_null(const char* key);
  /// Whether an optional member is there and not null.
  bool has(const char* key) const;
  JsonObject object(const char* key);
  /// A list of objects.
  std::vector<JsonObject> objects(const char* key);
  /// A list of numbers or nulls.
  std::vector<std::optional<double>> holes(const char* key);
  std::vector<double> numbers(const char* key);
  std::vector<int> integers(const char* key, int lowest, int highest);
  std::vector<std::string> words(const char* key);
  /// Lists of `width` integers each, one after the other.
  std::vector<int> tuples(const char* key, std::size_t width, int lowest, int highest);

  /// The path of a member, for messages.
  std::string path(const char* key) const;
  /// Throws `unsupported` when the object has a member that nobody has read: it might change what the model computes.
  void finish() const;

 private:
  const Json& get(const char* key);
  const Json& list(const char* key);
  const Json* value_;
  std::string where_;
  std::vector<std::string> read_;
};

/// A value for a message: short, and on one line.
std::string shown(const Json& value);

/// Text of a file for a message: at most 100 characters, printable.
std::string printable(std::string_view text);

}  // namespace dpa2
