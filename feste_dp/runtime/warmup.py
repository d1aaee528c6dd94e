"""Compiles every kernel of a training run once, in a process of its own, before the workers start.

The machine code goes to the cache on disk (kernels/code_cache.py); workers only load it. A mark in the cache
holds the hash of every file, so that later runs skip this; what a kill, a full disk or a fault left is kept
as far as it is whole, and the rest is made anew.
"""

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from feste_dp.cache import locate, make_private
from feste_dp.errors import RunError
from feste_dp.files.growing import append_whole, open_growing
from feste_dp.files.locks import lock_if_possible
from feste_dp.files.writing import is_leftover, write_whole
from feste_dp.kernels.code_cache import (
    COMPILED_FOLDER,
    MARK,
    KernelCache,
    code_files,
    code_place,
    is_complete,
    mark_line,
)
from feste_dp.runtime.child_process import child_command
from feste_dp.runtime.own_code import own_code
from feste_dp.runtime.rehearsal import rehearse_all
from feste_dp.runtime.worker_process import worker_environment

COMPILING = "compiling the kernels (only the first time, about a minute)"

_JOURNAL = "finished"
"""The lines of the mark to be, each written when its file is."""
_LOCK = "lock"
_POLL_S = 0.05
_OLD_CACHES_KEPT = 4
_CACHE_MIB = 20
_CACHE_NAME = re.compile(r"[0-9a-f]{16}(-tests|-kernels)?")


def compile_kernels(environ: Mapping[str, str], on_wait: Callable[[float], None]) -> None:
    """Fill the cache unless it is complete; calls on_wait(seconds so far) while it takes. Raises RunError.

    One process at a time: others wait for it. A complete cache is only read.
    """
    started = time.monotonic()

    def wait() -> None:
        on_wait(time.monotonic() - started)
        time.sleep(_POLL_S)

    own_code()  # as it is now: the files of a program may change while it compiles
    folder = code_place().path
    if is_complete(folder):
        return
    try:
        make_private(folder)
        with lock_if_possible(folder / _LOCK, wait):
            if not is_complete(folder):
                keep_what_is_whole(folder)
                _compile(environ, folder, wait)
    except OSError as error:
        raise RunError(
            f"the compiled code in {folder} cannot be used ({error.strerror}): "
            "remove that folder, or set FESTE_DP_CACHE to another"
        ) from None


def cache_warnings(environ: Mapping[str, str], in_use: Sequence[Path] = ()) -> list[str]:
    """Why caches are not where they should be: that of compiled code, and of the folders `in_use`."""
    root = locate(environ)
    warnings = [code_place().warning]
    warnings += [root.warning for folder in in_use if folder.is_relative_to(root.path)]
    return list(dict.fromkeys(line for line in warnings if line is not None))


def _compile(environ: Mapping[str, str], folder: Path, wait: Callable[[], None]) -> None:
    process = subprocess.Popen(
        child_command("feste_dp.runtime.warmup"),
        env=worker_environment(environ),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    try:
        while process.poll() is None:
            wait()
    finally:
        if process.poll() is None:
            process.kill()
        _, errors = process.communicate()
    if process.returncode:
        reason = errors.decode(errors="replace").strip().splitlines()
        what = reason[-1] if reason else f"the compiler ended with status {process.returncode}"
        raise RunError(
            f"the kernels could not be compiled: {what} (into {folder}, which takes about "
            f"{_CACHE_MIB} MiB; FESTE_DP_CACHE moves it)"
        )


def keep_what_is_whole(folder: Path) -> None:
    """Remove compiled code that is not as it was written, the marks, and nothing else that may lie in a
    folder that the user named."""
    written: dict[str, bytes] = {}
    for name in (MARK, _JOURNAL):
        with contextlib.suppress(FileNotFoundError):
            for line in (folder / name).read_bytes().splitlines(keepends=True):
                written[os.fsdecode(line[65:-1])] = line  # of a name's lines the last one holds
    whole = []
    for file in code_files(folder):
        if written.get(str(file.relative_to(folder))) == (line := mark_line(folder, file)):
            whole.append(line)
        else:
            file.unlink(missing_ok=True)
    for unfinished in (*folder.glob("*/*.nb[ci].tmp.*"), *filter(_is_leftover, folder.rglob(".*.tmp"))):
        unfinished.unlink(missing_ok=True)
    (folder / MARK).unlink(missing_ok=True)
    write_whole(folder / _JOURNAL, b"".join(whole), 0o600)


def _is_leftover(path: Path) -> bool:
    return is_leftover(path.name)


def keep_journal(folder: Path) -> None:
    """Have what is compiled from here on written down, each function when it is finished."""

    def saved(files: list[Path]) -> None:
        append_whole(fd, os.fstat(fd).st_size, b"".join(mark_line(folder, file) for file in files))

    fd = open_growing(folder / _JOURNAL)
    KernelCache.saved = saved


def write_mark(folder: Path) -> None:
    write_whole(folder / MARK, b"".join(mark_line(folder, file) for file in code_files(folder)), 0o600)
    (folder / _JOURNAL).unlink(missing_ok=True)


def remove_old_caches(current: Path) -> None:
    """Delete the code of other sources, a folder each, but for the newest few, which may be in use.

    Touches only folders that are named as caches are, in a folder that is named as theirs is: where the cache
    had to go into the temporary directory, its neighbours are somebody else's.
    """
    if current.parent.name != COMPILED_FOLDER:
        return
    others = [
        path
        for path in current.parent.iterdir()
        if _CACHE_NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink() and path != current
    ]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_OLD_CACHES_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def main() -> int:
    folder = code_place().path
    keep_journal(folder)
    rehearse_all()
    write_mark(folder)
    remove_old_caches(folder)
    return 0
