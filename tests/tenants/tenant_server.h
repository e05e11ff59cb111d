// A server with tenants, and callers with credentials of their choice.
#ifndef KVSTREAM_TESTS_TENANTS_TENANT_SERVER_H_
#define KVSTREAM_TESTS_TENANTS_TENANT_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "client/connection_security.h"
#include "grpcpp/client_context.h"
#include "kvstream/v1/kvstream.grpc.pb.h"
#include "server/service/options.h"
#include "server/service/testing/test_server.h"
#include "storage/chunk_store.h"

namespace kvstream {

// A line of a tenants file with the hash of a token.
std::string TokenLine(const std::string& token);

// Writes a file below the test's own directory and returns its path.
std::string TestFile(const std::string& name, const std::string& text);

// The RPCs of one caller, each on one connection with the same credentials.
class Caller {
 public:
  Caller(int port, const ConnectionSecurity& security);

  v1::KVStream::Stub& stub() { return *stub_; }
  grpc::Status PutProfile(const TestContext& context, v1::PutProfileResponse* response = nullptr);
  // Profile and chunks.
  grpc::Status Put(const TestContext& context, v1::PutResponse* response = nullptr);
  grpc::Status Lookup(const std::vector<ChunkId>& ids, const StoredProfileId& profile,
                      v1::LookupResponse* response);
  grpc::Status Delete(const std::vector<ChunkId>& ids, v1::DeleteResponse* response);
  grpc::Status List(v1::ListResponse* response, const std::string& page_token = "",
                    uint32_t page_size = 0);
  grpc::Status GetProfile(const StoredProfileId& profile, std::string* bytes);
  grpc::Status Stats(v1::StatsResponse* response);
  // An honest client's load of all levels, with everything that it got.
  TestLoad Load(const TestContext& context);

 private:
  std::unique_ptr<v1::KVStream::Stub> stub_;
};

}  // namespace kvstream

#endif  // KVSTREAM_TESTS_TENANTS_TENANT_SERVER_H_
