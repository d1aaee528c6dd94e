"""Which program this process is: what a worker says of itself at its start, and its coordinator compares."""

import functools
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from feste_dp.import_path import PACKAGE


@dataclass(frozen=True)
class Code:
    """A digest over every source file of the package and over what runs it, and the place in words."""

    digest: str
    place: str
    sources: str = ""
    """A digest over the source files alone."""


@functools.cache
def own_code() -> Code:
    """Of the files as they are at the first call. Some 5 ms."""
    package = Path(PACKAGE)
    python = ".".join(map(str, sys.version_info[:3])) + " -O" * sys.flags.optimize
    versions = f"Python {python}, numpy {np.__version__}, numba {numba.__version__}"
    sources = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        sources.update(f"{path.relative_to(package)} {len(content)}\n".encode() + content)
    digest = hashlib.sha256(versions.encode() + sources.digest())
    place = str(package).encode(errors="backslashreplace").decode()
    return Code(digest.hexdigest()[:16], f"{place} ({versions})", sources.hexdigest()[:16])
