"""The changes that a save makes on disk, one method each, so that a test can fail or stop at any of them."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from feste_dp.errors import RunError
from feste_dp.files.writing import sync_directory

TEMPORARY = ".tmp-"  # a save that has not been committed
REPLACED = ".old-"  # a checkpoint on its way out, while the new one of its step takes its name
TRASH = ".trash-"  # a checkpoint that is being deleted


class SaveError(RunError):
    """A checkpoint was not saved, or not all that follows a save was done. Earlier checkpoints stand."""


class Filesystem:
    """The real file system. Every method raises OSError when it fails."""

    def make_directory(self, path: Path) -> None:
        path.mkdir()

    def create(self, path: Path) -> int:
        """A descriptor of a new file that only this save writes; permissions follow the umask."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Bytes written, perhaps fewer than given."""
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        sync_directory(path)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)

    def symlink(self, target: str, link: Path) -> None:
        link.symlink_to(target)

    def remove(self, path: Path) -> None:
        """Removes a file, a link or a whole directory."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def free_bytes(self, path: Path) -> int | None:
        """None where the file system does not say: some network and FUSE ones refuse, or say 0 of 0."""
        try:
            usage = shutil.disk_usage(path)
        except OSError:
            return None
        return usage.free if usage.total > 0 else None


def unique_path(directory: Path, prefix: str, name: str) -> Path:
    """A path beside the checkpoints that no other save uses; `owner_of` gives the name back."""
    return directory / f"{prefix}{name}-{os.getpid()}.{secrets.token_hex(4)}"


def owner_of(path: Path, prefix: str) -> str:
    return path.name.removeprefix(prefix).rpartition("-")[0]


@contextlib.contextmanager
def saving_errors(failure: str) -> Iterator[None]:
    """Turns an OSError into a SaveError whose one line starts with `failure`."""
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename is not None else ""
        raise SaveError(f"{failure}: {error.strerror or error}{place}") from error
