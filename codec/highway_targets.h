// To be included before hwy/foreach_target.h: the targets that our kernels are made for. Vectors of
// unknown length (SVE, RVV) are left out, kernels count on a constant number of lanes.
#ifndef KVSTREAM_CODEC_HIGHWAY_TARGETS_H_
#define KVSTREAM_CODEC_HIGHWAY_TARGETS_H_

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#endif  // KVSTREAM_CODEC_HIGHWAY_TARGETS_H_
