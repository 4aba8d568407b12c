// NVRTC's functions over the C++ compiler of this machine: see kernel_library.hpp. $DPA2_EMULATED_SANITIZER: "address" or "thread".
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "cubin.hpp"
#include "kernel_library.hpp"

using namespace emulated;

namespace {

struct Program {
  std::string text, name, log, image;
};

enum { OK = 0, OUT_OF_MEMORY = 1, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6 };
constexpr int version = 13000;
constexpr int architectures[] = {75, 80, 86, 89, 90, 100, 120};

std::string path_of(const Program& program, const std::vector<std::string>& includes) {
  for (const std::string& folder : includes) {
    const std::string path = folder + "/cuda/" + program.name;
    if (std::ifstream(path).good() && read_file(path) == program.text) return path;
  }
  return keep_text(program.name, program.text);
}

bool begins(const std::string& text, const char* with) { return text.rfind(with, 0) == 0; }

int give(const std::string& text, char* to) {
  std::memcpy(to, text.c_str(), text.size() + 1);
  return OK;
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) all.push_back(line);
  return all;
}

template <class F>
int answer(char* to, std::size_t bytes, F ask) {
  int status = 0;
  std::string text;
  try {
    text = ask();
  } catch (const std::exception& error) {
    text = error.what();
    status = 1;
  }
  std::snprintf(to, bytes, "%s", text.c_str());
  return status;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int nvrtcVersion(int* major, int* minor) {
  *major = version / 1000;
  *minor = version % 1000 / 10;
  return OK;
}

const char* nvrtcGetErrorString(int status) {
  switch (status) {
    case OK:
      return "NVRTC_SUCCESS";
    case INVALID_INPUT:
      return "NVRTC_ERROR_INVALID_INPUT";
    case INVALID_PROGRAM:
      return "NVRTC_ERROR_INVALID_PROGRAM";
    case INVALID_OPTION:
      return "NVRTC_ERROR_INVALID_OPTION";
    case COMPILATION:
      return "NVRTC_ERROR_COMPILATION";
    default:
      return "NVRTC_ERROR unknown";
  }
}

int nvrtcGetNumSupportedArchs(int* count) {
  *count = static_cast<int>(std::size(architectures));
  return OK;
}

int nvrtcGetSupportedArchs(int* all) {
  std::memcpy(all, architectures, sizeof architectures);
  return OK;
}

int nvrtcCreateProgram(void** program, const char* text, const char* name, int headers, const char* const*, const char* const*) {
  if (headers != 0 || text == nullptr) return INVALID_INPUT;
  *program = new Program{text, name != nullptr ? name : "default_program", "", ""};
  return OK;
}

int nvrtcDestroyProgram(void** program) {
  delete static_cast<Program*>(*program);
  *program = nullptr;
  return OK;
}

int nvrtcCompileProgram(void* handle, int count, const char* const* options) {
  auto& program = *static_cast<Program*>(handle);
  std::vector<std::string> includes;
  Defines defines;
  Cubin cubin;
  cubin.architecture = architectures[0];
  for (int k = 0; k < count; ++k) {
    const std::string option = options[k];
    if (begins(option, "-I")) {
      includes.push_back(option.substr(2));
    } else if (begins(option, "-D")) {
      const std::size_t end = option.find('=');
      defines.emplace_back(option.substr(2, end == std::string::npos ? end : end - 2),
                           end == std::string::npos ? "1" : option.substr(end + 1));
    } else if (begins(option, "-arch=sm_") || begins(option, "-arch=compute_")) {
      cubin.ptx = begins(option, "-arch=compute_") ? version : 0;
      cubin.architecture = std::atoi(option.substr(option.find('_') + 1).c_str());
    } else if (option != "--std=c++17" && !begins(option, "-ftz=") && option != "--device-as-default-execution-space") {
      program.log = "nvrtc: error: invalid value for option: " + option + "\n";
      return INVALID_OPTION;
    }
  }
  const char* sanitizer = std::getenv("DPA2_EMULATED_SANITIZER");
  try {
    cubin.source = program.name;
    cubin.path = build(path_of(program, includes), includes, defines, sanitizer != nullptr ? sanitizer : "");
  } catch (const std::exception& error) {
    program.log = error.what();
    return COMPILATION;
  }
  program.image = cubin.text();
  return OK;
}

int nvrtcGetProgramLogSize(void* handle, std::size_t* bytes) {
  *bytes = static_cast<Program*>(handle)->log.size() + 1;
  return OK;
}
int nvrtcGetProgramLog(void* handle, char* to) { return give(static_cast<Program*>(handle)->log, to); }

int nvrtcGetCUBINSize(void* handle, std::size_t* bytes) {
  *bytes = static_cast<Program*>(handle)->image.size() + 1;
  return OK;
}
int nvrtcGetCUBIN(void* handle, char* to) { return give(static_cast<Program*>(handle)->image, to); }
int nvrtcGetPTXSize(void* handle, std::size_t* bytes) { return nvrtcGetCUBINSize(handle, bytes); }
int nvrtcGetPTX(void* handle, char* to) { return nvrtcGetCUBIN(handle, to); }

// For cuda_emulator/build.py. Each returns 0 and its answer in `to`, or 1 and what was wrong.

// The path of the library of a source. `includes` and `defines` ("name=value") one a line.
int emulated_build(const char* path, const char* includes, const char* defines, const char* sanitizer, char* to, std::size_t bytes) {
  return answer(to, bytes, [&] {
    Defines pairs;
    for (const std::string& line : lines(defines)) pairs.emplace_back(line.substr(0, line.find('=')), line.substr(line.find('=') + 1));
    return build(path, lines(includes), pairs, sanitizer);
  });
}

// The names of the kernels of a source and the bounds of their blocks, one a line.
int emulated_kernels(const char* text, char* to, std::size_t bytes) {
  return answer(to, bytes, [&] {
    std::string all;
    for (const Kernel& kernel : kernels_of(text)) all += kernel.name + " " + kernel.bounds + "\n";
    return all;
  });
}

// The object of the runtime.
int emulated_runtime(char* to, std::size_t bytes) { return answer(to, bytes, runtime); }

}  // extern "C"
#pragma GCC visibility pop
