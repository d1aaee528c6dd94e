"""The time after each call of a listing, taken inside the one compiled call, where somebody asks for it.

`@stamped` adds a stamp after every call of a function, so that the listing itself stays as it is to be read.
Traced and untraced runs execute the same machine code and so give the same bits; a clock without room costs a
comparison a call. Knows nothing of what is timed.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import types

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.vector.registers import address_of

F = TypeVar("F", bound=Callable[..., Any])

_MONOTONIC = 1  # CLOCK_MONOTONIC, which is Python's time.perf_counter on Linux
_BYTES = 8
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))


class Place(NamedTuple):
    """A call in a listing: `name` says what it is, `in_loop` whether it comes once a layer."""

    name: str
    in_loop: bool


places: list[Place] = []
"""Every stamped call, by the number that its stamp writes."""


@kernel
def stamp(clock, place):
    """Append (place, seconds, nanoseconds) to the clock, while there is room.

    clock   (1 + room, 3) int64, clock[0, 0] how many there are; (0, 3): no times are taken
    """
    if clock.shape[0] > 0:
        row = clock[0, 0] + 1
        if row < clock.shape[0]:
            clock[0, 0] = row
            clock[row, 0] = place
            _clock_gettime(_MONOTONIC, address_of(clock) + _BYTES * (3 * row + 1))


def make_clock(room: int) -> np.ndarray:
    """Room for that many stamps; 0: none are taken."""
    return np.zeros((1 + room if room else 0, 3), np.int64)


def read_clock(clock: np.ndarray) -> list[tuple[int, float]]:
    """The stamps as (place, time.perf_counter()), in order, and the clock is empty again."""
    stamps = [(int(place), s + ns * 1e-9) for place, s, ns in clock[1 : 1 + clock[0, 0]]]
    clock[0, 0] = 0
    return stamps


def stamped(clock: str, begins: bool = False) -> Callable[[F], F]:
    """Decorator, below the one that compiles: a stamp of `clock`, an expression of the function's arguments,
    after each statement that calls a function; with `begins`, one at the start too."""

    def decorate(function: F) -> F:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        assert isinstance(tree, ast.FunctionDef)
        tree.decorator_list = []
        tree.body = _with_stamps(tree.body, clock, in_loop=False)
        if begins:
            tree.body.insert(0, _stamp(clock, Place(BEGINNING, False), tree))
        ast.fix_missing_locations(tree)
        ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)
        code = compile(ast.Module([tree], []), inspect.getfile(function), "exec")
        namespace = function.__globals__
        namespace.setdefault(stamp.__name__, stamp)
        made: dict[str, Any] = {}
        exec(code, namespace, made)
        return made[function.__name__]  # type: ignore[no-any-return]

    return decorate


BEGINNING = ""
"""Name of the place at the start of a listing."""


def _with_stamps(body: list[ast.stmt], clock: str, in_loop: bool) -> list[ast.stmt]:
    stamped_body: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.For | ast.If):
            is_loop = in_loop or isinstance(statement, ast.For)
            statement.body = _with_stamps(statement.body, clock, is_loop)
        stamped_body.append(statement)
        if isinstance(statement, ast.Expr | ast.Assign) and isinstance(statement.value, ast.Call):
            stamped_body.append(_stamp(clock, Place(_name(statement.value), in_loop), statement))
    return stamped_body


def _stamp(clock: str, place: Place, at: ast.stmt) -> ast.stmt:
    places.append(place)
    (call,) = ast.parse(f"{stamp.__name__}({clock}, {len(places) - 1})").body
    return ast.copy_location(call, at)


def _name(call: ast.Call) -> str:
    """The function and what it writes first: `linear_forward qkv`."""
    written = call.args[0]
    while isinstance(written, ast.Subscript):
        written = written.value
    target = written.attr if isinstance(written, ast.Attribute) else ast.unparse(written)
    return f"{ast.unparse(call.func)} {target}".lstrip("_")
