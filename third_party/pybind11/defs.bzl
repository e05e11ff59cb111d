"""Options for extension modules of Debian 12's /usr/bin/python3 (3.11): the one place that names its headers."""

PYTHON_EXTENSION_COPTS = [
    "-isystem",
    "/usr/include/python3.11",
    # As pybind11 asks for: otherwise its types clash between extension modules.
    "-fvisibility=hidden",
]
