"""Compiler options and test rules that every room shares."""

KVSTREAM_COPTS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-sign-compare",
    # GCC 12 reports these for Abseil's and protobuf's own headers.
    "-Wno-unused-parameter",
    "-Wno-maybe-uninitialized",
]
