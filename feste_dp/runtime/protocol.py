"""What may be said when, between the coordinator and one worker: one table, pure, with no socket.

Any other pair of phase and message is a ProtocolError that names both.
"""

from enum import Enum

from feste_dp.runtime import messages as m
from feste_dp.runtime.messages import Message, ProtocolError


class Phase(Enum):
    """What one worker is doing, as both sides know it."""

    STARTING = "starting"
    IDLE = "idle"
    COMPUTE = "compute"
    REDUCE = "reduce"
    EVALUATE = "evaluate"
    FAILED = "failed"
    STOPPED = "stopped"


_ORDERS: dict[type[Message], Phase] = {
    m.Compute: Phase.COMPUTE,
    m.Reduce: Phase.REDUCE,
    m.Evaluate: Phase.EVALUATE,
    m.Stop: Phase.STOPPED,
}
_WORKING = (Phase.IDLE, Phase.COMPUTE, Phase.REDUCE, Phase.EVALUATE)

TRANSITIONS: dict[tuple[Phase, type[Message]], Phase] = {
    (Phase.STARTING, m.Ready): Phase.IDLE,
    (Phase.STARTING, m.Failed): Phase.FAILED,
    (Phase.STARTING, m.Stop): Phase.STOPPED,
    # an order replaces the one before; a phase may be ordered again for what another worker left undone
    **{(phase, order): after for phase in _WORKING for order, after in _ORDERS.items()},
    # reports do not end a phase: the ledger knows when all its work is done
    (Phase.COMPUTE, m.ShardsDone): Phase.COMPUTE,
    (Phase.REDUCE, m.StripeDone): Phase.REDUCE,
    (Phase.EVALUATE, m.UnitsDone): Phase.EVALUATE,
    **{(phase, m.Failed): Phase.FAILED for phase in _WORKING},
}


def next_phase(phase: Phase, message: Message) -> Phase:
    """The phase after `message`. Raises ProtocolError."""
    try:
        return TRANSITIONS[phase, type(message)]
    except KeyError:
        raise ProtocolError(f"{type(message).__name__} in phase {phase.value}") from None
