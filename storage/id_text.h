// Ids as text for messages to people.
#ifndef KVSTREAM_STORAGE_ID_TEXT_H_
#define KVSTREAM_STORAGE_ID_TEXT_H_

#include <string>

#include "storage/chunk_store.h"

namespace kvstream {

// The first 8 bytes of a chunk's or profile's id in hexadecimal: 16 characters, enough to find it.
std::string ShortHex(const ChunkId& id);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ID_TEXT_H_
