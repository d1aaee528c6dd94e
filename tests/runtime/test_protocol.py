import itertools

import pytest

from feste_dp.runtime import messages as m
from feste_dp.runtime.messages import ProtocolError
from feste_dp.runtime.protocol import TRANSITIONS, Phase, next_phase

EXAMPLES = {
    "Ready": m.Ready(1, "c0de", "/here"),
    "Compute": m.Compute(1, 0, 1, 1),
    "ShardsDone": m.ShardsDone(1, 0, (1.0,), 0.5),
    "Reduce": m.Reduce(1, 0, 1, 1),
    "StripeDone": m.StripeDone(1, 0, 1, 0.5),
    "Evaluate": m.Evaluate(1, 0, 1, 0, 5, 1),
    "UnitsDone": m.UnitsDone(1, 0, (1.0,), 0.5),
    "Failed": m.Failed("ValueError", "Traceback ..."),
    "Stop": m.Stop(),
}

# Written out once more, so that a change of the table is a change of this test.
ORDERS = {"Compute": "compute", "Reduce": "reduce", "Evaluate": "evaluate", "Stop": "stopped"}
ALLOWED = {
    "starting": {"Ready": "idle", "Failed": "failed", "Stop": "stopped"},
    "idle": ORDERS | {"Failed": "failed"},
    "compute": ORDERS | {"Failed": "failed", "ShardsDone": "compute"},
    "reduce": ORDERS | {"Failed": "failed", "StripeDone": "reduce"},
    "evaluate": ORDERS | {"Failed": "failed", "UnitsDone": "evaluate"},
    "failed": {},
    "stopped": {},
}

EVERY_PAIR = list(itertools.product(ALLOWED, EXAMPLES))


def test_the_examples_are_all_phases_and_all_messages():
    assert {phase.value for phase in Phase} == set(ALLOWED)
    assert {kind.__name__ for _, kind in TRANSITIONS} == set(EXAMPLES)
    assert len(TRANSITIONS) == sum(map(len, ALLOWED.values()))


@pytest.mark.parametrize(("phase", "name"), [(p, n) for p, n in EVERY_PAIR if n in ALLOWED[p]])
def test_an_allowed_message_leads_to_its_phase(phase, name):
    assert next_phase(Phase(phase), EXAMPLES[name]) is Phase(ALLOWED[phase][name])


@pytest.mark.parametrize(("phase", "name"), [(p, n) for p, n in EVERY_PAIR if n not in ALLOWED[p]])
def test_any_other_message_is_an_error_that_names_phase_and_message(phase, name):
    with pytest.raises(ProtocolError) as caught:
        next_phase(Phase(phase), EXAMPLES[name])
    assert str(caught.value) == f"{name} in phase {phase}"
