#include "gpu/nvrtc.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "gpu/kernel_package.hpp"

namespace dpa2::gpu {

namespace {

constexpr const char* install =
    "install it with `pip install nvidia-cuda-nvrtc` (for drivers of CUDA 13) or `pip install nvidia-cuda-nvrtc-cu12` (for CUDA 12), or "
    "with the CUDA toolkit, and name the library by DPA2_NVRTC where the system does not find it";

bool exists(const std::string& path) { return std::ifstream(path).good(); }

std::string parent(const std::string& path) {
  const std::size_t end = path.find_last_of('/');
  return end == std::string::npos ? "." : end == 0 ? "/" : path.substr(0, end);
}

// The folder of the library, or program, that this code is linked into.
std::string own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return ".";
  char* full = realpath(info.dli_fname, nullptr);
  const std::string path = full != nullptr ? full : info.dli_fname;
  std::free(full);
  return parent(path);
}

#define DPA2_NVRTC_CALLS(CALL)                                                                                                  \
  CALL(version, nvrtcVersion, int, (int* major, int* minor))                                                                    \
  CALL(words, nvrtcGetErrorString, const char*, (int status))                                                                   \
  CALL(count_architectures, nvrtcGetNumSupportedArchs, int, (int* count))                                                       \
  CALL(architectures, nvrtcGetSupportedArchs, int, (int* all))                                                                  \
  CALL(create, nvrtcCreateProgram, int,                                                                                         \
       (Handle * program, const char* text, const char* name, int headers, const char* const* texts, const char* const* names)) \
  CALL(destroy, nvrtcDestroyProgram, int, (Handle * program))                                                                   \
  CALL(compile, nvrtcCompileProgram, int, (Handle program, int count, const char* const* options))                              \
  CALL(log_bytes, nvrtcGetProgramLogSize, int, (Handle program, std::size_t* bytes))                                            \
  CALL(log, nvrtcGetProgramLog, int, (Handle program, char* to))                                                                \
  CALL(cubin_bytes, nvrtcGetCUBINSize, int, (Handle program, std::size_t* bytes))                                               \
  CALL(cubin, nvrtcGetCUBIN, int, (Handle program, char* to))                                                                   \
  CALL(ptx_bytes, nvrtcGetPTXSize, int, (Handle program, std::size_t* bytes))                                                   \
  CALL(ptx, nvrtcGetPTX, int, (Handle program, char* to))

struct Nvrtc {
#define DPA2_MEMBER(member, symbol, result, parameters) result(*member) parameters = nullptr;
  DPA2_NVRTC_CALLS(DPA2_MEMBER)
#undef DPA2_MEMBER
  std::string version_text;
  int newest = 0;  // architecture, 90 is sm_90
};

// Where NVRTC may be, best first. A driver does not load what a newer CUDA has compiled.
std::vector<std::string> candidates() {
  const char* given = std::getenv("DPA2_NVRTC");
  if (given != nullptr && *given != '\0') return {given};
  const std::string beside = parent(parent(own_folder()));  // dpa2/lib/libdpa2.so: the folder of packages
  std::vector<std::string> found;
  for (int major = std::min(driver().cuda / 1000, 13); major >= 12; --major) {
    const std::string file = text("libnvrtc.so.", major);
    for (const std::string& packages : {beside, parent(own_folder())})
      for (const std::string& folder : {text("/nvidia/cu", major, "/lib/"), std::string("/nvidia/cuda_nvrtc/lib/")})
        if (exists(packages + folder + file)) found.push_back(packages + folder + file);
    found.push_back(file);
    const std::string toolkit = text("/usr/local/cuda-", major, "/lib64/", file);
    if (exists(toolkit)) found.push_back(toolkit);
  }
  if (exists("/usr/local/cuda/lib64/libnvrtc.so")) found.emplace_back("/usr/local/cuda/lib64/libnvrtc.so");
  found.emplace_back("libnvrtc.so");
  return found;
}

// NVRTC looks its second library up by name only, which fails unless that is there already.
void load_builtins(const std::string& nvrtc, int major, int minor) {
  const std::string name = text("libnvrtc-builtins.so.", major, '.', minor);
  const bool has_folder = nvrtc.find('/') != std::string::npos;
  if (has_folder && dlopen((parent(nvrtc) + "/" + name).c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr) return;
  dlopen(name.c_str(), RTLD_NOW | RTLD_GLOBAL);
}

Nvrtc load() {
  std::string failures;
  for (const std::string& path : candidates()) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      failures += text(failures.empty() ? "" : "; ", dlerror());
      continue;
    }
    Nvrtc table;
    const char* missing = nullptr;
    const auto find = [&](auto& member, const char* symbol) {
      void* at = dlsym(library, symbol);
      if (at == nullptr && missing == nullptr) missing = symbol;
      member = reinterpret_cast<std::remove_reference_t<decltype(member)>>(at);
    };
#define DPA2_FIND(member, symbol, result, parameters) find(table.member, #symbol);
    DPA2_NVRTC_CALLS(DPA2_FIND)
#undef DPA2_FIND
    if (missing != nullptr) {
      failures += text(failures.empty() ? "" : "; ", path, " has no ", missing);
      continue;
    }
    int major = 0, minor = 0, count = 0;
    table.version(&major, &minor);
    table.version_text = text(major, '.', minor);
    load_builtins(path, major, minor);
    if (table.count_architectures(&count) == 0 && count > 0) {
      std::vector<int> all(static_cast<std::size_t>(count));
      table.architectures(all.data());
      table.newest = *std::max_element(all.begin(), all.end());
    }
    return table;
  }
  throw invalid_input("kernels are compiled by NVRTC, which cannot be loaded (", failures, "): ", install);
}

const Nvrtc& nvrtc() {
  static const Nvrtc table = load();
  return table;
}

struct Compilation {
  Handle handle = nullptr;
  ~Compilation() {
    if (handle != nullptr) nvrtc().destroy(&handle);
  }
};

}  // namespace

std::string compile_kernels(const std::string& folder, const std::string& source, const Defines& defines, const std::string& architecture) {
  const Nvrtc& table = nvrtc();
  const bool machine_code = architecture.rfind("sm_", 0) == 0;
  std::vector<std::string> options = compile_options(defines, folder);
  options.push_back("-arch=" + architecture);
  std::vector<const char*> given;
  given.reserve(options.size());
  for (const std::string& option : options) given.push_back(option.c_str());
  const std::string what = text("compiling ", folder, "/cuda/", source, " with NVRTC ", table.version_text);
  Compilation program;
  int status = table.create(&program.handle, read_source(folder, source).c_str(), source.c_str(), 0, nullptr, nullptr);
  if (status != 0) throw internal_error(what, ": ", table.words(status));
  status = table.compile(program.handle, static_cast<int>(given.size()), given.data());
  std::size_t bytes = 0;
  if (status != 0) {
    std::string log;
    if (table.log_bytes(program.handle, &bytes) == 0 && bytes > 0) {
      log.resize(bytes);
      table.log(program.handle, log.data());
      log.resize(log.find('\0') == std::string::npos ? bytes : log.find('\0'));
    }
    std::string all;
    for (const std::string& option : options) all += " " + option;
    throw internal_error(what, ':', all, ": ", table.words(status), '\n', log);
  }
  status = machine_code ? table.cubin_bytes(program.handle, &bytes) : table.ptx_bytes(program.handle, &bytes);
  std::string image(bytes, '\0');
  if (status == 0) status = machine_code ? table.cubin(program.handle, image.data()) : table.ptx(program.handle, image.data());
  if (status != 0) throw internal_error(what, ": ", table.words(status));
  return image;
}

std::string compiler_version() { return nvrtc().version_text; }

namespace {

// Of the process: the second model of a precision, and that of another thread, compiles nothing.
std::string compiled(const std::string& folder, const std::string& source, const Defines& defines, int capability) {
  static std::mutex mutex;
  static std::map<std::tuple<std::string, std::string, Defines, int>, std::string> images;
  const auto key = std::make_tuple(folder, source, defines, capability);
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (const auto found = images.find(key); found != images.end()) return found->second;
  }
  // A cubin; PTX for a device that the compiler does not know yet, which the driver translates.
  const bool known = nvrtc().newest == 0 || capability <= nvrtc().newest;
  std::string image = compile_kernels(folder, source, defines, known ? text("sm_", capability) : text("compute_", nvrtc().newest));
  const std::lock_guard<std::mutex> lock(mutex);
  return images.emplace(key, std::move(image)).first->second;
}

}  // namespace

std::string source_folder() {
  const char* given = std::getenv("DPA2_CUDA_SOURCES");
  if (given != nullptr && *given != '\0') {
    if (!exists(text(given, "/cuda/portable.cuh")))
      throw invalid_input("DPA2_CUDA_SOURCES names ", given, ", which has no cuda/portable.cuh: it must be the folder above the kernels");
    return given;
  }
  const std::string here = own_folder();
  std::string folder = here;
  for (int level = 0; level < 4; ++level, folder = parent(folder))
    for (const char* below : {"/cuda/src", "/share/dpa2/src"})
      if (exists(folder + below + "/cuda/portable.cuh")) return folder + below;
  throw invalid_input("the sources of the kernels were not found beside ", here,
                      ": install dpa2 anew, or name the folder above them by DPA2_CUDA_SOURCES");
}

std::vector<std::string> compile_options(const Defines& defines, const std::string& folder) {
  // The last two are what CuPy adds to those that it is given: registers and rounding are then the same, whoever compiles.
  std::vector<std::string> options = {"--std=c++17", "-I" + folder};
  for (const auto& [name, value] : defines) options.push_back(text("-D", name, '=', value));
  options.insert(options.end(), {"-ftz=true", "--device-as-default-execution-space"});
  return options;
}

std::string read_source(const std::string& folder, const std::string& source) {
  const std::string path = folder + "/cuda/" + source;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream all;
  all << file.rdbuf();
  if (!file) throw invalid_input("the kernel source ", path, " cannot be read: install dpa2 anew");
  return all.str();
}

namespace {

// What a driver says of an image that it cannot use, where another one may do.
bool is_refusal(int status) {
  switch (status) {
    case cu::invalid_image:
    case cu::no_binary:
    case cu::invalid_ptx:
    case cu::no_translator:
    case cu::unsupported_ptx:
    case cu::no_translation:
      return true;
    default:
      return false;
  }
}

}  // namespace

Compiler::Compiler(std::shared_ptr<const Device> device, std::string folder) : device_(std::move(device)), folder_(std::move(folder)) {}

Compiler::~Compiler() {
  const Device::Use use(*device_, std::nothrow);
  if (!use) return;
  for (const auto& entry : modules_)
    if (entry.second != nullptr) driver().module_free(entry.second);
}

Handle Compiler::load(const std::string& source, const Defines& defines) const {
  Handle module = nullptr;
  const FoundPackage found = find_package(folder_);
  std::string why = found.why;
  if (found.package != nullptr) {
    std::vector<Image> images;
    try {
      images = found.package->images(folder_, source, defines, device_->capability(), why);
    } catch (const Error& error) {
      if (error.status() != Status::model_file) throw;
      why = error.what();
    }
    for (const Image& image : images) {
      const int status = driver().module_load(&module, image.bytes.data());
      if (status == cu::success) return module;
      const std::string doing = text("loading the packaged kernels of ", source, " for ", image.architecture);
      if (!is_refusal(status)) throw driver_error(status, doing);
      why = driver_error(status, doing).what();
    }
  }
  try {
    nvrtc();
  } catch (const Error& error) { throw Error(error.status(), text(error.what(), ". They are compiled because ", why)); }
  const std::string image = compiled(folder_, source, defines, device_->capability());
  const int status = driver().module_load(&module, image.data());
  if (status == cu::invalid_ptx || status == cu::unsupported_ptx)
    throw invalid_input(driver_error(status, text("loading what NVRTC ", nvrtc().version_text, " has made of ", source)).what(),
                        "; the driver is older than NVRTC: install a newer driver, or the NVRTC of its own CUDA");
  if (status != cu::success) throw driver_error(status, "loading the kernels of " + source);
  return module;
}

void* Compiler::function(const std::string& source, const std::string& name, const Defines& defines) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [place, is_new] = modules_.try_emplace({source, defines}, nullptr);
  if (place->second == nullptr) place->second = load(source, defines);
  Handle found = nullptr;
  const int status = driver().module_function(&found, place->second, name.c_str());
  if (status != cu::success) throw driver_error(status, "looking for kernel " + name + " of " + source);
  return found;
}

}  // namespace dpa2::gpu
