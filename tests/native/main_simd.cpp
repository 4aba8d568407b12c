// Runs the checks of one ISA level where the processor has it; leaves with 77 where it does not.
#include <cstdio>
#include <cstring>

#include "cpu/kernels.hpp"

#define DPA2_TEXT_OF(x) #x
#define DPA2_TEXT(x) DPA2_TEXT_OF(x)

int test_simd();

int main() {
  const char* level = DPA2_TEXT(DPA2_ISA);
  for (const char* const* name = dpa2::isa_names(); *name != nullptr; ++name)
    if (std::strcmp(*name, level) == 0) return test_simd();
  std::printf("this processor does not have %s\n", level);
  return 77;
}
