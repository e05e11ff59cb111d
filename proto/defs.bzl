"""kvstream_proto_library: protoc and grpc_cpp_plugin from Debian over one .proto file."""


def kvstream_proto_library(name, src, visibility):
    """C++ messages and gRPC stubs for one .proto.

    Args:
      name: name of the cc_library.
      src: the .proto file, its path below this package being its import path.
      visibility: of the cc_library.
    """
    stem = src[:-len(".proto")]
    headers = [stem + ".pb.h", stem + ".grpc.pb.h"]
    sources = [stem + ".pb.cc", stem + ".grpc.pb.cc"]
    native.genrule(
        name = name + "_generate",
        srcs = [src],
        outs = headers + sources,
        cmd = " ".join([
            "protoc",
            "--proto_path=proto",
            "--cpp_out=$(RULEDIR)",
            "--grpc_out=generate_mock_code=false:$(RULEDIR)",
            "--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin",
            "$(location %s)" % src,
        ]),
    )
    native.cc_library(
        name = name,
        srcs = sources,
        hdrs = headers,
        # Generated code is not ours to warn about; its headers read "kvstream/v1/...".
        copts = ["-w"],
        includes = ["."],
        visibility = visibility,
        deps = ["//third_party/grpc", "//third_party/protobuf"],
    )
