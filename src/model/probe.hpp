// What is asked of a model beside its results: the curves of its embedding networks, and what its fitting network sees last.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "fold/embedding_net.hpp"
#include "model/network.hpp"
#include "schema/config.hpp"
#include "schema/weights.hpp"

namespace dpa2 {

/// The embedding network of a block as functions of its scalar, one per combination of types (one in strip mode), in the order of
/// the type tables: neighbour * ntypes + centre, or the neighbour alone where the embedding is one-sided.
class EmbeddingCurves {
 public:
  /// weights: those of the network and of the type embedding, at least. Throws model_file_error where they do not fit.
  EmbeddingCurves(const Config& config, const Weights& weights, bool three_body);
  int count() const;
  int channels() const { return network_->out(); }
  /// y (3, n, channels) = value, d/ds and d2/ds2 of a curve at s (n). Throws invalid_input for a curve that there is not.
  void evaluate(int curve, std::ptrdiff_t n, const double* s, double* y) const;

 private:
  Matrix types_;  // (count, in - 1): what the network sees besides s; empty in strip mode
  std::optional<Network> network_;
};

/// y (nframes, natoms, width) = the last hidden layer of the fitting network (its input where it has none) for descriptors (nframes,
/// natoms, descriptor_dim). fparam (nframes, numb_fparam) and aparam (nframes, natoms, numb_aparam) where the model has them; weights:
/// those of the fitting network, at least.
std::vector<double> last_hidden(const Config& config, const Weights& weights, std::ptrdiff_t nframes, std::ptrdiff_t natoms,
                                const double* descriptor, const double* fparam, const double* aparam);

}  // namespace dpa2
