// Reads the configuration by the tables of its options.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "error.hpp"
#include "schema/json.hpp"
#include "schema/options.hpp"

namespace dpa2 {

template <class... Args>
Error inconsistent(const Args&... args) {
  return model_file_error("the configuration is inconsistent: ", args...);
}

/// Reads the options of a section as their table says.
class Reader {
 public:
  /// Its types are known by the time that an option asks for their number.
  explicit Reader(const Config& config) : config_(config) {}

  template <class Section>
  void read(JsonObject& o, const Options<Section>& options, Section& out) const {
    for (const Option<Section>& option : options) {
      if (option.presence == Presence::optional && !o.has(option.key)) continue;
      std::visit([&](auto member) { value(o, option.key, option.values, out.*member); }, option.member);
    }
  }

 private:
  void value(JsonObject& o, const char* key, const Values& v, bool& out) const {
    out = v.choices.empty() ? o.boolean(key) : choice(o, key, v) == 1;
  }
  void value(JsonObject& o, const char* key, const Values& v, int& out) const { out = o.integer(key, lowest(v), highest(v)); }
  void value(JsonObject& o, const char* key, const Values& v, double& out) const {
    out = v.positive ? o.positive(key) : o.number(key);
    if (v.lowest && out < *v.lowest) throw inconsistent(o.path(key), " is ", out, ", expected at least ", *v.lowest);
    if (v.highest && out > *v.highest) throw inconsistent(o.path(key), " is ", out, ", expected at most ", *v.highest);
  }
  void value(JsonObject& o, const char* key, const Values& v, std::string& out) const {
    out = v.choices.empty() ? o.word(key) : v.choices[choice(o, key, v)];
  }
  void value(JsonObject& o, const char* key, const Values& v, UpdateStyle& out) const { out = static_cast<UpdateStyle>(choice(o, key, v)); }
  void value(JsonObject& o, const char* key, const Values& v, FittingType& out) const { out = static_cast<FittingType>(choice(o, key, v)); }
  void value(JsonObject& o, const char* key, const Values&, ActivationConfig& out) const;
  template <class T>
  void value(JsonObject& o, const char* key, const Values& v, std::optional<T>& out) const {
    if (o.is_null(key))
      out.reset();
    else
      value(o, key, v, out.emplace());
  }
  void value(JsonObject& o, const char* key, const Values& v, std::vector<int>& out) const {
    out = o.integers(key, lowest(v), highest(v));
    check_entries(o, key, v, out.size());
  }
  void value(JsonObject& o, const char* key, const Values& v, std::vector<std::string>& out) const {
    out = o.words(key);
    check_entries(o, key, v, out.size());
  }
  void value(JsonObject& o, const char* key, const Values& v, std::vector<std::pair<int, int>>& out) const {
    const std::vector<int> flat = o.tuples(key, 2, lowest(v), highest(v));
    check_entries(o, key, v, flat.size() / 2);
    out.clear();
    for (std::size_t k = 0; k < flat.size(); k += 2) out.emplace_back(flat[k], flat[k + 1]);
  }
  void value(JsonObject& o, const char* key, const Values& v, std::vector<double>& out) const {
    out = o.numbers(key);
    check_entries(o, key, v, out.size());
  }
  void value(JsonObject& o, const char* key, const Values& v, std::vector<std::optional<double>>& out) const {
    out = o.holes(key);
    check_entries(o, key, v, out.size());
  }

  static std::size_t choice(JsonObject& o, const char* key, const Values& v);
  static void check_entries(const JsonObject& o, const char* key, const Values& v, std::size_t found);
  int lowest(const Values& v) const { return v.types ? 0 : static_cast<int>(v.lowest.value()); }
  int highest(const Values& v) const { return v.types ? config_.ntypes() - 1 : static_cast<int>(v.highest.value()); }

  const Config& config_;
};

}  // namespace dpa2
