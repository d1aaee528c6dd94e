"""Finds text: the embedded plays, and the user's files and folders. Knows nothing of tokens."""

import lzma
import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feste_dp.data.text_file import Text, survey, text_in_memory
from feste_dp.data.tokens import META_FILE
from feste_dp.errors import UsageError

SHAKESPEARE = "shakespeare"
_COMPRESSED = {".gz", ".xz", ".zst", ".bz2", ".zip", ".7z", ".lz4", ".tgz"}

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


@dataclass(frozen=True)
class Corpus:
    """Texts in their order, a short name, and what is worth saying of how they were found."""

    name: str
    texts: list[Text]
    note: str | None


def read_corpus(places: str | Sequence[str]) -> Corpus:
    """The texts of "shakespeare", of a folder, or of files and folders in their order, each read once.

    A folder gives its .txt files and those of all folders in it, in the order of the bytes of their names,
    whatever the locale; the note says how many these are, and what was left out. UsageError for a folder
    without any, and for a file that is missing, empty, unreadable or no UTF-8 text.
    """
    if places == SHAKESPEARE:
        return Corpus(SHAKESPEARE, [text_in_memory("shakespeare.txt", read_shakespeare())], None)
    named = [places] if isinstance(places, str) else list(places)
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    folders = [place for place in named if _is_folder(place)]
    for place in named:
        files += _files_below(place, left_out) if place in folders else [Path(place)]
    if not files:
        what = ", ".join(named) or "[]"
        raise UsageError(
            f"{what} holds no .txt files and no {META_FILE}{_but(left_out)}: name text files",
            about="data.corpus",
        )
    texts = [survey(path) for path in files]
    note = None
    if folders:
        size = sum(text.size for text in texts)
        note = f"{', '.join(folders[:3])}: {len(files):,} .txt file{'s' if len(files) > 1 else ''}"
        note += f", {size:,} bytes{_but(left_out)}"
    first = Path(named[0])
    return Corpus(_short_name(first.name if isinstance(places, str) else first.stem), texts, note)


def _is_folder(place: str) -> bool:
    try:
        return Path(place).is_dir()
    except (OSError, ValueError):  # too long, or a NUL; reading it says so
        return False


def _files_below(folder: str, left_out: Counter[str]) -> list[Path]:
    """The .txt files of a folder and all that are in it. Counts the rest by what it is; follows links to
    files, not to folders, which may lead in circles."""

    def refuse(error: OSError) -> None:
        raise UsageError(f"folder {error.filename} cannot be read: {error.strerror}") from error

    found = []
    for above, names_of_folders, names in os.walk(folder, onerror=refuse):
        kept = []
        for name in names_of_folders:
            if name.startswith("."):
                left_out["hidden"] += 1
            elif Path(above, name).is_symlink():
                left_out["a link to a folder"] += 1
            else:
                kept.append(name)
        names_of_folders[:] = kept
        for name in names:
            path = Path(above, name)
            why = _unfit(path)
            if why is None:
                found.append(path)
            else:
                left_out[why] += 1
    return sorted(found, key=lambda path: [os.fsencode(part) for part in path.parts])


def _unfit(path: Path) -> str | None:
    """Why a file in a folder is left out."""
    if path.name.startswith("."):
        return "hidden"
    ending = path.suffix.lower()
    if ending in _COMPRESSED:
        return f"compressed ({ending})"
    if ending != ".txt":
        return f"with another ending ({ascii(ending)[1:-1][:20] or 'none'})"
    try:
        status = path.stat()
    except OSError:
        return "a broken link"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    return None if status.st_size else "empty"


def _but(left_out: Counter[str]) -> str:
    if not left_out:
        return ""
    kinds = [f"{count:,} {why}" for why, count in left_out.most_common(6)]
    more = ["others"] * (len(left_out) > len(kinds))
    return f"; left out: {', '.join(kinds + more)}"


def _short_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:40].strip("-") or "text"
