// What a user should know about samples before a profile is built from them.
#ifndef KVSTREAM_CODEC_CALIBRATION_ADVICE_H_
#define KVSTREAM_CODEC_CALIBRATION_ADVICE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "codec/calibration.h"
#include "codec/geometry.h"
#include "codec/kv_view.h"

namespace kvstream {

// Tokens of samples that calibration reads: all but the sinks.
int64_t CalibrationTokens(absl::Span<const KvView> samples, const CalibrationOptions& options);

// Channels of the widest group.
int64_t WidestGroup(const KvGeometry& geometry, const CalibrationOptions& options);

// Sentences for a human, empty if all is well or there are no samples. A transform of D channels
// from T tokens knows T directions: with T < D what a later context has in other directions is lost
// at every level, the finest included, and with T not far above D it is coded badly (docs/codec.md,
// "Geometries", has figures).
std::vector<std::string> CalibrationWarnings(const KvGeometry& geometry,
                                             absl::Span<const KvView> samples,
                                             const CalibrationOptions& options);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CALIBRATION_ADVICE_H_
