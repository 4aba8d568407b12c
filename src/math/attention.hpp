// The logits of both attentions, their softmax's padded slots, and the way back (theory 8.5, 8.10, 12.10, 12.11, S8).
//
// A logit is b = (s + shift) c2 - shift, s c1 in place of s c2 with the gate, for a score s and the switch c2 of its pair. Everything
// is relative to the shift: c2 - 1 is exact near the centre, where a logit of about the shift would lose digits.
#pragma once

#include "math/portable.hpp"

namespace dpa2 {
namespace math {

/// The shift of the logits where the switch is smooth; 0 elsewhere.
constexpr int attention_shift = 20;

/// The logit of a score relative to the shift; `factor` multiplies the score: the switch, or with the gate c1. V is T or a vector of T.
template <class T, class V>
DPA2_MATH V logit(V score, V factor, V switched, T shift) {
  return score * factor + (switched - T(1)) * shift;
}

/// The same logit, given what the switch lacks to 1 (by_fall).
template <class T, class V>
DPA2_MATH V logit_by_fall(V score, V factor, V fall, T shift) {
  return score * factor - fall * shift;
}

/// Where the search for the largest logit begins: at that of the padded slots, if there are some.
template <class T>
DPA2_MATH T least_logit(T npad, T shift) {
  return npad > T(0) ? -shift : T(-1e30);
}

/// The gradients of a pair's score, c1 and c2, given that of P c1 for the pair's probability P; inner: the sum of given P c1 over the
/// softmax. With the gate c1 multiplies the score in the logit, else c2 does.
template <class T, class V>
DPA2_MATH void logit_backward(bool gate, V given, V probability, V inner, V score, V c1, V c2, T shift, V& dscore, V& dc1, V& dc2) {
  const V db = probability * (given * c1 - inner);
  dc1 = given * probability;
  if (gate) {
    dc1 += db * score;
    dc2 = db * shift;
    dscore = db * c1;
  } else {
    dc2 = db * (score + shift);
    dscore = db * c2;
  }
}

}  // namespace math
}  // namespace dpa2
