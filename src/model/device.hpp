// Where a model is evaluated, by name.
#pragma once

#include <string>
#include <vector>

#include "gpu/engine.hpp"
#include "heads/output.hpp"

namespace dpa2 {

/// The number of a GPU: 0 of "cuda", N of "cuda:N"; -1 of "cpu". Throws invalid_input for other names.
int device_number(const std::string& name);

/// How many GPUs CUDA shows. Throws Error where there is no driver.
int gpu_count();

/// "cpu", or "cuda:N".
std::string device_name(int number);

/// The arrays of `asked` that a request fills, of a model with these outputs.
gpu::Output gpu_output(const gpu::Request& request, const std::vector<OutputSpec>& outputs, const Outputs& asked);

}  // namespace dpa2
