#include "schema/reader.hpp"

#include <algorithm>
#include <cmath>
#include <locale>
#include <sstream>

namespace dpa2 {

namespace {

std::string joined(const std::vector<const char*>& names) {
  std::string out;
  for (const char* name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

}  // namespace

std::size_t Reader::choice(JsonObject& o, const char* key, const Values& v) {
  const std::string& word = o.word(key);
  for (std::size_t k = 0; k < v.choices.size(); ++k)
    if (word == v.choices[k]) return k;
  throw unsupported(o.path(key), " is '", printable(word), "'; supported ", v.choices.size() == 1 ? "is " : "are ", joined(v.choices));
}

void Reader::check_entries(const JsonObject& o, const char* key, const Values& v, std::size_t found) {
  if (found < v.fewest || found > v.most) throw inconsistent(o.path(key), " must have ", v.fewest, " to ", v.most, " entries");
}

void Reader::value(JsonObject& o, const char* key, const Values&, ActivationConfig& out) const {
  std::string name = o.word(key);
  for (char& c : name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  const std::size_t colon = name.find(':');
  const std::string base = name.substr(0, colon);
  const std::vector<NamedActivation>& known = activations();
  const auto found = std::find_if(known.begin(), known.end(), [&](const NamedActivation& a) { return base == a.name; });
  if (found == known.end() || (colon != std::string::npos && found->kind != Activation::silut)) {
    std::vector<const char*> names;
    for (const NamedActivation& a : known) names.push_back(a.name);
    throw unsupported(o.path(key), " is '", printable(name), "'; supported are ", joined(names));
  }
  out = {};
  out.kind = found->kind;
  if (colon == std::string::npos) return;
  std::istringstream in(name.substr(colon + 1));
  in.imbue(std::locale::classic());  // a decimal point, whatever the caller's language
  in >> out.threshold;
  const bool complete = !in.fail() && (in >> std::ws).eof();
  if (!complete || !std::isfinite(out.threshold))
    throw inconsistent(o.path(key), " is '", printable(name), "', expected a number behind the colon");
}

}  // namespace dpa2
