import os

from feste_dp.machine.cpus import pin_plan
from feste_dp.runtime.coordinator import Coordinator


def test_each_worker_runs_on_the_cpu_that_the_plan_gives_it_and_on_no_other(
    compiled, make_config, token_data
):
    allowed = sorted(os.sched_getaffinity(0))
    pin = allowed[-2:]
    with Coordinator(make_config(pin=pin), len(pin), token_data.directory, os.environ) as coordinator:
        coordinator.start()
        bound = [os.sched_getaffinity(pid) for pid in coordinator.worker_pids()]
    assert bound == [{cpu} for cpu in pin_plan(pin, len(pin))] == [{cpu} for cpu in pin]
    assert os.sched_getaffinity(0) == set(allowed)
