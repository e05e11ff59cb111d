#include "server/service/server_credentials.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/service/small_file.h"

namespace kvstream {
namespace {

constexpr size_t kMaxPemBytes = 1 << 20;

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};

std::unique_ptr<BIO, Free> Reading(const std::string& pem) {
  return std::unique_ptr<BIO, Free>(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// Never asks a terminal for a password.
int NoPassword(char*, int, int, void*) { return -1; }

// The first certificate; null if there is none.
std::unique_ptr<X509, Free> ReadCertificate(const std::string& pem) {
  std::unique_ptr<X509, Free> certificate(
      PEM_read_bio_X509(Reading(pem).get(), nullptr, NoPassword, nullptr));
  ERR_clear_error();
  return certificate;
}

std::unique_ptr<EVP_PKEY, Free> ReadKey(const std::string& pem) {
  std::unique_ptr<EVP_PKEY, Free> key(
      PEM_read_bio_PrivateKey(Reading(pem).get(), nullptr, NoPassword, nullptr));
  ERR_clear_error();
  return key;
}

absl::Status NoCertificate(absl::string_view option, const std::string& path) {
  return absl::InvalidArgumentError(
      absl::StrCat("--", option, " ", path, " holds no certificate in PEM form"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const ServerOptions& options) {
  if (options.tls_cert.empty()) return grpc::InsecureServerCredentials();
  absl::StatusOr<std::string> chain = ReadSmallFile("tls-cert", options.tls_cert, kMaxPemBytes);
  if (!chain.ok()) return chain.status();
  absl::StatusOr<std::string> key = ReadSmallFile("tls-key", options.tls_key, kMaxPemBytes);
  if (!key.ok()) return key.status();
  const std::unique_ptr<X509, Free> certificate = ReadCertificate(*chain);
  if (certificate == nullptr) return NoCertificate("tls-cert", options.tls_cert);
  const std::unique_ptr<EVP_PKEY, Free> private_key = ReadKey(*key);
  if (private_key == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--tls-key ", options.tls_key, " holds no private key in PEM form without a password"));
  }
  const bool fits = X509_check_private_key(certificate.get(), private_key.get()) == 1;
  ERR_clear_error();
  if (!fits) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--tls-key ", options.tls_key, " is not the key of --tls-cert ", options.tls_cert));
  }
  grpc::SslServerCredentialsOptions tls(
      options.tls_client_ca.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                    : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  if (!options.tls_client_ca.empty()) {
    absl::StatusOr<std::string> roots =
        ReadSmallFile("tls-client-ca", options.tls_client_ca, kMaxPemBytes);
    if (!roots.ok()) return roots.status();
    if (ReadCertificate(*roots) == nullptr) {
      return NoCertificate("tls-client-ca", options.tls_client_ca);
    }
    tls.pem_root_certs = *std::move(roots);
  }
  tls.pem_key_cert_pairs.push_back({*std::move(key), *std::move(chain)});
  return grpc::SslServerCredentials(tls);
}

}  // namespace kvstream
