// The kinds of models: what each computes, under which names, and its head.
#pragma once

#include <memory>
#include <vector>

#include "heads/head.hpp"
#include "heads/output.hpp"
#include "schema/config.hpp"

namespace dpa2 {

/// What the outputs of a model are: "energy", also of combinations, "spin", energies that depend on spins, "dipole", "polar", "dos",
/// "property" or "population".
const char* model_kind(const Config& config) noexcept;

/// What its head computes, in deepmd-kit's names and shapes.
std::vector<OutputSpec> head_outputs(const Config& config);

/// The output that is of its own: what the head gives for an atom.
const OutputSpec& atom_output(const std::vector<OutputSpec>& outputs);
/// How many numbers of a frame have forces; 0: the model has none.
int quantities_with_forces(const std::vector<OutputSpec>& outputs);

/// The head on a network, which must not be a combination.
template <class T>
std::unique_ptr<Head<T>> make_head(const Config& config, const Prepared<T>& model);

}  // namespace dpa2
