"""Finds and reads text: the embedded plays and the user's files. Knows nothing of tokens."""

import contextlib
import lzma
from collections.abc import Sequence
from pathlib import Path

from feste_dp.errors import UsageError

# Memory that it takes to read, cut, merge and encode a byte of text: measured 12 to 15 on English and on text
# of two and three bytes a character.
MEMORY_PER_BYTE = 15

SHAKESPEARE_FILE = "shakespeare.txt.xz"


def embedded_shakespeare() -> Path:
    """The compressed plays: beside this file in an installed package, in data/ of a checkout."""
    here = Path(__file__).resolve()
    candidates = [here.with_name(SHAKESPEARE_FILE), here.parents[2] / "data" / SHAKESPEARE_FILE]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UsageError(f"the embedded corpus is missing ({candidates[0]}): reinstall feste-dp")


def read_shakespeare() -> str:
    """The 38 plays, about 5 MB of ASCII."""
    path = embedded_shakespeare()
    try:
        return lzma.decompress(path.read_bytes()).decode("ascii")
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise UsageError(f"the embedded corpus {path} is damaged ({error}): reinstall feste-dp") from error


def read_texts(paths: Sequence[str | Path], memory: int | None = None) -> list[str]:
    """The text of each file, byte for byte as it stands (no change of line ends, a byte order mark kept).

    UsageError for a file that is missing, a directory, empty, binary (a NUL byte), not UTF-8 or unreadable,
    and for files whose preparation would take more than `memory` bytes.
    """
    _check_size(paths, memory)
    return [_read_text(Path(path)) for path in paths]


def _check_size(paths: Sequence[str | Path], memory: int | None) -> None:
    size = 0
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # reading it says what is wrong
            size += Path(path).stat().st_size if Path(path).is_file() else 0
    if memory is not None and size * MEMORY_PER_BYTE > memory:
        name = f"text file {paths[0]} is" if len(paths) == 1 else f"the {len(paths)} text files are"
        fits = memory / MEMORY_PER_BYTE
        raise UsageError(
            f"{name} too large: {size / 2**20:,.0f} MiB, of which {fits / 2**20:,.0f} MiB can be prepared in "
            "the memory that is available: give less text, or prepare it on a larger machine"
        )


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise UsageError(f"text file {path} is a directory: name the files in it")
        if path.exists() and not path.is_file():
            raise UsageError(f"text file {path} is not a regular file: name a file on disk")
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"text file {path} does not exist: check the name") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"text file {path} cannot be read: {reason}") from error
    if not content:
        raise UsageError(f"text file {path} is empty: name a file that holds text")
    nul = content.find(b"\0")
    if nul >= 0:
        raise UsageError(
            f"text file {path} is binary (a NUL byte at offset {nul}): only UTF-8 text can be read"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"text file {path} is not UTF-8 (bad byte 0x{content[error.start]:02x} at offset {error.start}):"
            " convert it to UTF-8"
        ) from None
