// The one exception type of the native library. Every failure that a caller can cause carries a status, so that the C gate
// and the Python module translate it without looking at the text.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace dpa2 {

enum class Status {
  ok = 0,
  invalid_input,  // coordinates, types, box, parameters of a call
  model_file,     // a model file or its configuration is corrupt or inconsistent
  unsupported,    // the model is valid but uses an option that is not implemented
  out_of_memory,
  internal,  // a broken promise inside the library
  exchange,  // a communication callback of the caller failed
};

// What std::bad_alloc means to a caller.
inline constexpr const char* no_memory =
    "there is not enough memory: evaluate fewer atoms at once, with fewer threads, or where there is more";

class Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  [[nodiscard]] Status status() const noexcept { return status_; }

 private:
  Status status_;
};

// Streams its arguments one after the other: text("atom ", 3) == "atom 3".
template <class... Args>
[[nodiscard]] std::string text(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// Factories: throw invalid_input("atom ", i, ": coordinate is not finite").
template <class... Args>
[[nodiscard]] Error invalid_input(const Args&... args) {
  return {Status::invalid_input, text(args...)};
}
template <class... Args>
[[nodiscard]] Error model_file_error(const Args&... args) {
  return {Status::model_file, text(args...)};
}
template <class... Args>
[[nodiscard]] Error unsupported(const Args&... args) {
  return {Status::unsupported, text(args...)};
}
template <class... Args>
[[nodiscard]] Error out_of_memory(const Args&... args) {
  return {Status::out_of_memory, text(args...)};
}
template <class... Args>
[[nodiscard]] Error internal_error(const Args&... args) {
  return {Status::internal, text(args...)};
}

}  // namespace dpa2
