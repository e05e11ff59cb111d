"""`cuda_library`: device code compiled by nvcc, linked as any cc_library."""

load("@local_cuda//:defs.bzl", "CUDA_VERSION", "NVCC")

# Machine code for A100 and H100/H200, and PTX from which newer devices compile their own.
_ARCHITECTURES = [
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_90,code=sm_90",
    "-gencode=arch=compute_90,code=compute_90",
]

def _objects(ctx):
    headers = depset(
        ctx.files.hdrs,
        transitive = [dep[CcInfo].compilation_context.headers for dep in ctx.attr.deps],
    )
    out = []
    for source in ctx.files.srcs:
        object_file = ctx.actions.declare_file("%s/%s.o" % (ctx.label.name, source.basename))
        out.append(object_file)
        ctx.actions.run(
            executable = NVCC,
            arguments = _ARCHITECTURES + [
                "-std=c++17",
                "-O3",
                "-lineinfo",
                "-Werror=all-warnings",
                "-Xcompiler=-fPIC,-Wall,-Wextra,-Wno-unused-parameter",
                "-I.",
                "-c",
                source.path,
                "-o",
                object_file.path,
            ],
            inputs = depset([source], transitive = [headers]),
            outputs = [object_file],
            # The version is no input that Bazel sees, but it decides the output.
            env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "KVSTREAM_CUDA_VERSION": CUDA_VERSION},
            mnemonic = "CudaCompile",
            progress_message = "Compiling %s with nvcc" % source.short_path,
        )
    return [DefaultInfo(files = depset(out))]

_cuda_objects = rule(
    implementation = _objects,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"]),
        "hdrs": attr.label_list(allow_files = [".h"]),
        "deps": attr.label_list(providers = [CcInfo]),
    },
)

def cuda_library(name, srcs, hdrs = [], deps = [], **kwargs):
    """Objects of `srcs`, compiled by nvcc and not instrumented by any sanitizer, behind `hdrs`."""
    _cuda_objects(name = name + "_objects", srcs = srcs, hdrs = hdrs, deps = deps)
    native.cc_library(
        name = name,
        srcs = [name + "_objects"],
        hdrs = hdrs,
        deps = deps + ["@local_cuda//:cudart"],
        **kwargs
    )
