// A directory of a test's own.
#ifndef KVSTREAM_STORAGE_ROCKSDB_TEMP_DIR_H_
#define KVSTREAM_STORAGE_ROCKSDB_TEMP_DIR_H_

#include <string>

namespace kvstream {

// Below $TEST_TMPDIR or /tmp; gone with this object. Dies if it cannot be made, which no test can
// go on from.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace kvstream

#endif  // KVSTREAM_STORAGE_ROCKSDB_TEMP_DIR_H_
