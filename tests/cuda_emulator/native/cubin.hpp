// What the emulated compiler makes and the emulated driver loads: where the library of a source lies.
#pragma once

#include <fstream>
#include <sstream>
#include <string>

namespace emulated {

struct Cubin {
  std::string path, source;
  int architecture = 0;
  int ptx = 0;  ///< the compiler's version where it is PTX, as 13000 for 13.0: older drivers refuse it

  static constexpr const char* magic = "emulated cubin";

  [[nodiscard]] std::string text() const {
    std::ostringstream out;
    out << magic << '\n' << path << '\n' << source << '\n' << architecture << ' ' << ptx << '\n';
    return out.str();
  }
  bool read(const char* image) {
    std::istringstream in(image);
    std::string first;
    return std::getline(in, first) && first == magic && std::getline(in, path) && std::getline(in, source) && in >> architecture >> ptx;
  }
};

/// Bytes of static shared memory of a kernel, which the compiler has written beside the library.
inline int static_shared_of(const std::string& path, const std::string& kernel) {
  std::ifstream in(path + ".shared");
  std::string name;
  int bytes = 0;
  while (in >> name >> bytes)
    if (name == kernel) return bytes;
  return 0;
}

}  // namespace emulated
