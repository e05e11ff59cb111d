"""kvstreamctl's flags of TLS and tokens against a kvstreamd that asks for both, and files that it reads again at SIGHUP."""
import hashlib
import os
import signal
import subprocess
import unittest

import harness
from harness import ctl, run_ctl


class TlsTest(harness.TestCase):
    def openssl(self, *args):
        subprocess.run(["openssl", *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=harness.TIMEOUT_SECONDS)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)
        return self.path(name)

    def authority(self):
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=authority",
                     "-keyout", self.path("ca.key"), "-out", self.path("ca.pem"))

    def sign(self, name, alternative_name):
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                     "-keyout", self.path(f"{name}.key"), "-out", self.path(f"{name}.csr"))
        self.openssl("x509", "-req", "-days", "30", "-in", self.path(f"{name}.csr"), "-CA", self.path("ca.pem"), "-CAkey", self.path("ca.key"),
                     "-CAcreateserial", "-extfile", self.write(f"{name}.ext", f"subjectAltName={alternative_name}\n"),
                     "-out", self.path(f"{name}.pem"))

    def tenants(self, **tokens):
        """A tenants file: an entry for each name with its token; `operator` is an admin."""
        lines = ["tenants:"]
        for name, token in tokens.items():
            lines += [f"  - name: {name}", f"    token-sha256: {hashlib.sha256(token.encode()).hexdigest()}"]
            lines += ["    admin: true"] if name == "operator" else []
        # Never seen half-written.
        os.replace(self.write("tenants.new", "\n".join(lines) + "\n"), self.path("tenants.yaml"))

    def token_file(self, token):
        # Its name may be in a message, the token must not.
        return self.write("token-" + hashlib.sha256(token.encode()).hexdigest()[:8], token + "\n")

    def flags(self, token, certificate="client"):
        return ["--tls-ca", self.path("ca.pem"), "--tls-cert", self.path(f"{certificate}.pem"), "--tls-key", self.path(f"{certificate}.key"),
                "--token-file", self.token_file(token)]

    def reload(self, daemon, reloads):
        """SIGHUP, and waits until it was acted on."""
        daemon.process.send_signal(signal.SIGHUP)
        counted = lambda: sum(float(line.split()[-1]) for line in daemon.get("/metrics").splitlines()  # noqa: E731
                              if line.startswith("kvstream_reloads_total{"))
        harness.wait_until(lambda: counted() >= reloads, "the files to be read again")

    def test_certificates_tokens_and_their_change(self):
        self.authority()
        self.sign("server", "IP:127.0.0.1")
        self.sign("client", "DNS:client.example")
        self.tenants(alice="alices", bob="bobs", operator="operators")
        model = harness.Model(self.scratch)
        profile, context = model.profile(), model.context("a", 600)
        with harness.Daemon(self.path("data"), "--tls-cert", self.path("server.pem"), "--tls-key", self.path("server.key"),
                            "--tls-client-ca", self.path("ca.pem"), "--tenants-file", self.path("tenants.yaml")) as daemon:
            server = ["--server", daemon.address]
            put = ctl("put", *server, *self.flags("alices"), "--profile", profile, "--in", context)
            self.assertEqual(put["chunks_stored"], 3)
            out = self.path("out.safetensors")
            loaded = ctl("load", *server, *self.flags("alices"), "--profile", profile, "--tokens-from", context, "--out", out)
            self.assertTrue(loaded["complete"])
            self.assertEqual(ctl("lookup", *server, *self.flags("bobs"), "--profile", profile, "--tokens-from", context)["matched_tokens"], 0)
            self.assertEqual(len(ctl("list", *server, *self.flags("operators"), "--tenant", "alice")["chunks"]), 3)
            # By the environment too, and the flags go before it.
            variables = {"KVSTREAM_TLS_CA": self.path("ca.pem"), "KVSTREAM_TLS_CERT": self.path("client.pem"),
                         "KVSTREAM_TLS_KEY": self.path("client.key"), "KVSTREAM_TOKEN_FILE": self.token_file("alices")}
            done = subprocess.run([harness.binary("client/kvstreamctl"), "list", *server, "--format", "json"], env={**os.environ, **variables},
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=harness.TIMEOUT_SECONDS)
            self.assertEqual(done.returncode, 0, done.stderr)

            def refused(why, *flags):
                done = run_ctl("list", *server, *flags)
                self.assertNotEqual(done.returncode, 0, why)
                self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
                self.assertNotIn("alices", done.stderr, "a token in a message")
                return done.stderr

            refused("no TLS", "--token-file", self.token_file("alices"))
            refused("no client certificate", "--tls-ca", self.path("ca.pem"), "--token-file", self.token_file("alices"))
            refused("no token", *self.flags("alices")[:6])
            refused("no such token", *self.flags("mallorys"))
            refused("no such file", *self.flags("alices")[:6], "--token-file", self.path("nothing"))
            refused("a certificate without its key", *self.flags("alices")[:4])

            # Alice's token changes, a tenant goes, another comes; what Alice has stays.
            self.tenants(alice="alices-second", carol="carols", operator="operators")
            self.reload(daemon, 1)
            refused("the token that was taken out", *self.flags("alices"))
            refused("the tenant that is gone", *self.flags("bobs"))
            self.assertEqual(len(ctl("list", *server, *self.flags("alices-second"))["chunks"]), 3)
            self.assertEqual(ctl("list", *server, *self.flags("carols"))["chunks"], [])
            # A wrong file changes nothing, and is told.
            self.write("tenants.yaml", "tenants: nonsense\n")
            self.reload(daemon, 2)
            self.assertEqual(len(ctl("list", *server, *self.flags("alices-second"))["chunks"]), 3)
            self.assertIn("the old ones stay", daemon.output())
            self.assertNotIn("alices", daemon.output(), "a token in the log")
            self.assertEqual(daemon.stop(), 0, daemon.output())


if __name__ == "__main__":
    unittest.main()
