#include "tests/tenants/test_certificates.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace kvstream {

TestCertificates::TestCertificates() {
  std::string pattern = testing::TempDir() + "/certificates.XXXXXX";
  EXPECT_NE(mkdtemp(pattern.data()), nullptr);
  dir_ = pattern;
  authority_ = {dir_ + "/ca.pem", dir_ + "/ca.key"};
  Run(
      absl::StrCat("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 "
                   "-subj /CN=test-authority -keyout ",
                   authority_.key, " -out ", authority_.certificate));
}

TestCertificates::~TestCertificates() {
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

void TestCertificates::Run(const std::string& command) {
  EXPECT_EQ(system((command + " 2> " + dir_ + "/log").c_str()), 0) << command;
}

TestCertificates::Pair TestCertificates::Sign(const std::string& name,
                                              const std::string& alternative_name) {
  const std::string base = dir_ + "/" + name;
  Write(name + ".ext", absl::StrCat("subjectAltName=", alternative_name, "\n"));
  Run(absl::StrCat("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=",
                   name, " -keyout ", base, ".key -out ", base, ".csr"));
  Run(absl::StrCat("openssl x509 -req -days 30 -in ", base, ".csr -CA ", authority_.certificate,
                   " -CAkey ", authority_.key, " -CAcreateserial -extfile ", base, ".ext -out ",
                   base, ".pem"));
  return {base + ".pem", base + ".key"};
}

std::string TestCertificates::Write(const std::string& name, const std::string& bytes) {
  const std::string path = dir_ + "/" + name;
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

}  // namespace kvstream
