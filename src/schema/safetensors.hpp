// The native model file: safetensors with the configuration in its metadata.
#pragma once

#include <cstddef>
#include <string>

#include "schema/weights.hpp"

namespace dpa2 {

struct SafetensorsFile {
  std::string config_json;
  Weights weights;
};

/// Reads a file with `__metadata__` {"format": "dpa2", "format_version": "1", "config": JSON} and tensors of dtype F64 or F32.
/// Nothing in the file is trusted: every size is checked against the file before memory is taken for it, every byte must belong
/// to exactly one tensor, no key may occur twice, and the tensors must be those of the configuration before any of them is read.
/// Whether their values can be computed with is for check_weights.
/// Throws model_file_error (cannot be read, corrupt, truncated) or unsupported (not a dpa2 file, or a newer version).
SafetensorsFile read_safetensors(const std::string& path);
/// The same from the bytes of a file in memory; `name` stands for it in messages.
SafetensorsFile read_safetensors(const void* data, std::size_t size, const std::string& name);

}  // namespace dpa2
