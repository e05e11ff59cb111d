// Measures the decoder before the first load.
#ifndef KVSTREAM_CLIENT_WARM_UP_H_
#define KVSTREAM_CLIENT_WARM_UP_H_

#include <memory>

#include "absl/status/status.h"
#include "client/decoder_pool.h"
#include "codec/profile.h"

namespace kvstream {

// Client::WarmUp: encodes a full chunk of noise, decodes it at the finest level and records the
// time.
absl::Status WarmUpDecoder(DecoderPool* decoders, const std::shared_ptr<const Profile>& profile);

}  // namespace kvstream

#endif  // KVSTREAM_CLIENT_WARM_UP_H_
