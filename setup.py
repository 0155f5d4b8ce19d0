"""Builds the one extension; everything else is in pyproject.toml.

KONG_PDK_NO_EXTENSIONS=1        build without it (a pure wheel)
KONG_PDK_REQUIRE_EXTENSIONS=1   fail if it cannot be built (CI and releases)
unset                           try; without a C compiler the pure-Python codec is installed
KONG_PDK_SANITIZE=1             with AddressSanitizer and UBSan, for python3 dev.py sanitize
"""

import os

from setuptools import Extension, setup


def switch(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


# Without what is for debuggers, which Python's own flags ask for: it is two thirds of the module,
# and names the folder of the build, so that no two builds would be the same.
optimize, sanitizers = ["-O2", "-g0"], []
if switch("KONG_PDK_SANITIZE"):
    optimize = ["-O1", "-g", "-fno-omit-frame-pointer"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

extensions = []
if not switch("KONG_PDK_NO_EXTENSIONS"):
    extensions.append(
        Extension(
            "kong_pdk._speedups",
            ["kong_pdk/_speedups.pyx"],
            depends=["kong_pdk/_gate.h", "kong_pdk/_poll.h"],
            extra_compile_args=optimize + sanitizers,
            extra_link_args=sanitizers,
            optional=not switch("KONG_PDK_REQUIRE_EXTENSIONS"),
        )
    )

setup(ext_modules=extensions)
