"""The one decorator of all compiled code, and where its machine code is kept on disk.

Owns compiler flags and the compiled-code cache. Knows nothing of what the kernels compute.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import llvmlite.binding
import numba
import numpy as np
from numba import types

from feste_dp.cache import cache_root, private_directory

F = TypeVar("F", bound=Callable[..., Any])

# Reductions (layer norm, softmax, bias gradients) vectorise only when sums may be reassociated; the
# compiler then fixes one association per array length, the same in every process. `nnan` and `ninf` stay
# off: a NaN must survive until the check before the update.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}

COMPILED_FOLDER = "compiled"
COMPILED_PACKAGES = ("kernels", "model")


def kernel(function: F) -> F:
    """Compile `function` with Numba: cached on disk, without the GIL, division by zero gives inf or nan.

    One version serves all callers that pass the same types: Numba by itself makes one more for every constant
    that a caller writes, which doubled the time of the first start.
    """
    compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)(function)
    template_for = compiled.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:
        return template_for(
            tuple(map(types.unliteral, args)), {k: types.unliteral(v) for k, v in kws.items()}
        )

    compiled.get_call_template = get_call_template
    return compiled  # type: ignore[no-any-return]


def inlined_kernel(function: F) -> F:
    """A kernel that does little but pass its arguments on: its callers compile it as a part of themselves.

    Each kernel of its own is optimised and translated with all that it calls, so a wrapper costs as much of
    the first start as what it wraps: a dozen of them were a quarter of it.
    """
    inlined: F = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH, inline="always")(
        function
    )
    return inlined


def sources_digest() -> str:
    """16 hex digits over every source file that holds kernels, the versions that compile them and the CPU.

    Numba checks only the file of the outermost function; a change in a kernel that it calls would go
    unnoticed, so each state of the sources has a folder of its own. Place and time stamp count too, because
    Numba takes its own cached code for one place and one time stamp only.
    """
    package = Path(__file__).parent.parent
    digest = hashlib.sha256(repr((*_versions(), *_target())).encode())
    for name in COMPILED_PACKAGES:
        for path in sorted((package / name).glob("*.py")):
            digest.update(repr((str(path), path.stat().st_mtime_ns)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _versions() -> tuple[str, ...]:
    return numba.__version__, llvmlite.__version__, np.__version__


def _target() -> tuple[object, ...]:
    """What machine code is made for: machines of several kinds may share a home directory, and Numba may be
    told otherwise."""
    config = numba.config
    host = (llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten())
    return (*host, config.CPU_NAME, config.CPU_FEATURES, config.OPT, config.BOUNDSCHECK)


# A process hands its folder to those it starts in this variable: all of a run must load the same code, for
# code compiled in memory is optimised differently, down to the bits, from the same code loaded from disk.
CACHE_VARIABLE = "FESTE_DP_COMPILED"

# Numba asks for the folder when a function is decorated, so it is set before the first `@kernel`.
# Private, because a cache of code is code.
CACHE_DIRECTORY = (
    Path(os.environ[CACHE_VARIABLE])
    if CACHE_VARIABLE in os.environ
    else private_directory(cache_root(os.environ) / COMPILED_FOLDER / sources_digest())
)
numba.config.CACHE_DIR = str(CACHE_DIRECTORY)
