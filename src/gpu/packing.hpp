// Bytes made smaller, for the kernels of a package: repetitions of what came before, however long ago. PTX of one source for several
// architectures is nearly the same text, so that all of them take little more than one.
#pragma once

#include <cstdint>
#include <string>

namespace dpa2::gpu {

/// A digest of bytes (FNV-1a): any byte that is another changes it. `begin`: that of what came before.
constexpr std::uint64_t digest_of_nothing = 14695981039346656037u;
std::uint64_t digest(const std::string& bytes, std::uint64_t begin = digest_of_nothing);
/// In 16 hexadecimal digits.
std::string digits(std::uint64_t digest);

std::string pack(const std::string& bytes);

/// What was packed, `bytes` of them; anything else that is given throws model_file_error.
std::string unpack(const std::string& packed, std::size_t bytes);

}  // namespace dpa2::gpu
