"""Early stopping, replayed from lists of losses."""

import json
import math
from dataclasses import asdict

from feste_dp.train.early_stop import EarlyStop


def replay(state: EarlyStop, losses: list[float]) -> tuple[EarlyStop, list[bool], list[bool]]:
    bests, stops = [], []
    for step, loss in enumerate(losses, 1):
        state, is_best, should_stop = state.update(step, loss)
        bests.append(is_best)
        stops.append(should_stop)
    return state, bests, stops


def test_the_first_finite_loss_is_the_best() -> None:
    state, is_best, should_stop = EarlyStop(patience=2).update(50, 9.0)
    assert (is_best, should_stop) == (True, False)
    assert (state.best_loss, state.best_step, state.evals_since_best) == (9.0, 50, 0)


def test_patience_counts_evaluations_without_improvement() -> None:
    _, bests, stops = replay(EarlyStop(patience=2), [3.0, 2.0, 2.5, 1.9, 2.1, 2.2])
    assert bests == [True, True, False, True, False, False]
    assert stops == [False, False, False, False, False, True]


def test_an_equal_loss_is_no_improvement() -> None:
    _, bests, stops = replay(EarlyStop(patience=1), [2.0, 2.0])
    assert bests == [True, False]
    assert stops == [False, True]


def test_patience_zero_never_stops() -> None:
    _, _, stops = replay(EarlyStop(patience=0), [1.0, *[2.0] * 100])
    assert not any(stops)


def test_nan_and_infinity_are_never_best_and_use_up_patience() -> None:
    state, bests, stops = replay(EarlyStop(patience=3), [math.nan, math.inf, -math.inf])
    assert bests == [False] * 3
    assert stops == [False, False, True]
    assert state.best_loss is None
    assert replay(state, [5.0])[1] == [True]


def test_a_state_is_not_changed_by_an_update() -> None:
    state = EarlyStop(patience=1)
    state.update(1, 2.0)
    assert state == EarlyStop(patience=1)


def test_a_state_restored_from_json_goes_on_as_if_never_stored() -> None:
    losses = [3.0, 2.0, 2.5, math.nan, 1.9, 2.1, 2.2]
    for cut in range(len(losses)):
        state = EarlyStop(patience=2)
        for step, loss in enumerate(losses[:cut], 1):
            state, *_ = state.update(step, loss)
        restored = EarlyStop(**json.loads(json.dumps(asdict(state), allow_nan=False)))
        assert restored == state
        assert restored.update(99, 2.05) == state.update(99, 2.05)
