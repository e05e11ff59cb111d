// A profile on a device: what all its decoders and encoders there share.
#ifndef KVSTREAM_CODEC_CUDA_INTERNAL_DEVICE_TABLES_H_
#define KVSTREAM_CODEC_CUDA_INTERNAL_DEVICE_TABLES_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "codec/cuda/internal/backend.h"
#include "codec/cuda/internal/device_memory.h"
#include "codec/cuda/internal/kernel_types.h"
#include "codec/cuda/internal/shard_layout.h"
#include "codec/profile.h"
#include "codec/profile_data.h"

namespace kvstream {
namespace cuda {

// Coding order of a level: the coordinates that it codes, then the others.
struct FullOrder {
  std::vector<int32_t> order;
  int32_t coded = 0;
};

void MakeFullOrder(const ProfileData& profile, int level, const std::vector<uint8_t>& classes,
                   FullOrder* out);

// Largest magnitude of a level-0 cell that the tables of these classes can give, or more.
int64_t ReachOfClasses(const ProfileData& profile, const std::vector<uint8_t>& classes);

// Immutable once made; safe to share between threads.
class DeviceTables {
 public:
  static absl::StatusOr<std::shared_ptr<const DeviceTables>> Create(
      std::shared_ptr<Backend> backend, std::shared_ptr<const Profile> profile,
      const DeviceShard& shard);

  Backend& backend() const { return *backend_; }
  const std::shared_ptr<Backend>& shared_backend() const { return backend_; }
  const std::shared_ptr<const Profile>& profile() const { return profile_; }
  const ProfileData& data() const { return profile_->data(); }
  const ShardLayout& layout() const { return layout_; }
  const ProfileDev& device() const { return device_; }

  // Of the profile's own classes.
  const ChunkLevelDev& level(int level) const { return levels_[level]; }
  int32_t coded(int level) const { return coded_[level]; }
  int64_t reach() const { return reach_; }

  int64_t bytes() const;

 private:
  DeviceTables() = default;
  absl::Status Fill();
  absl::Status UploadMatrices(uint16_t* to_dev);

  std::shared_ptr<Backend> backend_;
  std::shared_ptr<const Profile> profile_;
  ShardLayout layout_;
  ProfileDev device_ = {};
  std::vector<ChunkLevelDev> levels_;
  std::vector<int32_t> coded_;
  int64_t reach_ = 0;
  std::vector<Memory> memory_;
};

}  // namespace cuda
}  // namespace kvstream

#endif  // KVSTREAM_CODEC_CUDA_INTERNAL_DEVICE_TABLES_H_
