"""`~` at the start of a path, as a shell expands it where it sees one; it does not in `run.dir=~/runs`.

Every path that the program is given goes through here, so that no folder named `~` is ever made.
"""

import os

from feste_dp.errors import UsageError


def expand_home(path: str) -> str:
    """The path with a leading ~ or ~user replaced by that home directory; ./~ stays what it is.

    UsageError where there is no such user or home directory.
    """
    if not path.startswith("~"):
        return path
    user = path[1:].partition("/")[0]
    # HOME is empty or relative in broken environments; a folder would be made in the root or the current one
    if user or os.environ.get("HOME", "/").startswith("/"):
        expanded = os.path.expanduser(path)  # noqa: PTH111  # Path's raises where there is no such user
        if expanded.startswith("/"):
            return expanded
    why = f"there is no user {user!r}" if user else "HOME is not the path of a directory"
    raise UsageError(f"~{user} cannot be expanded, {why}; for a name that begins with ~ give ./{path}")
