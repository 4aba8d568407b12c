// How a layer adds its updates U_k to a channel u: u' = a u + sum_k r_k U_k (theory 8.11).
#pragma once

#include <string>
#include <vector>

#include "fold/matrix.hpp"
#include "schema/features.hpp"

namespace dpa2 {

/// The updates of all channels.
enum class Member { self, conv, linear1, linear2, g1g1, attention };

constexpr const char* name_of(Member member) {
  switch (member) {
    case Member::self:
      return "self";
    case Member::conv:
      return "conv";
    case Member::linear1:
      return "linear1";
    case Member::linear2:
      return "linear2";
    case Member::g1g1:
      return "g1g1";
    default:
      return "attention";
  }
}

/// The members of the three channels of a layer, in the order of their vectors.
std::vector<Member> members_g1(const LayerFeatures& has);
std::vector<Member> members_g2(const LayerFeatures& has);
std::vector<Member> members_h2(const LayerFeatures& has);

/// The three update styles differ only in a and the vectors r_k.
struct FoldedResidual {
  struct Term {
    Member member;
    Matrix r;  ///< (1, width)
  };
  double a = 1;
  std::vector<Term> terms;

  /// Place of a member among the terms, -1 where it is absent.
  int index(Member member) const;

  template <class F>
  void for_each(const std::string& at, F& f) const {
    if (terms.empty()) return;
    f(at + ".a", a);
    for (const Term& term : terms) f(at + '.' + name_of(term.member), term.r);
  }
};

/// `name` is that of the list of vectors.
FoldedResidual fold_residual(UpdateStyle style, RawTensors& raw, const std::string& name, const std::vector<Member>& members, int width);
/// The adjoint, `+=`: only res_residual learns its vectors.
void unfold_residual(UpdateStyle style, const std::string& name, const std::vector<Member>& members, const FoldedResidual& gradient,
                     Weights& to);

}  // namespace dpa2
