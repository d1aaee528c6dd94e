"""Where a page may be written: a file that is there already is replaced only where it is a page of the same.

A device, a FIFO, a link, a folder, anybody's own file and the page of another run stay what they are.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.files.reading import open_plain
from feste_dp.report.markup import Markup, tag

_HEAD_BYTES = 2**16
_MADE_HERE = b'<meta name="generator" content="feste-dp '


def page_mark(names: Sequence[str]) -> Markup:
    """What a page says in its head of the runs and studies that it is about."""
    return tag("meta", {"name": "feste-dp-about", "content": " ".join(sorted(names))})


def check_target(path: Path, mark: Markup | None) -> None:
    """UsageError where a page at `path` would replace anything but a page with this mark, or anything but a
    page of this program, where the mark is None."""
    try:
        fd = open_plain(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; choose another file") from error
    try:
        head = os.read(fd, _HEAD_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; choose another file") from error
    finally:
        os.close(fd)
    if head and _MADE_HERE not in head:
        raise UsageError(f"{path} is there and no page of feste-dp: remove it, or choose another file")
    if head and mark is not None and mark.encode() not in head:
        raise UsageError(f"{path} is a page about other runs: remove it, or choose another file")
