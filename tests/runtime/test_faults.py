"""The hook that makes faults exact. Faults that end a process are tried in a process of their own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from feste_dp.errors import UsageError
from feste_dp.runtime.faults import COORDINATOR, Fault, Faults, InjectedFaultError, parse_faults

ENDINGS = {"kill": -signal.SIGKILL, "segv": -signal.SIGSEGV, "exit": 3}


def test_the_documented_forms_are_read():
    assert parse_faults("worker1:step3:reduce:kill,any:step*:shard2:nan:always") == (
        Fault("worker1", 3, "reduce", "kill", False),
        Fault("any", None, "shard2", "nan", True),
    )
    assert parse_faults("coordinator:step5:save:slow=0.5") == (
        Fault(COORDINATOR, 5, "save", "slow=0.5", False),
    )
    assert parse_faults("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "worker1",
        "worker1:step3:reduce",
        "worker1:step3:dance:kill",
        "worker:step3:reduce:kill",
        "coordinator:step3:wait:kill",
        "worker1:3:reduce:kill",
        "worker1:step3:reduce:slow",
    ],
)
def test_any_other_form_is_refused_by_name(text):
    with pytest.raises(UsageError, match="WHO:STEP:PLACE:ACTION"):
        parse_faults(text)


def test_a_fault_happens_at_its_worker_step_and_place_only():
    def faults(who):
        return Faults(parse_faults("worker1:step3:reduce:nan"), who)

    assert faults("worker1").at("reduce", 3)
    assert not faults("worker0").at("reduce", 3)
    assert not faults("worker1").at("reduce", 2)
    assert not faults("worker1").at("compute", 3)
    assert not faults(COORDINATOR).at("reduce", 3)


def test_a_fault_happens_once_and_in_the_first_life_of_a_worker():
    once = parse_faults("worker1:step*:compute:nan")
    first = Faults(once, "worker1")
    assert first.at("compute", 1)
    assert not first.at("compute", 1) and not first.at("compute", 2)
    assert not first
    assert not Faults(once, "worker1", life=1).at("compute", 1)


def test_always_means_every_time_in_every_life():
    faults = Faults(parse_faults("any:step2:shard5:nan:always"), "worker7", life=3)
    assert faults.at("shard5", 2) and faults.at("shard5", 2)


def test_raise_raises_and_slow_waits():
    with pytest.raises(InjectedFaultError, match="reduce of step 4"):
        Faults(parse_faults("worker0:step4:reduce:raise"), "worker0").at("reduce", 4)
    started = time.monotonic()
    Faults(parse_faults("worker0:step4:reduce:slow=0.05"), "worker0").at("reduce", 4)
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize(("action", "status"), ENDINGS.items())
def test_a_process_ends_as_asked(action, status):
    program = (
        "from feste_dp.runtime.faults import Faults, parse_faults\n"
        f"Faults(parse_faults('worker0:step1:compute:{action}'), 'worker0').at('compute', 1)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == status


def test_stop_stops_the_process_until_it_is_continued():
    program = (
        "from feste_dp.runtime.faults import Faults, parse_faults\n"
        "Faults(parse_faults('worker0:step1:compute:stop'), 'worker0').at('compute', 1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
