"""What coordinator and workers say to each other: frozen dataclasses, and their form on the wire.

A frame is the run's random token and a msgpack list [number of the message, its fields ...]. Knows nothing of
sockets. A frame that is too large, malformed or of the wrong type is a ProtocolError, whoever sent it, and
costs at most a few times its size in memory, whatever it announces.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NoReturn, TypeAlias

import msgpack

MAX_FRAME_BYTES = 1 << 24
"""An order: 2**20 offsets, the largest batch that there is, of 9 bytes each."""
MAX_REPORT_BYTES = 1 << 18
"""A report: the two texts of Failed, each shortened to MAX_TEXT characters."""
MAX_TEXT = 16_000
_MAX_TEXT_BYTES = 4 * MAX_TEXT
_MAX_INTS = 1 << 20
_MAX_FIELDS = 15
_MAX_INT = 2**63 - 1


class ProtocolError(Exception):
    """A frame or a message that the protocol does not allow here; names what came and when."""


Ints: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker: started, arena mapped, data open."""

    pid: int


@dataclass(frozen=True, slots=True)
class Compute:
    """Coordinator: compute these shards of this step, each into its gradient slot.

    offsets holds the first token of each sequence, shard after shard, in the order of `shards`.
    """

    step: int
    shards: Ints
    offsets: Ints


@dataclass(frozen=True, slots=True)
class ShardDone:
    """Worker: a shard's slot is complete. loss_sum is over its positions."""

    step: int
    shard: int
    loss_sum: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Reduce:
    """Coordinator: sum chunks first .. last - 1 over all slots, overwriting grad and norms there."""

    step: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class StripeDone:
    """Worker: these chunks are summed."""

    step: int
    first: int
    last: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Coordinator: compute the loss of these units of the validation set. offsets as in Compute."""

    step: int
    units: Ints
    offsets: Ints


@dataclass(frozen=True, slots=True)
class UnitDone:
    """Worker: a unit's loss, summed over its positions."""

    step: int
    unit: int
    loss_sum: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Worker: an exception ended this worker. reason is one line, trace all of it, for the log."""

    reason: str
    trace: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Coordinator: exit."""


RESULTS = (ShardDone, StripeDone, UnitDone)
"""What a worker says of its work."""
REPORTS = (Ready, *RESULTS, Failed)
"""What a worker may say."""
ORDERS = (Compute, Reduce, Evaluate, Stop)
"""What the coordinator may say."""

Message: TypeAlias = Ready | Compute | ShardDone | Reduce | StripeDone | Evaluate | UnitDone | Failed | Stop

_KINDS: tuple[type[Any], ...] = (
    Ready,
    Compute,
    ShardDone,
    Reduce,
    StripeDone,
    Evaluate,
    UnitDone,
    Failed,
    Stop,
)


def encode(message: Message) -> bytes:
    number, names, _ = _FORMS[type(message)]
    if isinstance(message, Failed):
        message = Failed(_shortened(message.reason), _shortened(message.trace))
    packed: bytes = msgpack.packb([number, *[getattr(message, name) for name in names]])
    return packed


def decode(data: bytes) -> Message:
    """The message in `data`. Raises ProtocolError."""
    if len(data) > MAX_FRAME_BYTES:
        raise ProtocolError(f"frame of {len(data)} bytes, more than {MAX_FRAME_BYTES}")
    has_texts = data[1:2] == _FAILED_NUMBER  # the only one, and it has no lists
    try:
        content = msgpack.unpackb(
            data,
            use_list=False,
            raw=False,
            max_str_len=_MAX_TEXT_BYTES if has_texts else 0,
            max_array_len=_MAX_FIELDS if has_texts else _MAX_INTS,
            # no message has a map, bytes or an extension; an empty map would cost 64 bytes for one
            max_map_len=0,
            max_bin_len=0,
            max_ext_len=0,
            object_pairs_hook=_refuse_map,
            list_hook=_ArrayCount() if len(data) > _SMALL else None,
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
    half = MAX_TEXT // 2 - 10
    return text if len(text) <= MAX_TEXT else f"{text[:half]} [...] {text[-half:]}"


def _refuse_map(pairs: object) -> NoReturn:
    raise ValueError("a map")


class _ArrayCount:
    """Refuses the fourth array of a frame: no message has more than two within its own."""

    def __init__(self) -> None:
        self._left = 3

    def __call__(self, items: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many arrays")
        return items


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_INT


_CHECKS: dict[Any, Any] = {
    int: _is_count,
    float: lambda value: type(value) is float,
    str: lambda value: type(value) is str,
    Ints: lambda value: type(value) is tuple and all(map(_is_count, value)),
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

_FAILED_NUMBER = bytes([_KINDS.index(Failed)])
_SMALL = 1 << 16  # bytes up to which a frame full of arrays costs 3 MiB: not worth counting them
