#include "server/service/server_credentials.h"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"
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

// A file in memory with these bytes; the caller closes it.
absl::StatusOr<int> MemoryFile(absl::string_view bytes) {
  const int fd = memfd_create("kvstream-tls", MFD_CLOEXEC);
  if (fd < 0) {
    return absl::UnavailableError(
        absl::StrCat("no file in memory for certificates: ", std::strerror(errno)));
  }
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      close(fd);
      return absl::UnavailableError(
          absl::StrCat("writing certificates to memory: ", std::strerror(errno)));
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return fd;
}

std::string PathOf(int fd) { return absl::StrCat("/proc/self/fd/", fd); }

// What `fd` stands for becomes these bytes, in one step.
absl::Status ReplaceFile(int fd, absl::string_view bytes) {
  const absl::StatusOr<int> file = MemoryFile(bytes);
  if (!file.ok()) return file.status();
  const int replaced = dup3(*file, fd, O_CLOEXEC);
  close(*file);
  if (replaced >= 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("replacing certificates: ", std::strerror(errno)));
}

constexpr unsigned kLookEverySeconds = 1;

}  // namespace

absl::StatusOr<TlsFiles> ReadTlsFiles(const ServerOptions& options) {
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
  TlsFiles files;
  files.pair = absl::StrCat(*chain, "\n", *key);
  if (options.tls_client_ca.empty()) return files;
  absl::StatusOr<std::string> roots =
      ReadSmallFile("tls-client-ca", options.tls_client_ca, kMaxPemBytes);
  if (!roots.ok()) return roots.status();
  if (ReadCertificate(*roots) == nullptr) {
    return NoCertificate("tls-client-ca", options.tls_client_ca);
  }
  files.roots = *std::move(roots);
  return files;
}

absl::StatusOr<std::unique_ptr<TlsCredentials>> TlsCredentials::Create(const TlsFiles& files) {
  const absl::StatusOr<int> pair = MemoryFile(files.pair);
  if (!pair.ok()) return pair.status();
  int roots_fd = -1;
  if (!files.roots.empty()) {
    const absl::StatusOr<int> roots = MemoryFile(files.roots);
    if (!roots.ok()) {
      close(*pair);
      return roots.status();
    }
    roots_fd = *roots;
  }
  auto credentials = absl::WrapUnique(new TlsCredentials(*pair, roots_fd));
  // The key and the certificate are found in one file, each by its kind of PEM block.
  const auto watcher = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      PathOf(*pair), PathOf(*pair), roots_fd < 0 ? "" : PathOf(roots_fd), kLookEverySeconds);
  grpc::experimental::TlsServerCredentialsOptions options(watcher);
  options.watch_identity_key_cert_pairs();
  if (roots_fd >= 0) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  } else {
    options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  }
  credentials->credentials_ = grpc::experimental::TlsServerCredentials(options);
  return credentials;
}

TlsCredentials::~TlsCredentials() {
  credentials_.reset();
  close(pair_fd_);
  if (roots_fd_ >= 0) close(roots_fd_);
}

absl::Status TlsCredentials::Replace(const TlsFiles& files) {
  if (files.roots.empty() != (roots_fd_ < 0)) {
    return absl::InvalidArgumentError("whether clients show certificates is settled at the start");
  }
  // The roots first: where the second step fails, nobody new is let in with an old certificate.
  if (roots_fd_ >= 0) {
    if (absl::Status status = ReplaceFile(roots_fd_, files.roots); !status.ok()) return status;
  }
  return ReplaceFile(pair_fd_, files.pair);
}

}  // namespace kvstream
