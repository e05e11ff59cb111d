// The codec's profiles and segment checks, as the service sees them.
#ifndef KVSTREAM_SERVER_SERVICE_CODEC_PROFILE_GATE_H_
#define KVSTREAM_SERVER_SERVICE_CODEC_PROFILE_GATE_H_

#include "server/service/profile_gate.h"

namespace kvstream {

// Profile::Parse and ValidateSegment of codec/.
ProfileParser CodecProfileParser();

}  // namespace kvstream

#endif  // KVSTREAM_SERVER_SERVICE_CODEC_PROFILE_GATE_H_
