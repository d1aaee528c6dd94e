"""What coordinator and workers say to each other: frozen dataclasses, and their form on the wire.

A frame is the run's random token and a msgpack list [number of the message, its fields ...]. No message grows
with the batch, the text or the model: an order names a run of items, and its worker knows which tokens are
theirs. Knows nothing of sockets. A frame that is too large, malformed or of the wrong type is a
ProtocolError, whoever sent it, and costs less than a MiB of memory, whatever it announces.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn, TypeAlias

import msgpack

MAX_ORDER_BYTES = 64
"""An order: a few numbers of 9 bytes each."""
MAX_FRAME_BYTES = 1 << 15
"""The longest: the two texts of Failed, each shortened to MAX_TEXT_BYTES."""
MAX_TEXT_BYTES = 16_000
MAX_LOSSES = 256
"""In one report, 9 bytes each: it fits into a letterbox."""
_MAX_INT = 2**63 - 1


class ProtocolError(Exception):
    """A frame or a message that the protocol does not allow here; names what came and when."""


Floats: TypeAlias = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker: started, arena mapped, data open. `code` is a digest of the program that it is, `place` says in
    words where that lies."""

    pid: int
    code: str
    place: str


@dataclass(frozen=True, slots=True)
class Compute:
    """Coordinator: compute shards first .. last - 1 of this machine's, add up each `per_slot` of them, and
    leave these sums in their gradient slots. first and last are multiples of per_slot."""

    step: int
    first: int
    last: int
    per_slot: int


@dataclass(frozen=True, slots=True)
class ShardsDone:
    """Worker: shards first, first + 1, ... are computed, and with the last of a slot the slot. Each loss is
    summed over the shard's positions; up to MAX_LOSSES."""

    step: int
    first: int
    loss_sums: Floats
    seconds: float


@dataclass(frozen=True, slots=True)
class Reduce:
    """Coordinator: sum chunks first .. last - 1 over so many slots, overwriting grad and norms there."""

    step: int
    first: int
    last: int
    slots: int


@dataclass(frozen=True, slots=True)
class StripeDone:
    """Worker: these chunks are summed."""

    step: int
    first: int
    last: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Coordinator: compute the losses of units first .. last - 1, counted from unit `start`, each of as many
    sequences as a shard, where sequence i begins at token i * span // gaps of the held-out text."""

    step: int
    first: int
    last: int
    start: int
    span: int
    gaps: int


@dataclass(frozen=True, slots=True)
class UnitsDone:
    """Worker: the losses of units first, first + 1, ..., each summed over its positions; up to MAX_LOSSES."""

    step: int
    first: int
    loss_sums: Floats
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Worker: an exception ended this worker. reason is one line, trace all of it, for the log."""

    reason: str
    trace: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Coordinator: exit."""


RESULTS = (ShardsDone, StripeDone, UnitsDone)
"""What a worker says of its work."""
REPORTS = (Ready, *RESULTS, Failed)
"""What a worker may say."""
ORDERS = (Compute, Reduce, Evaluate, Stop)
"""What the coordinator may say."""

Message: TypeAlias = Ready | Compute | ShardsDone | Reduce | StripeDone | Evaluate | UnitsDone | Failed | Stop

_KINDS: tuple[type[Any], ...] = (
    Ready,
    Compute,
    ShardsDone,
    Reduce,
    StripeDone,
    Evaluate,
    UnitsDone,
    Failed,
    Stop,
)


def encode(message: Message) -> bytes:
    number, names, _ = _FORMS[type(message)]
    if isinstance(message, Failed):
        message = Failed(_shortened(message.reason), _shortened(message.trace))
    elif isinstance(message, Ready):
        message = replace(message, place=_shortened(message.place))
    packed: bytes = msgpack.packb([number, *[getattr(message, name) for name in names]])
    return packed


def decode(data: bytes) -> Message:
    """The message in `data`. Raises ProtocolError."""
    if len(data) > MAX_FRAME_BYTES:
        raise ProtocolError(f"frame of {len(data)} bytes, more than {MAX_FRAME_BYTES}")
    try:
        content = msgpack.unpackb(
            data,
            use_list=False,
            raw=False,
            max_str_len=MAX_TEXT_BYTES,
            max_array_len=MAX_LOSSES,
            # no message has a map, bytes or an extension; an empty map would cost 64 bytes for one
            max_map_len=0,
            max_bin_len=0,
            max_ext_len=0,
            object_pairs_hook=_refuse_map,
        )
    except Exception as error:  # msgpack raises a dozen types; all mean the same
        raise ProtocolError(f"frame is not msgpack: {type(error).__name__}") from None
    if not isinstance(content, tuple) or not content or type(content[0]) is not int:
        raise ProtocolError("frame is not a list that starts with the number of a message")
    if not 0 <= content[0] < len(_KINDS):
        raise ProtocolError(f"unknown message number {content[0]}")
    kind, values = _KINDS[content[0]], content[1:]
    _, names, checks = _FORMS[kind]
    if len(values) != len(names):
        raise ProtocolError(f"{kind.__name__} has {len(names)} fields, the frame {len(values)}")
    for name, check, value in zip(names, checks, values, strict=True):
        if not check(value):
            raise ProtocolError(f"{kind.__name__}.{name} is not {kind.__annotations__[name]}")
    message: Message = kind(*values)
    return message


def _shortened(text: str) -> str:
    """The text, or its two ends where it is longer than a report may be."""
    encoded, half = text.encode(), MAX_TEXT_BYTES // 2 - 10
    if len(encoded) <= MAX_TEXT_BYTES:
        return text
    return f"{encoded[:half].decode(errors='ignore')} [...] {encoded[-half:].decode(errors='ignore')}"


def _refuse_map(pairs: object) -> NoReturn:
    raise ValueError("a map")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_INT


def _is_float(value: object) -> bool:
    return type(value) is float


_CHECKS: dict[Any, Any] = {
    int: _is_count,
    float: _is_float,
    str: lambda value: type(value) is str,
    Floats: lambda value: type(value) is tuple and all(map(_is_float, value)),
}

# Number on the wire, names of the fields and the check of each, looked up once: a message is encoded in 2 us
# and decoded in 3, which dataclasses.astuple and fields made 9 and 5.
_FORMS: dict[type[Any], tuple[int, tuple[str, ...], tuple[Callable[[object], bool], ...]]] = {
    kind: (
        number,
        tuple(field.name for field in fields(kind)),
        tuple(_CHECKS[field.type] for field in fields(kind)),
    )
    for number, kind in enumerate(_KINDS)
}
