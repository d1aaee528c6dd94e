"""How every child of this program is started: as the same program. Interpreter, its flags, the folders that
modules come from and the package are the parent's; nothing of the current folder is."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from feste_dp.import_path import import_path
from feste_dp.kernels.code_cache import CACHE_VARIABLE, code_place
from feste_dp.runtime import child_boot

# The interpreter's flags by their letters; others there are as variables, which are inherited.
_LETTERS = {
    "optimize": "O",
    "dont_write_bytecode": "B",
    "no_site": "S",
    "no_user_site": "s",
    "ignore_environment": "E",
    "isolated": "I",
    "bytes_warning": "b",
    "debug": "d",
    "quiet": "q",
    "verbose": "v",
}


def child_command(module: str, *arguments: str) -> list[str]:
    """The command that calls main() of a module of this package in a process of its own, with these arguments
    in sys.argv; the process ends with this one. Goes with child_environment(). Start it from the main thread:
    the kernel's death signal follows the thread that started a process."""
    return [sys.executable, *_interpreter_flags(), child_boot.__file__, str(os.getpid()), module, *arguments]


def child_environment(environ: Mapping[str, str], code: Path | None = None) -> dict[str, str]:
    """`environ`, and what a child must have of this process: its import path and its compiled code, also
    where that lies in another folder by now."""
    path = b"\0".join(map(os.fsencode, import_path()))  # in hexadecimal: a folder's name may hold anything
    return dict(environ) | {
        child_boot.PATH_VARIABLE: path.hex(),
        CACHE_VARIABLE: str(code or code_place().path),
    }


def _interpreter_flags() -> list[str]:
    """This interpreter's flags, and -P: the folder of the file that is run is none to import from."""
    flags = [f"-{letter * getattr(sys.flags, name)}" for name, letter in _LETTERS.items()]
    flags += [f"-W{option}" for option in sys.warnoptions]
    flags += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    return ["-P", *(flag for flag in flags if flag != "-")]
