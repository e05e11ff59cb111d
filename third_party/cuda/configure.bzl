"""Finds the CUDA toolkit of the machine.

`cuda_configure` makes a repository with `defs.bzl` (CUDA_FOUND, NVCC, CUDA_VERSION) and, where nvcc was
found, the targets `headers` and `cudart` (the static runtime). Looked for in this order: $CUDA_HOME,
/usr/local/cuda, nvcc on the PATH. KVSTREAM_CUDA (--repo_env) says what to do with it: `auto` (the
default) uses what is found, `off` looks for nothing, `require` (--config=cuda) fails where there is none.
"""

def _find(ctx):
    """The toolkit's folder and its static runtime; empty strings if there is none with both."""
    homes = [ctx.os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    nvcc = ctx.which("nvcc")
    if nvcc:
        homes.append(str(nvcc.realpath.dirname.dirname))
    for home in homes:
        if not home or not ctx.path(home + "/bin/nvcc").exists:
            continue
        for folder in ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"]:
            library = "%s/%s/libcudart_static.a" % (home, folder)
            if ctx.path(library).exists:
                return home, library
    return "", ""

def _configure(ctx):
    mode = ctx.os.environ.get("KVSTREAM_CUDA", "auto")
    if mode not in ["auto", "off", "require"]:
        fail("KVSTREAM_CUDA is '%s', must be auto, off or require" % mode)
    home, library = ("", "") if mode == "off" else _find(ctx)
    if not home:
        if mode == "require":
            fail("CUDA was asked for (--config=cuda), but there is no nvcc with its static runtime " +
                 "under $CUDA_HOME, under /usr/local/cuda or on the PATH: install the CUDA toolkit, or build without --config=cuda.")
        ctx.file("defs.bzl", "CUDA_FOUND = False\nNVCC = \"\"\nCUDA_VERSION = \"\"\n")
        ctx.file("BUILD.bazel", "")
        return
    version = ctx.execute([home + "/bin/nvcc", "--version"]).stdout.strip().split("\n")[-1]
    ctx.symlink(home + "/include", "include")
    ctx.symlink(library, "libcudart_static.a")
    ctx.file(
        "defs.bzl",
        "CUDA_FOUND = True\nNVCC = \"%s/bin/nvcc\"\nCUDA_VERSION = \"%s\"\n" % (home, version),
    )
    ctx.file("BUILD.bazel", """
package(default_visibility = ["//visibility:public"])

cc_library(
    name = "headers",
    hdrs = glob(["include/*.h", "include/crt/*.h"]),
    includes = ["include"],
)

cc_library(
    name = "cudart",
    srcs = ["libcudart_static.a"],
    linkopts = ["-ldl", "-lrt", "-lpthread"],
    deps = [":headers"],
)
""")

cuda_configure = repository_rule(
    implementation = _configure,
    environ = ["CUDA_HOME", "KVSTREAM_CUDA", "PATH"],
    local = True,
    doc = "The machine's CUDA toolkit, or none.",
)
