#include "tests/tenants/tenant_server.h"

#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <fstream>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "client/channel.h"
#include "server/service/ids.h"

namespace kvstream {

std::string TokenLine(const std::string& token) {
  unsigned char hash[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), hash);
  return absl::StrCat(
      "    token-sha256: ",
      absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(hash), sizeof(hash))), "\n");
}

std::string TestFile(const std::string& name, const std::string& text) {
  const std::string path = absl::StrCat(testing::TempDir(), "/", name);
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

Caller::Caller(int port, const ConnectionSecurity& security) {
  grpc::ChannelArguments arguments;
  // Connections are not shared with callers that have other credentials.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel = MakeChannel(absl::StrCat("127.0.0.1:", port), security, arguments);
  EXPECT_TRUE(channel.ok()) << channel.status();
  stub_ = v1::KVStream::NewStub(*std::move(channel));
}

grpc::Status Caller::PutProfile(const TestContext& context, v1::PutProfileResponse* response) {
  grpc::ClientContext call;
  v1::PutProfileResponse ignored;
  auto writer = stub_->PutProfile(&call, response != nullptr ? response : &ignored);
  v1::PutProfileRequest request;
  request.set_data(context.profile_bytes());
  writer->Write(request);
  writer->WritesDone();
  return writer->Finish();
}

grpc::Status Caller::Put(const TestContext& context, v1::PutResponse* response) {
  const grpc::Status profile = PutProfile(context);
  if (!profile.ok()) return profile;
  grpc::ClientContext call;
  v1::PutResponse ignored;
  auto writer = stub_->Put(&call, response != nullptr ? response : &ignored);
  for (const v1::PutRequest& message : TestServer::PutMessages(context)) {
    if (!writer->Write(message)) break;
  }
  writer->WritesDone();
  return writer->Finish();
}

grpc::Status Caller::Lookup(const std::vector<ChunkId>& ids, const StoredProfileId& profile,
                            v1::LookupResponse* response) {
  grpc::ClientContext call;
  v1::LookupRequest request;
  request.set_profile_id(IdBytes(profile));
  for (const ChunkId& id : ids) request.add_chunk_ids(IdBytes(id));
  return stub_->Lookup(&call, request, response);
}

TestLoad Caller::Load(const TestContext& context) {
  v1::LoadStart start = StartOf(context);
  start.set_policy(v1::POLICY_FIXED);
  start.set_level(static_cast<uint32_t>(context.segment_bytes.size() - 1));
  return RunLoad(*stub_, start);
}

grpc::Status Caller::Delete(const std::vector<ChunkId>& ids, v1::DeleteResponse* response) {
  grpc::ClientContext call;
  v1::DeleteRequest request;
  for (const ChunkId& id : ids) request.add_chunk_ids(IdBytes(id));
  return stub_->Delete(&call, request, response);
}

grpc::Status Caller::List(v1::ListResponse* response, const std::string& page_token,
                          uint32_t page_size) {
  grpc::ClientContext call;
  v1::ListRequest request;
  request.set_page_token(page_token);
  request.set_page_size(page_size);
  return stub_->List(&call, request, response);
}

grpc::Status Caller::GetProfile(const StoredProfileId& profile, std::string* bytes) {
  grpc::ClientContext call;
  v1::GetProfileRequest request;
  request.set_profile_id(IdBytes(profile));
  auto reader = stub_->GetProfile(&call, request);
  v1::GetProfileResponse response;
  bytes->clear();
  while (reader->Read(&response)) bytes->append(response.data());
  return reader->Finish();
}

grpc::Status Caller::Stats(v1::StatsResponse* response) {
  grpc::ClientContext call;
  return stub_->Stats(&call, v1::StatsRequest(), response);
}

}  // namespace kvstream
