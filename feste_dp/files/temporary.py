"""Temporary folders: private, and none stays behind. Those of killed processes go at the next start.

The name says whose a folder is, feste-dp-WHAT-PROCESS-RANDOM, and a lock that it is in use.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from feste_dp.files.locks import try_lock
from feste_dp.interruption import held

_NAME = re.compile(r"feste-dp-[a-z]+-(\d+)-[a-z0-9_]{8}")


def temporary_places() -> list[Path]:
    """Where to try, the user's own choice first; each once. Not tempfile.gettempdir(), which writes a file to
    see whether it can, and leaves it where it is killed meanwhile."""
    variables = [os.environ.get(name, "") for name in ("TMPDIR", "XDG_RUNTIME_DIR")]
    places = [tempfile.tempdir or "", *variables, "/dev/shm", "/tmp"]
    return [Path(place) for place in dict.fromkeys(places) if str(place).startswith("/")]


@contextlib.contextmanager
def temporary_folder(what: str, places: Iterable[Path]) -> Iterator[Path]:
    """A new folder (mode 0700), removed with all in it at the end. Raises the last OSError where none can be
    made."""
    error: OSError = FileNotFoundError("no place for temporary files")
    for place in places:
        with contextlib.ExitStack() as stack:
            try:
                _remove_dead(place)
                with held:
                    folder = tempfile.mkdtemp(prefix=f"feste-dp-{what}-{os.getpid()}-", dir=place)
                    stack.callback(_remove, folder)
            except OSError as failed:
                error = failed
                continue
            stack.enter_context(_locked(folder))
            yield Path(folder)
            return
    raise error


def _remove(folder: str) -> None:
    with held:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[bool]:
    """Hold a folder; False where that cannot be."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            held = try_lock(descriptor)
        except OSError:
            held = False
        yield held
    finally:
        os.close(descriptor)


def _remove_dead(place: Path) -> None:
    """Remove this user's folders whose process is no more. The lock is for processes that cannot be seen from
    here, in another container with the same folder."""
    with os.scandir(place) as entries:
        found = [(entry.path, name) for entry in entries if (name := _NAME.fullmatch(entry.name))]
    for folder, name in found:
        if is_alive(int(name[1])):
            continue
        with contextlib.suppress(OSError):
            if os.lstat(folder).st_uid == os.geteuid():
                with _locked(folder) as held:
                    if held:
                        shutil.rmtree(folder, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, as far as can be seen from here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True
