#include "tests/bench/store/pass.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace kvstream::bench {

double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  const double rank = std::ceil(q * static_cast<double>(values.size()));
  const size_t at = std::min(values.size() - 1, static_cast<size_t>(std::max(rank - 1, 0.0)));
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(at), values.end());
  return values[at];
}

}  // namespace kvstream::bench
