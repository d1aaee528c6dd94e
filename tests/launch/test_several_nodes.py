"""The recipe for several machines restarts what ended too early, and nothing else; a script plays mpirun."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nodes.network import why_there_are_none

LAUNCH = Path(__file__).parents[2] / "launch"

MPIRUN = """\
#!/usr/bin/env bash
if [ "$1" = --version ]; then echo "${VERSION:-mpirun (Open MPI) 5.0.11}"; exit; fi
echo "mpirun $*" >>calls
attempt=$(wc -l <calls)
checkpoint() { mkdir -p run/checkpoints; ln -sfn "step-$1" run/checkpoints/latest; }
"""
"""And then what the test wants: `attempt` counts from 1, `checkpoint 7` writes one."""

Play = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """play("what mpirun does", TRIES="2") is the recipe with two hosts, started."""
    (tmp_path / "hosts").write_text("# ours\nalpha\n\nbeta slots=1\n")
    programs = tmp_path / "programs"
    programs.mkdir()

    def start(does: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        for name, text in ("mpirun", MPIRUN + does), ("feste-dp", "#!/bin/sh\n"):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        own = {name: value for name, value in os.environ.items() if not name.startswith("FESTE_DP_")}
        return subprocess.Popen(
            [LAUNCH / "several-nodes.sh", "hosts", "tiny.yaml", "run", *arguments],
            env=own | {"PATH": path, "PAUSE": "0"} | environ, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return start


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=60)
    return process.returncode, out


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def test_every_host_gets_one_rank_and_the_settings_of_feste_dp(play: Play, tmp_path: Path) -> None:
    done = ended(play("mkdir run; touch run/finished", "--workers", "3", FESTE_DP_CACHE="/c"))
    assert done == (0, "")
    assert calls(tmp_path) == [
        "mpirun -n 2 --hostfile hosts --map-by ppr:1:node --bind-to none -x FESTE_DP_CACHE "
        f"{tmp_path}/programs/feste-dp launch --resume auto --config tiny.yaml --out run --workers 3"
    ]


def test_mpich_is_told_in_its_own_words(play: Play, tmp_path: Path) -> None:
    ended(play("mkdir run; touch run/finished", VERSION="HYDRA build details:"))
    assert calls(tmp_path) == [
        f"mpirun -n 2 -f hosts -ppn 1 {tmp_path}/programs/feste-dp "
        "launch --resume auto --config tiny.yaml --out run"
    ]


def test_a_job_that_ends_before_the_run_does_is_started_again_whatever_it_returns(
    play: Play, tmp_path: Path
) -> None:
    statuses = "checkpoint $attempt; set -- 0 137 1 0; if [ $attempt = 4 ]; then touch run/finished; fi\n"
    status, out = ended(play(statuses + 'exit "${!attempt}"', TRIES="2"))
    assert status == 0 and len(calls(tmp_path)) == 4
    assert [line.split(" ", 1)[1] for line in out.splitlines()] == [
        f"the job ended with status {status} before the run did: starting again in 0 s"
        for status in (0, 137, 1)
    ]


def test_it_gives_up_where_no_new_checkpoint_comes(play: Play, tmp_path: Path) -> None:
    status, out = ended(play("if [ $attempt -lt 3 ]; then checkpoint $attempt; fi; exit 1", TRIES="3"))
    assert status == 1 and len(calls(tmp_path)) == 4  # the second checkpoint's start, and two more
    assert out.splitlines()[-1].endswith("given up after 4 starts")


def test_a_launcher_that_outlives_the_run_is_killed(play: Play, tmp_path: Path) -> None:
    second = "mkdir -p run; [ $attempt = 1 ] || { touch run/finished; exit; }\n"
    first = "while :; do flock run/lock sleep 2; sleep 4; done\n"
    status, out = ended(play(second + first, GRACE="1"))
    assert status == 0 and "status 137 before the run did" in out and len(calls(tmp_path)) == 2


def test_restarts_are_limited_in_all(play: Play, tmp_path: Path) -> None:
    status, _ = ended(play("checkpoint $attempt", RESTARTS="2"))
    assert status == 1 and len(calls(tmp_path)) == 3


def test_bad_input_is_not_tried_again(play: Play, tmp_path: Path) -> None:
    assert ended(play("exit 2"))[0] == 2
    assert len(calls(tmp_path)) == 1


@pytest.mark.parametrize(
    "version, signum, status, passed",
    [
        ("mpirun (Open MPI) 5.0.11", signal.SIGTERM, 143, "USR2"),
        ("mpirun (Open MPI) 5.0.11", signal.SIGINT, 130, "USR2"),
        ("HYDRA build details:", signal.SIGTERM, 143, "TERM"),
    ],
)
def test_told_to_stop_it_lets_the_job_save_and_ends(
    play: Play, tmp_path: Path, version: str, signum: int, status: int, passed: str
) -> None:
    does = 'for s in INT TERM USR2; do trap "sleep 0.2; echo $s >told; exit 1" $s; done\n'
    process = play(does + "touch ready; while :; do sleep 0.05; done", VERSION=version)
    wait_for(tmp_path / "ready")
    process.send_signal(signum)
    assert ended(process)[0] == status
    assert (tmp_path / "told").read_text() == f"{passed}\n" and len(calls(tmp_path)) == 1


def test_told_to_stop_in_a_pause_it_ends_at_once(play: Play, tmp_path: Path) -> None:
    process = play("exit 1", PAUSE="1000")
    assert process.stdout is not None and "starting again in 1000 s" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143


@pytest.mark.parametrize("hosts, what", [("", "names no machine"), ("# none\n", "names no machine")])
def test_a_file_without_hosts_is_refused(play: Play, tmp_path: Path, hosts: str, what: str) -> None:
    (tmp_path / "hosts").write_text(hosts)
    status, out = ended(play("exit 0"))
    assert status == 2 and what in out and calls(tmp_path) == []


@pytest.fixture
def several(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """several(2, "hostname") runs it on the first of two machines."""
    if reason := why_there_are_none():
        pytest.skip(reason)
    return lambda count, *command: subprocess.Popen(
        [LAUNCH / "several-machines.sh", str(count), *command], cwd=tmp_path,
        env=dict(os.environ) | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_several_machines_on_one_are_apart_and_nothing_is_left_of_them(
    several: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    marker = f"sleep 98{os.getpid()}"
    script = f"hostname; getent hosts node1; ls -A /dev/shm; setsid {marker} & exit 7"
    status, out = ended(several(2, "sh", "-c", script))
    assert (status, out) == (7, "node0\n10.77.0.2       node1\n")
    assert list(tmp_path.iterdir()) == []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert marker.replace(" ", "\0") not in process.read_text()
        except OSError:
            continue


def test_a_signal_reaches_what_runs_on_several_machines(
    several: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    script = "trap 'echo told; exit 3' INT; touch ready; while :; do sleep 0.05; done"
    process = several(1, "bash", "-c", script)
    wait_for(tmp_path / "ready")
    process.send_signal(signal.SIGINT)
    assert ended(process) == (3, "told\n")
