// Runs a test's body once for every target of Highway that this machine and this build support.
#ifndef KVSTREAM_CODEC_KERNEL_TARGETS_H_
#define KVSTREAM_CODEC_KERNEL_TARGETS_H_

#include <cstdint>

#include "gtest/gtest.h"
#include "hwy/highway.h"

namespace kvstream {

template <typename Body>
void ForEachTarget(const Body& body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_KERNEL_TARGETS_H_
