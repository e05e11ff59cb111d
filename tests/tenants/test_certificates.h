// Certificates for tests, made with the openssl command.
#ifndef KVSTREAM_TESTS_TENANTS_TEST_CERTIFICATES_H_
#define KVSTREAM_TESTS_TENANTS_TEST_CERTIFICATES_H_

#include <string>

namespace kvstream {

// An authority in a directory of its own, removed with it. Fails the test if openssl does.
class TestCertificates {
 public:
  TestCertificates();
  ~TestCertificates();
  TestCertificates(const TestCertificates&) = delete;
  TestCertificates& operator=(const TestCertificates&) = delete;

  // PEM files.
  struct Pair {
    std::string certificate;
    std::string key;
  };
  const std::string& authority() const { return authority_.certificate; }
  // Signed by the authority for a subject alternative name such as "IP:127.0.0.1" or
  // "DNS:team-a.example,URI:spiffe://x". `name` names the files.
  Pair Sign(const std::string& name, const std::string& alternative_name);
  // A file with these bytes.
  std::string Write(const std::string& name, const std::string& bytes);

 private:
  void Run(const std::string& command);

  std::string dir_;
  Pair authority_;
};

}  // namespace kvstream

#endif  // KVSTREAM_TESTS_TENANTS_TEST_CERTIFICATES_H_
