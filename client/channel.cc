#include "client/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/client_interceptor.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace kvstream {
namespace {

constexpr size_t kTokenBytesMax = 4096;
constexpr size_t kTenantBytesMax = 64;

using Metadata = std::vector<std::pair<std::string, std::string>>;

// Adds metadata to each call. Call credentials would do the same, but not without TLS.
class AddMetadata final : public grpc::experimental::Interceptor {
 public:
  explicit AddMetadata(const Metadata* metadata) : metadata_(metadata) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      for (const auto& entry : *metadata_) methods->GetSendInitialMetadata()->insert(entry);
    }
    methods->Proceed();
  }

 private:
  const Metadata* const metadata_;
};

class AddMetadataFactory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit AddMetadataFactory(Metadata metadata) : metadata_(std::move(metadata)) {}
  // The channel keeps the factory for as long as it has calls.
  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new AddMetadata(&metadata_);
  }

 private:
  const Metadata metadata_;
};

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  std::string pem;
  if (path.empty()) return pem;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  pem = text.str();
  if (!file || file.bad() || pem.empty()) {
    return absl::NotFoundError(
        absl::StrCat("cannot read ", path, "; check the path and the file's permissions"));
  }
  return pem;
}

bool IsPrintable(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); });
}

absl::Status Check(const ConnectionSecurity& security) {
  if (security.tls_cert_file.empty() != security.tls_key_file.empty()) {
    return absl::InvalidArgumentError("give both a client certificate and its key, or neither");
  }
  if (!security.tls_cert_file.empty() && security.tls_ca_file.empty()) {
    return absl::InvalidArgumentError(
        "a client certificate needs TLS: say who signs the server's certificate (tls_ca)");
  }
  if (security.token.size() > kTokenBytesMax || !IsPrintable(security.token)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a token is at most ", kTokenBytesMax, " printable bytes without spaces"));
  }
  if (security.acting_for.size() > kTenantBytesMax || !IsPrintable(security.acting_for)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a tenant's name is at most ", kTenantBytesMax, " printable bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(
    const ConnectionSecurity& security) {
  if (security.tls_ca_file.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions tls;
  absl::StatusOr<std::string> pem = ReadPem(security.tls_ca_file);
  if (!pem.ok()) return pem.status();
  tls.pem_root_certs = *std::move(pem);
  pem = ReadPem(security.tls_cert_file);
  if (!pem.ok()) return pem.status();
  tls.pem_cert_chain = *std::move(pem);
  pem = ReadPem(security.tls_key_file);
  if (!pem.ok()) return pem.status();
  tls.pem_private_key = *std::move(pem);
  return grpc::SslCredentials(tls);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(
    const std::string& server, const ConnectionSecurity& security,
    const grpc::ChannelArguments& arguments) {
  if (absl::Status status = Check(security); !status.ok()) return status;
  const auto credentials = MakeCredentials(security);
  if (!credentials.ok()) return credentials.status();
  Metadata metadata;
  if (!security.token.empty()) {
    metadata.emplace_back("authorization", absl::StrCat("Bearer ", security.token));
  }
  if (!security.acting_for.empty()) {
    metadata.emplace_back("kvstream-tenant", security.acting_for);
  }
  if (metadata.empty()) return grpc::CreateCustomChannel(server, *credentials, arguments);
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<AddMetadataFactory>(std::move(metadata)));
  return grpc::experimental::CreateCustomChannelWithInterceptors(server, *credentials, arguments,
                                                                 std::move(interceptors));
}

}  // namespace kvstream
