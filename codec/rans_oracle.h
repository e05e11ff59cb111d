// The scalar reading of docs/format.md's rANS blocks, one symbol at a time: what the kernels of
// rans_kernels.h must agree with. For tests.
#ifndef KVSTREAM_CODEC_RANS_ORACLE_H_
#define KVSTREAM_CODEC_RANS_ORACLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/class_tables.h"
#include "codec/rans_kernels.h"

namespace kvstream {

// As DecodeBaseBlocks and DecodeRefineBlocks. tables: by class.
bool OracleBaseBlocks(const RansBlock* blocks, size_t count, const std::vector<BaseTable>& tables,
                      const uint8_t* classes, int tokens, int32_t* cells);
bool OracleRefineBlocks(const RansBlock* blocks, size_t count, const RefineTable* tables,
                        const uint8_t* classes, int tokens, int32_t* cells);

}  // namespace kvstream

#endif  // KVSTREAM_CODEC_RANS_ORACLE_H_
