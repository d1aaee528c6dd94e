import io

import pytest

from feste_dp.run.screen import Progress
from feste_dp.runtime.gathering import Notice
from feste_dp.train.notices import teller
from feste_dp.train.stragglers import Stragglers


@pytest.mark.parametrize("kind", ["lost", "slow", "back", "dropped"])
def test_the_next_worker_with_the_number_of_one_that_is_lost_begins_with_a_good_name(kind):
    stragglers = Stragglers(steps_to_tell=1, seconds_to_tell=0)
    assert stragglers.add([0.2, 0.6, 0.2], [1, 1, 1])
    tell = teller(Progress(io.StringIO(), io.StringIO()), stragglers=stragglers)
    tell(Notice(kind, 0, "worker 0"))
    assert stragglers.named == {1}
    tell(Notice(kind, 1, "worker 1"))
    assert stragglers.named == (set() if kind == "lost" else {1})
