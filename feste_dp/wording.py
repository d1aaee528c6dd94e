"""Numbers and commands as people read and paste them. Pure, but for how this process was called."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

PROGRAM = "feste-dp"
_MODULE = "feste_dp"

# What a screen, a log or a web page cannot show as it is: control characters, line separators, bidirectional
# overrides, and the bytes of a path that are not UTF-8.
_UNSHOWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def counted(number: int, what: str) -> str:
    """`1 worker`, `2 workers`, `1,000 steps`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def command(*arguments: str | Path) -> str:
    """A command of this program on one line, to be pasted into a shell: its name as it was typed, and each
    argument quoted. A Path that begins with a dash is written so that it is no option."""
    return " ".join([program_as_typed(), *map(quoted, arguments)])


def quoted(argument: str | Path) -> str:
    r"""One word of a shell (bash, zsh, ksh). What cannot be shown is escaped as in $'two\012lines'."""
    text = str(argument)
    if isinstance(argument, Path) and text.startswith("-"):
        text = f"./{text}"
    if not _UNSHOWABLE.search(text) and _fits_the_output(text):
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def program_as_typed() -> str:
    """What to type for this program: its name where the shell finds this very one, else how it was called."""
    called = sys.argv[0]
    if Path(called).name == "__main__.py" and Path(called).parent.name == _MODULE:
        words = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]  # python -m feste_dp
        return " ".join(map(quoted, words))
    if Path(called).name != PROGRAM or called == shutil.which(PROGRAM):
        return PROGRAM
    return quoted(Path(called))


def _fits_the_output(text: str) -> bool:
    """Whether standard output can show it: some locales know ASCII alone."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _escaped(character: str) -> str:
    if character in "'\\":
        return f"\\{character}"
    if character.isascii() and character.isprintable():
        return character
    # octal, for the digits of \x would run on into the text
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))
