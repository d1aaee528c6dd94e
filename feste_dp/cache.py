"""Where caches live: compiled code and prepared corpora, per user, safe to delete.

Looking for the place creates nothing. Where the folder that the environment names cannot be had, or is not
ours, there is one private folder of this user among the temporary ones.
"""

import functools
import os
import pwd
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.files.home import expand_home

_NAME = "feste-dp"
_TEMPORARY = ("/tmp", "/var/tmp")
_ROOT = 0


@dataclass(frozen=True)
class Place:
    """A folder for a cache of this user; `warning` says why it is not the one that the environment names."""

    path: Path
    warning: str | None = None


def cache_root(environ: Mapping[str, str]) -> Path:
    """The folder of all caches; it may have to be made."""
    return locate(environ).path


def locate(environ: Mapping[str, str], *parts: str) -> Place:
    """A folder below the caches that this user can have, or has, for himself: where the environment says,
    else below the private temporary one."""
    root = wanted_root(environ)
    why = "there is no home folder for caches" if root is None else _why_not_ours(root, parts)
    if root is not None and why is None:
        return Place(root.joinpath(*parts))
    instead = _temporary_root(environ.get("TMPDIR", ""))
    return Place(
        instead.joinpath(*parts), f"{why}: {instead} is used instead; FESTE_DP_CACHE names another place"
    )


def wanted_root(environ: Mapping[str, str]) -> Path | None:
    """$FESTE_DP_CACHE, else $XDG_CACHE_HOME/feste-dp, else ~/.cache/feste-dp; None where there is no home."""
    try:
        if environ.get("FESTE_DP_CACHE"):
            return Path(expand_home(environ["FESTE_DP_CACHE"])).absolute()
        if environ.get("XDG_CACHE_HOME"):
            return Path(expand_home(environ["XDG_CACHE_HOME"])).absolute() / _NAME
    except UsageError:  # the home of nobody who is known
        return None
    home = _home(environ)
    return home / ".cache" / _NAME if home is not None and home.is_dir() else None


def make_folders(path: Path) -> None:
    """Make the folder, and those above it, where they are missing: private from their first moment."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def make_private(path: Path) -> None:
    """Make the folder, and those above it, for this user alone. OSError where that cannot be."""
    make_folders(path)
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(1, "it belongs to another user", str(path))
    if status.st_mode & 0o077:
        path.chmod(0o700)


def is_trusted(path: Path) -> bool:
    """Whether nobody can have changed it who could not change this program as well: it belongs to this user,
    to root or to the owner of the program, and others cannot write to it."""
    status = path.stat()
    owners = (os.geteuid(), _ROOT, Path(__file__).stat().st_uid)
    return status.st_uid in owners and not status.st_mode & 0o022


def _home(environ: Mapping[str, str]) -> Path | None:
    if environ.get("HOME", "").startswith("/"):
        return Path(environ["HOME"])
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a container's user without a name
        return None


def _why_not_ours(root: Path, parts: tuple[str, ...]) -> str | None:
    """Why this user cannot have the folder root/parts for himself, in words; None where he can."""
    path = root.joinpath(*parts)
    chain = [path, *path.parents]
    inside = chain[: len(parts) + 1]  # the root of the caches and what is below
    existing = next(folder for folder in chain if os.path.lexists(folder))
    try:
        for folder in {existing: None} | {folder: None for folder in inside if folder.exists()}:
            owners = (os.geteuid(),) if folder == path and parts else (os.geteuid(), _ROOT)
            if folder.stat().st_uid not in owners:
                return f"{folder} belongs to another user"
        if not existing.is_dir():
            return f"{existing} is not a folder"
    except OSError as error:
        return f"{existing} cannot be used ({error.strerror})"
    return None if os.access(existing, os.W_OK | os.X_OK) else f"{existing} cannot be written to"


@functools.cache
def _temporary_root(tmpdir: str) -> Path:
    """The private temporary folder of this user: its usual name, or, where that is taken, the one of another
    name that he has, or may make."""
    name = f"{_NAME}-{os.geteuid()}"
    parents = [Path(parent) for parent in (tmpdir, *_TEMPORARY) if parent.startswith("/")]
    usable = [parent for parent in parents if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)]
    parent = (usable or parents)[0]
    usual = parent / name
    if not os.path.lexists(usual) or _is_ours(usual):
        return usual
    others = (folder for folder in sorted(parent.glob(f"{name}-*")) if _is_ours(folder))
    return next(others, parent / f"{name}-{secrets.token_hex(4)}")


def _is_ours(path: Path) -> bool:
    """Whether it is a folder of this user into which nobody else can have put anything."""
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
