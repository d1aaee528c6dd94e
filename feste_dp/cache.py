"""Where caches live: compiled code and prepared corpora, per user, safe to delete."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.home import expand_home


def cache_root(environ: Mapping[str, str]) -> Path:
    """$FESTE_DP_CACHE, else $XDG_CACHE_HOME/feste-dp, else ~/.cache/feste-dp.

    Where that cannot be written: a private folder in the temporary directory, the only thing this creates.
    """
    if environ.get("FESTE_DP_CACHE"):
        root = _absolute(environ["FESTE_DP_CACHE"])
    elif environ.get("XDG_CACHE_HOME"):
        root = _absolute(environ["XDG_CACHE_HOME"]) / "feste-dp"
    else:
        home = environ.get("HOME", "")
        root = Path(home if home.startswith("/") else "/nonexistent") / ".cache" / "feste-dp"
    return root if _is_writable(root) else _private_temporary_folder(environ.get("TMPDIR"))


def private_directory(path: Path) -> Path:
    """`path`, made with mode 0700; a new private folder of the temporary directory where that cannot be, or
    is not ours alone."""
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid == os.getuid():
            path.chmod(0o700)
            with tempfile.TemporaryFile(dir=path):
                return path
    return Path(tempfile.mkdtemp(prefix="feste-dp-"))


def _absolute(path: str) -> Path:
    """The path with its `~` expanded; one that cannot be leads to where nothing can be written."""
    try:
        return Path(expand_home(path)).absolute()
    except UsageError:
        return Path("/nonexistent")


def _is_writable(path: Path) -> bool:
    """Whether a folder is there and writable, or could be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def _private_temporary_folder(parent: str | None) -> Path:
    """One folder per user that nobody else can write to; a fresh one when the name is not ours."""
    folder = Path(parent or tempfile.gettempdir()) / f"feste-dp-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077:
            return folder
    return Path(tempfile.mkdtemp(prefix="feste-dp-", dir=parent))
