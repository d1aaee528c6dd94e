"""The time after each kernel that a listing calls, taken inside the one compiled call, where somebody asks.

The listing is as it is to be read: a pass of the compiler adds the stamps, each with the line of its call,
and what stands in a line is read from the source when a trace is written. Traced and untraced runs execute
the same machine code and so give the same bits; a clock without room costs a comparison a call. Knows
nothing of what is timed.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import types
from numba.core import ir
from numba.core.compiler import CompilerBase, DefaultPassBuilder, run_frontend
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.inline_closurecall import InlineWorker
from numba.core.ir_utils import build_definitions, get_definition, guard
from numba.core.untyped_passes import IRProcessing

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.vector.registers import address_of

F = TypeVar("F", bound=Callable[..., Any])

BEGINNING = 0
"""The "line" of the stamp at the start of a call."""
_MONOTONIC = 1  # CLOCK_MONOTONIC, which is Python's time.perf_counter on Linux
_BYTES = 8
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))


@kernel
def stamp(clock, line):
    """Append (line, seconds, nanoseconds) to the clock, while there is room.

    clock   (1 + room, 3) int64, clock[0, 0] how many there are; (0, 3): no times are taken
    """
    if clock.shape[0] > 0:
        row = clock[0, 0] + 1
        if row < clock.shape[0]:
            clock[0, 0] = row
            clock[row, 0] = line
            _clock_gettime(_MONOTONIC, address_of(clock) + _BYTES * (3 * row + 1))


def make_clock(room: int) -> np.ndarray:
    """Room for that many stamps; 0: none are taken."""
    return np.zeros((1 + room if room else 0, 3), np.int64)


def read_clock(clock: np.ndarray) -> list[tuple[int, float]]:
    """The stamps as (line, time.perf_counter()), in order, and the clock is empty again."""
    stamps = [(int(line), s + ns * 1e-9) for line, s, ns in clock[1 : 1 + clock[0, 0]]]
    clock[0, 0] = 0
    return stamps


def stamped_kernel(clock: str) -> Callable[[F], F]:
    """A kernel with a stamp at its start, and one after each kernel that it, or what is inlined into it from
    the same file, calls. clock is an expression of its arguments, such as "w.s.clock"."""
    return lambda function: kernel(function, pipeline_class=_compiler_with_stamps(clock))


def _compiler_with_stamps(clock: str) -> type[CompilerBase]:
    class CompilerWithStamps(CompilerBase):
        def define_pipelines(self):
            builder = DefaultPassBuilder.define_nopython_pipeline(self.state)
            builder.add_pass_after(AddStamps, IRProcessing)
            builder.finalize()
            return [builder]

    @register_pass(mutates_CFG=True, analysis_only=False)
    class AddStamps(FunctionPass):
        _name = "add_stamps"

        def __init__(self):
            super().__init__()

        def run_pass(self, state):
            _inline_listings(state.func_ir)
            _add_stamps(state.func_ir, clock)
            return True

    return CompilerWithStamps


def _inline_listings(function: ir.FunctionIR) -> None:
    """Inline what stands in the same file and is to be inlined, before the compiler inlines the rest: so that
    the kernels that it calls are still calls, each with its line."""
    todo = list(function.blocks.values())
    while todo:
        block = todo.pop()
        for i, statement in enumerate(block.body):
            called = _kernel_called(function, statement)
            if called is not None and _is_listing_of(function, called):
                code = called.py_func.__code__
                inlined = InlineWorker().inline_ir(
                    function, block, i, run_frontend(called.py_func), code.co_freevars
                )
                todo += [new for _, new in inlined[3]]
                break  # the block ends here now
    function._definitions = build_definitions(function.blocks)


def _is_listing_of(function: ir.FunctionIR, called: Dispatcher) -> bool:
    is_inlined = called.targetoptions.get("inline") == "always"
    return is_inlined and called.py_func.__code__.co_filename == function.loc.filename


def _add_stamps(function: ir.FunctionIR, clock: str) -> None:
    for label, block in function.blocks.items():
        body = []
        for statement in block.body:
            body.append(statement)
            if _kernel_called(function, statement) is not None:
                body += _stamp(block.scope, clock, statement.loc.line, statement.loc)
        if label == min(function.blocks):
            start = 1 + max(i for i, line in enumerate(body) if _is_argument(line))
            body[start:start] = _stamp(block.scope, clock, BEGINNING, block.loc)
        block.body = body
    function._definitions = build_definitions(function.blocks)


def _is_argument(statement: ir.Stmt) -> bool:
    return isinstance(statement, ir.Assign) and isinstance(statement.value, ir.Arg)


def _kernel_called(function: ir.FunctionIR, statement: ir.Stmt) -> Dispatcher | None:
    call = statement.value if isinstance(statement, ir.Assign) else None
    if not isinstance(call, ir.Expr) or call.op != "call":
        return None
    called = guard(get_definition, function, call.func)
    found = called.value if isinstance(called, ir.Global | ir.FreeVar) else None
    return found if isinstance(found, Dispatcher) else None


def _stamp(scope: ir.Scope, clock: str, line: int, loc: ir.Loc) -> Iterator[ir.Stmt]:
    """stamp(clock, line)"""

    def assigned(value):
        return ir.Assign(value, scope.redefine("$stamp", loc), loc)

    argument, *attributes = clock.split(".")
    value = scope.get_exact(argument)
    for attribute in attributes:
        found = assigned(ir.Expr.getattr(value, attribute, loc))
        value = found.target
        yield found
    yield (number := assigned(ir.Const(line, loc)))
    yield (called := assigned(ir.Global(stamp.__name__, stamp, loc)))
    yield assigned(ir.Expr.call(called.target, (value, number.target), (), loc))


class Place(NamedTuple):
    """A call in a listing: `name` says what it is, `in_loop` whether it comes once a layer, `listing` the
    function that it stands in."""

    name: str
    in_loop: bool
    listing: str


def places_in(source: Path) -> dict[int, Place]:
    """The calls of a file by line, as far as they are statements of their own."""
    found: dict[int, Place] = {}
    for function in ast.parse(source.read_bytes()).body:
        if isinstance(function, ast.FunctionDef):
            _note_calls(function.body, function.name, False, found)
    return found


def _note_calls(body: list[ast.stmt], listing: str, in_loop: bool, found: dict[int, Place]) -> None:
    for statement in body:
        if isinstance(statement, ast.For | ast.If):
            _note_calls(statement.body, listing, in_loop or isinstance(statement, ast.For), found)
        elif isinstance(statement, ast.Expr | ast.Assign | ast.Return):
            call = statement.value
            if isinstance(call, ast.Call) and call.args:
                found[statement.lineno] = Place(_name(call), in_loop, listing)


def _name(call: ast.Call) -> str:
    """The function and what it writes first: `linear_forward qkv`."""
    written = call.args[0]
    while isinstance(written, ast.Subscript):
        written = written.value
    target = written.attr if isinstance(written, ast.Attribute) else ast.unparse(written)
    return f"{ast.unparse(call.func)} {target}".lstrip("_")
