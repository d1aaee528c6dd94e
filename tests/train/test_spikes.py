"""Loss spikes: what is called one, and that it depends on the last losses alone."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from feste_dp.train.spikes import MIN_LOSSES, WINDOW, SpikeWatch

DEGENERATE = [0.0, -0.0, 4.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -1.0]


def lines_of(losses: list[float], first_step: int = 1, watch: SpikeWatch | None = None) -> list[str]:
    watch = watch or SpikeWatch()
    return [line for step, loss in enumerate(losses, first_step) if (line := watch.add(step, loss))]


def noisy(count: int, level: float = 4.0, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(level, 0.1) for _ in range(count)]


def test_a_jump_is_one_line_with_its_step_and_height() -> None:
    losses = [*[4.0, 4.1, 3.9] * 20, 7.0, 4.0]
    assert lines_of(losses) == [
        "loss spike at step 61: 7.0000 is 3.0000 above the median of the last 50 steps, 4.0000, or 20 times "
        "their spread"
    ]


def test_a_run_that_stays_up_is_told_once_and_is_the_new_level_after_a_while() -> None:
    (line,) = lines_of([*noisy(60), *noisy(100, level=8.0, seed=2)])
    assert line.startswith("loss spike at step 61: ")


def test_a_second_jump_after_a_normal_step_is_a_line_of_its_own() -> None:
    assert len(lines_of([*noisy(60), 9.0, 4.0, 9.0])) == 2


def test_noise_and_the_fall_of_a_young_run_are_no_spikes() -> None:
    falling = [3.0 + 4.0 * math.exp(-step / 30) for step in range(300)]
    noise = noisy(300, level=0.0, seed=3)
    assert lines_of([a + b for a, b in zip(falling, noise, strict=True)]) == []
    assert lines_of(noisy(5000, seed=4)) == []


def test_equal_losses_have_no_spread_and_a_small_rise_is_no_spike() -> None:
    assert lines_of([*[4.0] * 60, 4.2, 4.0]) == []
    assert len(lines_of([*[4.0] * 60, 4.3, 4.0])) == 1


def test_losses_of_exactly_zero_are_no_fault_and_what_is_next_to_nothing_is_no_spike() -> None:
    assert lines_of([*[0.0] * 60, 1e-7, 0.0, -0.0, 5e-324]) == []
    (line,) = lines_of([*[0.0] * 60, 0.5])
    assert line.startswith("loss spike at step 61: 0.5000 is 0.5000 above the median")


@given(st.lists(st.sampled_from(DEGENERATE) | st.floats(), min_size=1, max_size=120))
def test_no_series_of_numbers_is_a_fault(losses: list[float]) -> None:
    lines_of(losses)


def test_nothing_is_called_a_spike_before_there_are_losses_to_compare_with() -> None:
    assert lines_of([*noisy(MIN_LOSSES - 1), 90.0]) == []
    assert len(lines_of([*noisy(MIN_LOSSES), 90.0])) == 1


def test_a_nan_or_infinity_neither_is_a_spike_nor_moves_the_median() -> None:
    with_holes = [*noisy(60), math.nan, math.inf, 9.0]
    assert [line.split(":", 1)[1] for line in lines_of(with_holes)] == [
        line.split(":", 1)[1] for line in lines_of([*noisy(60), 9.0])
    ]


@given(
    st.lists(st.sampled_from([3.9, 4.0, 4.1, 9.0, math.nan]), min_size=1, max_size=200),
    st.integers(0, 200),
)
def test_a_watch_that_is_fed_the_steps_before_goes_on_as_if_never_interrupted(
    losses: list[float], stop: int
) -> None:
    straight = lines_of(losses)
    stop = min(stop, len(losses))
    finite = [loss for loss in losses[:stop] if math.isfinite(loss)]
    resumed = SpikeWatch()
    for loss in finite[-(WINDOW + 1) :]:
        resumed.add(0, loss)
    before = len(lines_of(losses[:stop]))
    assert lines_of(losses[stop:], stop + 1, resumed) == straight[before:]
