// Whether everything in a namespace fits together: for tests.
#ifndef KVSTREAM_STORAGE_RADOS_TESTING_RADOS_AUDIT_H_
#define KVSTREAM_STORAGE_RADOS_TESTING_RADOS_AUDIT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "storage/rados/rados_pool.h"

namespace kvstream {

// Reads all of it while nobody changes any; a sentence for each thing that is wrong. Counts of
// shards and tenants are those of the records, each key beside a record follows from it and none
// from no record, data is counted and belongs to a record or is on its way in or out, and so does
// each name under a parent, of which no chunk with a parent is without.
std::vector<std::string> AuditRados(const RadosPool& pool, uint32_t shards);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_RADOS_TESTING_RADOS_AUDIT_H_
