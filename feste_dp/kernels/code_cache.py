"""Where the machine code of kernels lies on disk, and how Numba finds it there.

Importing a kernel touches nothing: the folder is chosen when code is first loaded, compiled or asked for. It
is private, because a cache of code is code; one that cannot be written to is used where it is complete and
nobody else can have changed it.
"""

import functools
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
import numpy as np
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from feste_dp.cache import Place, is_trusted, locate, make_private, wanted_root

COMPILED_FOLDER = "compiled"
COMPILED_PACKAGES = ("kernels", "model")
MARK = "complete"
"""Holds a line per file of a whole cache: its SHA-256 and its name."""

# A process hands its folder to those it starts in this variable: whatever becomes of the cache, they find
# what it found, and compile nothing.
CACHE_VARIABLE = "FESTE_DP_COMPILED"


def code_place(kind: str = "") -> Place:
    """The folder of this process's compiled code; `kind` tells apart what must not be mixed with it."""
    return _code_place(kind)


@functools.cache
def _code_place(kind: str) -> Place:
    if CACHE_VARIABLE in os.environ:
        given = Path(os.environ[CACHE_VARIABLE])
        return Place(given.with_name(given.name + kind) if kind else given)
    name = sources_digest() + kind
    place, root = locate(os.environ, COMPILED_FOLDER, name), wanted_root(os.environ)
    if place.warning is not None and root is not None:
        baked = root / COMPILED_FOLDER / name
        if holds_trusted_code(baked):
            return Place(baked)
    return place


def sources_digest() -> str:
    """16 hex digits over every source file that holds kernels, its place, what compiles it and the CPU.

    Numba checks only the file of the outermost function; a change in a kernel that it calls would go
    unnoticed, so each state of the sources has a folder of its own.
    """
    package = Path(__file__).parent.parent
    digest = hashlib.sha256(repr((*_versions(), *_target())).encode())
    for name in COMPILED_PACKAGES:
        for path in sorted((package / name).rglob("*.py")):
            digest.update(repr(str(path)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _versions() -> tuple[object, ...]:
    """Numba's code is of one Python, and of its bytecode, which -O changes."""
    python = (sys.implementation.cache_tag, sys.version_info[:3], sys.abiflags, sys.flags.optimize)
    return (*python, numba.__version__, llvmlite.__version__, np.__version__)


def _target() -> tuple[object, ...]:
    """What machine code is made for: machines of several kinds may share a home directory, and Numba may be
    told otherwise."""
    config = numba.config
    host = (llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten())
    return (*host, config.CPU_NAME, config.CPU_FEATURES, config.OPT, config.BOUNDSCHECK)


def code_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.nb[ci]"))


def mark_line(folder: Path, file: Path) -> bytes:
    name = os.fsencode(file.relative_to(folder))
    return f"{hashlib.sha256(file.read_bytes()).hexdigest()} ".encode() + name + b"\n"


def is_complete(folder: Path) -> bool:
    """Whether every byte of the compiled code is as the warm-up wrote it. About 10 ms."""
    try:
        mark = (folder / MARK).read_bytes()
        return bool(mark) and mark == b"".join(mark_line(folder, file) for file in code_files(folder))
    except OSError:
        return False


def holds_trusted_code(folder: Path) -> bool:
    """Whether a folder that this user may only read has all the code, and nobody can have put it there who
    could not change this program as well."""
    try:
        places = {folder, *(file.parent for file in code_files(folder)), *code_files(folder)}
        return is_complete(folder) and all(map(is_trusted, places))
    except OSError:
        return False


@functools.cache
def _content_stamp(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class _Locator(_CacheLocator):  # type: ignore[misc]
    """Tells Numba the folder of a function's code, without looking whether it is there."""

    def __init__(self, py_func: Any, py_file: str) -> None:
        self._py_file, self._line = py_file, py_func.__code__.co_firstlineno

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_Locator":
        return cls(py_func, py_file)

    def get_cache_path(self) -> str:
        return str(code_place(KernelCache.kind).path / self.get_suitable_cache_subpath(self._py_file))

    def ensure_cache_path(self) -> None:
        make_private(code_place(KernelCache.kind).path)
        make_private(Path(self.get_cache_path()))

    def get_source_stamp(self) -> str:
        """Of the content alone: a copy, an image or a checkout may give another time to the same file."""
        return _content_stamp(self._py_file)

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Implementation(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of one function, which it opens on first use only."""

    _impl_class = _Implementation
    kind = ""
    """Of the folder that all kernels of this process are kept in; set before the first of them is called."""
    saved: Callable[[list[Path]], None] | None = None
    """Told the files of a function once they are written."""

    def __init__(self, py_func: Any) -> None:
        self._py_func, self._is_open = py_func, False

    def _open(self) -> None:
        if not self._is_open:
            super().__init__(self._py_func)
            self._is_open = True

    @property
    def cache_path(self) -> Any:
        self._open()
        return super().cache_path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        self._open()
        return super().load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        self._open()
        super().save_overload(sig, data)
        if KernelCache.saved is not None:
            name = self._impl.filename_base
            KernelCache.saved(
                [file for file in Path(self._cache_path).iterdir() if file.name.startswith(name)]
            )

    def flush(self) -> None:
        self._open()
        super().flush()
