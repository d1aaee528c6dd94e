"""The one decorator of all compiled code. Knows nothing of what the kernels compute.

There are no fast-math flags: the compiler may neither reorder a sum nor join a product to it, so what it
makes of the code, in which release and for which CPU, changes no bit. Where one operation is meant that
rounds once, multiply_add is written (vector/registers.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import types

from feste_dp.kernels.code_cache import KernelCache, code_place

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F, **options: Any) -> F:
    """Compile `function` with Numba: cached on disk, without the GIL, division by zero gives inf or nan.

    One version serves all callers that pass the same types: Numba by itself makes one more for every constant
    that a caller writes, which doubled the time of the first start.
    """
    compiled = _compiled(function, **options)
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
    return _compiled(function, inline="always")  # type: ignore[no-any-return]


def _compiled(function: F, **options: Any) -> Any:
    compiled = numba.njit(nogil=True, error_model="numpy", **options)(function)
    # what cache=True does, which looks for a writable folder, and makes one, while the function is defined
    compiled._cache = KernelCache(function)
    return compiled


def __getattr__(name: str) -> Path:
    """CACHE_DIRECTORY, where this process's compiled code lies, is looked for when somebody asks."""
    if name == "CACHE_DIRECTORY":
        return code_place().path
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
