#include "server/service/status_conversion.h"

#include <gtest/gtest.h>

namespace kvstream {
namespace {

TEST(StatusConversionTest, CodesAndMessagesStay) {
  const grpc::Status status = ToGrpcStatus(absl::DataLossError("chunk 7"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(status.error_message(), "chunk 7");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  for (int code = 1; code <= 16; ++code) {
    const auto absl_code = static_cast<absl::StatusCode>(code);
    EXPECT_EQ(static_cast<int>(ToGrpcStatus(absl::Status(absl_code, "")).error_code()), code);
    EXPECT_EQ(StatusCodeLabel(absl_code) == "UNKNOWN", absl_code == absl::StatusCode::kUnknown);
  }
}

TEST(StatusConversionTest, CodesOutOfRangeAreUnknown) {
  const absl::Status odd(static_cast<absl::StatusCode>(99), "odd");
  EXPECT_EQ(ToGrpcStatus(odd).error_code(), grpc::StatusCode::UNKNOWN);
  EXPECT_EQ(StatusCodeLabel(static_cast<absl::StatusCode>(99)), "UNKNOWN");
}

TEST(StatusConversionTest, MessagesAreCutAndCleaned) {
  const grpc::Status status =
      ToGrpcStatus(absl::InvalidArgumentError(std::string(5000, 'x') + "tail"));
  EXPECT_EQ(status.error_message().size(), 1024u);
  EXPECT_EQ(ToGrpcStatus(absl::InternalError(std::string("a\nb\0\xff", 5))).error_message(),
            "a?b??");
}

}  // namespace
}  // namespace kvstream
