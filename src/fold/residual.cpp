#include "fold/residual.hpp"

#include <algorithm>
#include <cmath>

namespace dpa2 {

std::vector<Member> members_g1(const LayerFeatures& has) {
  std::vector<Member> m;
  if (has.self) m.push_back(Member::self);
  if (has.out_conv) m.push_back(Member::conv);
  m.push_back(Member::linear1);
  if (has.local_attention) m.push_back(Member::attention);
  return m;
}

std::vector<Member> members_g2(const LayerFeatures& has) {
  std::vector<Member> m;
  if (has.last) return m;
  m.push_back(Member::linear2);
  if (has.g1g1) m.push_back(Member::g1g1);
  if (has.pair_attention) m.push_back(Member::attention);
  return m;
}

std::vector<Member> members_h2(const LayerFeatures& has) {
  return has.update_h2 ? std::vector<Member>{Member::attention} : std::vector<Member>();
}

int FoldedResidual::index(Member member) const {
  const auto found = std::find_if(terms.begin(), terms.end(), [&](const Term& term) { return term.member == member; });
  return found == terms.end() ? -1 : static_cast<int>(found - terms.begin());
}

FoldedResidual fold_residual(UpdateStyle style, RawTensors& raw, const std::string& name, const std::vector<Member>& members, int width) {
  FoldedResidual f;
  if (members.empty()) return f;
  const double count = static_cast<double>(members.size());
  double scale = 1.0;
  if (style == UpdateStyle::res_avg) f.a = scale = 1.0 / std::sqrt(count + 1.0);
  if (style == UpdateStyle::res_incr) scale = 1.0 / std::sqrt(count);
  for (std::size_t k = 0; k < members.size(); ++k) {
    Matrix r(1, width);
    std::fill(r.a.begin(), r.a.end(), scale);
    if (style == UpdateStyle::res_residual) r = raw.matrix(name + "." + std::to_string(k));
    f.terms.push_back({members[k], std::move(r)});
  }
  return f;
}

void unfold_residual(UpdateStyle style, const std::string& name, const std::vector<Member>& members, const FoldedResidual& gradient,
                     Weights& to) {
  if (style != UpdateStyle::res_residual) return;
  for (std::size_t k = 0; k < members.size(); ++k) {
    const int term = gradient.index(members[k]);
    if (term >= 0) add(to, name + "." + std::to_string(k), gradient.terms[static_cast<std::size_t>(term)].r);
  }
}

}  // namespace dpa2
