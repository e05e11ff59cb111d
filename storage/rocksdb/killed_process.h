// A process that is killed in the middle of its work, and what it said until then.
#ifndef KVSTREAM_STORAGE_ROCKSDB_KILLED_PROCESS_H_
#define KVSTREAM_STORAGE_ROCKSDB_KILLED_PROCESS_H_

#include <cstddef>
#include <string>
#include <vector>

namespace kvstream {

// Runs `program` of the test's runfiles, of storage/rocksdb unless it names a folder, until it has
// written `enough` lines to standard output, ends it with SIGKILL, and returns every whole line.
// Fails the test if it cannot be run or ended by itself.
std::vector<std::string> RunAndKill(const std::string& program, std::vector<std::string> args,
                                    size_t enough);

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_KILLED_PROCESS_H_
