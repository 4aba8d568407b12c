#include "gpu/tensor.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <vector>

#include "cuda/tensor_check.hpp"

namespace dpa2::gpu {

namespace {

constexpr int oldest_capability = 80;
constexpr int depth = cuda::tensor_check_depth, columns = cuda::tensor_check_columns;

bool asked_for() {
  const char* const given = std::getenv("DPA2_CUDA_TENSOR");
  const std::string value = given != nullptr ? given : "";
  if (value != "" && value != "0" && value != "1")
    throw invalid_input("DPA2_CUDA_TENSOR is \"", value, "\": it must be 1, for products by tensor cores, or 0");
  return value == "1";
}

/// Of an element, over the sum of the magnitudes of its terms: three products of tf32 keep 21 bits of each term, and every sum may drop the
/// last bit. One product alone, or numbers in wrong places, are beyond it by far.
template <class T>
constexpr double bound = sizeof(T) == 4 ? 2e-6 : 1e-14;

/// The largest error of a product of random matrices on the device.
template <class T>
double error_of_product(const std::shared_ptr<const Device>& device, const Hooks& hooks, Loader& loader) {
  constexpr int rows = cuda::tensor_check_rows(sizeof(T));
  const Function kernel = loader.function("tensor_check.cu", "tensor_check", {{"TENSOR", "1"}});
  std::mt19937 random(1);
  const auto drawn = [&](int count) {
    std::vector<T> numbers(static_cast<std::size_t>(count));
    for (T& x : numbers) x = static_cast<T>(static_cast<double>(random()) / 2147483648.0 - 1.0);
    return numbers;
  };
  const std::vector<T> a = drawn(rows * depth), b = drawn(depth * columns);
  std::vector<T> found(static_cast<std::size_t>(rows * columns));
  const std::size_t bytes = found.size() * sizeof(T);
  const Memory out = allocate(device, hooks, bytes);
  const cuda::TensorCheckArgs<T> args{static_cast<T*>(out.at), loader.uploaded(a), loader.uploaded(b)};
  const Stream stream(device);
  void* values[] = {const_cast<cuda::TensorCheckArgs<T>*>(&args)};
  check(driver().launch(kernel.handle, 1, 1, 1, 32, 1, 1, 0, stream.handle(), values, nullptr), "trying the tensor cores");
  check(driver().copy_out(found.data(), address(out.at), bytes, stream.handle()), "copying the product of tensor cores");
  stream.wait();
  double worst = 0;
  for (int i = 0; i < rows; ++i)
    for (int c = 0; c < columns; ++c) {
      double sum = 0, magnitude = 0;
      for (int k = 0; k < depth; ++k) {
        const double term = static_cast<double>(a[static_cast<std::size_t>(i * depth + k)]) * b[static_cast<std::size_t>(k * columns + c)];
        sum += term;
        magnitude += std::abs(term);
      }
      const double error = std::abs(static_cast<double>(found[static_cast<std::size_t>(i * columns + c)]) - sum) / magnitude;
      worst = error <= worst ? worst : error;  // also what is not a number
    }
  return worst;
}

template <class T>
TensorCores tried(const std::shared_ptr<const Device>& device, const Hooks& hooks, Loader& loader) {
  const std::string which = text("CUDA device ", device->number(), ", ", device->name());
  if (device->capability() < oldest_capability)
    return {false, text("DPA2_CUDA_TENSOR asks for products by tensor cores, which need compute capability 8.0, and ", which, ", has ",
                        device->capability() / 10, '.', device->capability() % 10, ": multiply-adds are used")};
  const double error = error_of_product<T>(device, hooks, loader);
  if (error <= bound<T>) return {true, ""};
  return {false, text("a product by the tensor cores of ", which, " has the error ", error, ", with at most ", bound<T>,
                      " expected: multiply-adds are used. Please report it")};
}

}  // namespace

template <class T>
TensorCores tensor_cores(const std::shared_ptr<const Device>& device, const Hooks& hooks, Loader& loader) {
  static std::mutex mutex;
  static std::map<int, bool> known;
  if (!asked_for()) return {};
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (const auto found = known.find(device->number()); found != known.end()) return {found->second, ""};
  }
  // Without the lock: the hooks may wait for one of Python's. Two threads may try at the same time, and one of them warns.
  TensorCores result = tried<T>(device, hooks, loader);
  const std::lock_guard<std::mutex> lock(mutex);
  if (!known.emplace(device->number(), result.used).second) result.warning.clear();
  return result;
}

template TensorCores tensor_cores<float>(const std::shared_ptr<const Device>& device, const Hooks& hooks, Loader& loader);
template TensorCores tensor_cores<double>(const std::shared_ptr<const Device>& device, const Hooks& hooks, Loader& loader);

}  // namespace dpa2::gpu
