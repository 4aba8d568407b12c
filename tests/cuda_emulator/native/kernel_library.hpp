// A kernel source as a shared library for this processor, kept in a folder between runs of the tests.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace emulated {

using Defines = std::vector<std::pair<std::string, std::string>>;

/// With the compiler's words.
struct BuildError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A kernel of a source, and the largest block as written in its __launch_bounds__, or "".
struct Kernel {
  std::string name, bounds;
};
std::vector<Kernel> kernels_of(const std::string& text);

/// The library of a source compiled with these defines. `sanitizer`: "", "address" or "thread". Beside it, with ".shared" after its
/// name, the bytes of static shared memory of each kernel.
std::string build(const std::string& path, const std::vector<std::string>& includes, const Defines& defines, const std::string& sanitizer);

/// The object of the compiled runtime.
std::string runtime();

/// A file with that text in the cache, for sources that are given as text only.
std::string keep_text(const std::string& name, const std::string& text);

std::string read_file(const std::string& path);

}  // namespace emulated
