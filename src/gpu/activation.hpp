// The activation function that kernels are compiled for (cuda/activation.cuh).
#pragma once

#include <cstdio>
#include <string>

#include "fold/activation.hpp"
#include "gpu/kernel.hpp"

namespace dpa2::gpu {

inline Defines activation_defines(const FoldedActivation& act) {
  Defines defines{{"ACT", std::to_string(static_cast<int>(act.kind))}};
  const auto number = [&](const char* name, double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", value);
    defines.emplace_back(name, text);
  };
  if (act.kind == Activation::silut) {
    number("SILUT_THRESHOLD", act.silut.threshold);
    number("SILUT_SLOPE", act.silut.slope);
    number("SILUT_OFFSET", act.silut.offset);
  }
  return defines;
}

}  // namespace dpa2::gpu
