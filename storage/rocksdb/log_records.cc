#include "storage/rocksdb/log_records.h"

#include <algorithm>

namespace kvstream {
namespace {

constexpr size_t kBlockBytes = 32768;
enum FragmentType : uint8_t { kFull = 1, kFirst = 2, kMiddle = 3, kLast = 4 };

}  // namespace

void LogRecords::TakeHeader() {
  header_bytes_ = 0;
  const auto type = static_cast<uint8_t>(header_[6]);
  payload_bytes_ =
      static_cast<uint8_t>(header_[4]) | static_cast<size_t>(static_cast<uint8_t>(header_[5])) << 8;
  if (type < kFull || type > kLast) lost_ = true;
  ends_record_ = type == kFull || type == kLast;
}

void LogRecords::Append(absl::string_view bytes) {
  while (!bytes.empty() && !lost_) {
    size_t taken = 0;
    if (payload_bytes_ > 0) {
      taken = std::min(payload_bytes_, bytes.size());
      payload_bytes_ -= taken;
    } else if (const size_t left = kBlockBytes - size_ % kBlockBytes;
               header_bytes_ == 0 && left < kHeaderBytes) {
      taken = std::min(left, bytes.size());
      bytes.remove_prefix(taken);
      size_ += taken;
      continue;
    } else {
      taken = std::min(kHeaderBytes - header_bytes_, bytes.size());
      std::copy_n(bytes.begin(), taken,
                  header_.begin() + static_cast<std::ptrdiff_t>(header_bytes_));
      header_bytes_ += taken;
      if (header_bytes_ < kHeaderBytes) {
        size_ += taken;
        return;
      }
      TakeHeader();
    }
    bytes.remove_prefix(taken);
    size_ += taken;
    if (payload_bytes_ == 0 && ends_record_) {
      last_begin_ = end_;
      end_ = size_;
      ends_record_ = false;
    }
  }
  size_ += bytes.size();
}

}  // namespace kvstream
