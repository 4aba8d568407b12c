// Checks for the native test programs: a failed check prints where it stands and the program goes on; `return finish();` at
// the end of main turns the number of failures into the exit status.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>

namespace check {

inline int failures = 0;
inline int checks = 0;

inline bool pass() {
  ++checks;
  return true;
}

inline bool fail(const char* file, int line, const std::string& what) {
  ++checks;
  if (++failures <= 50) std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, what.c_str());
  return false;
}

inline int finish() {
  std::printf("%d checks, %d failures\n", checks, failures);
  if (checks == 0) std::fprintf(stderr, "no check was made\n");
  return failures == 0 && checks > 0 ? 0 : 1;
}

}  // namespace check

// The text of a check is made only when it fails: tests make millions of them.
#define CHECK_TEXT(condition, what) (static_cast<bool>(condition) ? check::pass() : check::fail(__FILE__, __LINE__, what))

// True when the condition holds, so that a caller can stop after the first failure of many.
#define CHECK(condition) CHECK_TEXT(condition, #condition)

// The same with a text that says which case failed.
#define CHECK_CASE(condition, name) CHECK_TEXT(condition, std::string(#condition " in ") + (name))

// |a - b| <= tolerance, false for NaN.
#define CHECK_NEAR(a, b, tolerance)                                                    \
  CHECK_TEXT(std::abs(static_cast<double>(a) - static_cast<double>(b)) <= (tolerance), \
             std::string(#a " == " #b ": ") + std::to_string(static_cast<double>(a)) + " and " + std::to_string(static_cast<double>(b)))

// The statement throws a dpa2::Error of this status whose message contains the text.
#define CHECK_THROWS(statement, expected_status, part)                                                            \
  do {                                                                                                            \
    bool thrown_ = true;                                                                                          \
    try {                                                                                                         \
      statement;                                                                                                  \
      thrown_ = false;                                                                                            \
    } catch (const dpa2::Error& error_) {                                                                         \
      const std::string message_ = error_.what();                                                                 \
      CHECK_TEXT(error_.status() == (expected_status), "status of: " + message_);                                 \
      CHECK_TEXT(message_.find(part) != std::string::npos, std::string("\"") + (part) + "\" is in: " + message_); \
    } catch (const std::exception& error_) { CHECK_TEXT(false, std::string("type of: ") + error_.what()); }       \
    CHECK_TEXT(thrown_, #statement " throws");                                                                    \
  } while (false)
