"""Which folders this program's modules come from: those of its interpreter, its packages and its user, and
never the current folder for being the current one.

Imports nothing that a file of the current folder could stand in for: it runs before that folder is taken off.
"""

import os
import sys

PACKAGE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (pathlib imports a dozen modules)


def leave_current_folder() -> None:
    """Import from import_path() from here on."""
    sys.path[:] = import_path()


def import_path() -> list[str]:
    """sys.path without the current folder, which `python -m`, `python -c` and an empty or relative entry of
    PYTHONPATH put there: a random.py or numpy.py of the user would be taken for a part of this program.

    Stays where it was named by its absolute path, or is a folder of the interpreter; stands last where this
    package itself lies in it.
    """
    try:
        here = os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # it was removed
        here = ""
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry.startswith("/")]
    # the interpreter's own folders begin with the standard library's archive
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    given = next((i for i, entry in enumerate(sys.path) if entry.endswith(archive)), len(sys.path))
    path = []
    for index, entry in enumerate(sys.path):
        is_here = not entry or (index < given and os.path.realpath(entry) == here and entry not in named)
        if not is_here:
            path.append(os.path.abspath(entry))  # noqa: PTH100
    home = os.path.dirname(PACKAGE)  # noqa: PTH120
    return path if home in path or os.path.realpath(home) != here else [*path, home]
