"""Compiles every kernel of a training run once, in a process of its own, before the workers start.

The machine code goes to the cache on disk (kernels/compilation.py); workers only load it. A mark in the
cache holds the hash of every file, so that later runs skip this and a damaged cache is made anew.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from feste_dp.errors import RunError
from feste_dp.kernels.compilation import CACHE_DIRECTORY, COMPILED_FOLDER
from feste_dp.runtime.child_process import child_command
from feste_dp.runtime.rehearsal import rehearse_all
from feste_dp.runtime.worker_process import worker_environment

_MARK = "complete"
_POLL_S = 0.05
_OLD_CACHES_KEPT = 4
_CACHE_MIB = 20
_CACHE_NAME = re.compile(r"[0-9a-f]{16}(-tests|-kernels)?")


def compile_kernels(environ: Mapping[str, str], on_wait: Callable[[float], None]) -> None:
    """Fill the cache unless it is complete; calls on_wait(seconds so far) while it takes. Raises RunError.

    A cache of which a byte has changed is emptied first. One process at a time: others wait for it.
    """
    started = time.monotonic()

    def wait() -> None:
        on_wait(time.monotonic() - started)
        time.sleep(_POLL_S)

    try:
        with _lock(wait):
            if not is_complete():
                _empty_cache()
                _compile(environ, wait)
    except OSError as error:
        raise RunError(
            f"the compiled code in {CACHE_DIRECTORY} cannot be used ({error.strerror}): "
            "remove that folder, or set FESTE_DP_CACHE to another"
        ) from None


def _compile(environ: Mapping[str, str], wait: Callable[[], None]) -> None:
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
            f"the kernels could not be compiled: {what} (into {CACHE_DIRECTORY}, which takes about "
            f"{_CACHE_MIB} MiB; FESTE_DP_CACHE moves it)"
        )


@contextlib.contextmanager
def _lock(wait: Callable[[], None]) -> Iterator[None]:
    """Hold the cache for this process; goes on without where the file system has no locks."""
    with contextlib.ExitStack() as stack:
        try:
            lock = CACHE_DIRECTORY.with_name(f"{CACHE_DIRECTORY.name}.lock")
            file = stack.enter_context(lock.open("ab"))
        except OSError:  # beside a folder that is ours lies one that is not
            yield
            return
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                wait()
            except OSError:
                break
        yield


def is_complete() -> bool:
    """Whether every byte of the cache is as the warm-up wrote it."""
    try:
        return (CACHE_DIRECTORY / _MARK).read_bytes() == _hashes()
    except OSError:
        return False


def _empty_cache() -> None:
    """Remove compiled code and its mark, and nothing else that may lie in a folder that the user named."""
    (CACHE_DIRECTORY / _MARK).unlink(missing_ok=True)
    for path in compiled_files():
        path.unlink(missing_ok=True)


def compiled_files() -> list[Path]:
    return sorted(CACHE_DIRECTORY.glob("*/*.nb[ci]"))


def write_mark() -> None:
    beside = CACHE_DIRECTORY / f"{_MARK}.{os.getpid()}"
    beside.write_bytes(_hashes())
    beside.replace(CACHE_DIRECTORY / _MARK)


def _hashes() -> bytes:
    """A line per file of the cache: its SHA-256 and its name. About 10 ms."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(CACHE_DIRECTORY)}\n"
        for path in compiled_files()
    ]
    return "".join(lines).encode(errors="surrogateescape")


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
    rehearse_all()
    write_mark()
    remove_old_caches(CACHE_DIRECTORY)
    return 0
