"""feste-dp plan through the real command line, and its memory beside a real run's."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Feste, Place

ROOT = Path(__file__).parents[2]


def test_a_plan_prints_one_json_object_that_adds_up(place: Place, feste: Feste) -> None:
    result = feste("plan", "--config", place.config, "--workers", "1", "--json")
    assert result.status == 0, result.err
    plan = json.loads(result.out)
    assert plan["fits"] and plan["workers"] == 1 and plan["problems"] == []
    assert sum(plan["memory_by_kind"].values()) == plan["memory_bytes"]
    assert sum(group["parameters"] for group in plan["groups"]) == plan["parameters"]
    step = plan["step"]
    total = sum(step[phase] for phase in ("compute", "reduce", "update", "control"))
    assert plan["tokens_per_second"] == pytest.approx(plan["tokens_per_step"] / total)
    assert plan["run_seconds"] >= plan["steps"] * total


def test_a_plan_of_nodes_takes_the_network_as_it_is_said_to_be(place: Place, feste: Feste) -> None:
    given = [
        "plan",
        "--config",
        place.config,
        "--json",
        "--nodes",
        "2",
        "--bandwidth",
        "1",
        "--latency",
        "300",
    ]
    plan = json.loads(feste(*given).out)
    assert (plan["nodes"], plan["node_shards"]) == (2, 2)
    assert plan["links"] == {"latency_s": pytest.approx(3e-4), "bytes_per_second": 1.25e8}
    assert plan["step"]["exchange"] == pytest.approx(3e-4 + 4 * plan["parameters"] / 1.25e8)


def test_where_the_network_becomes_the_limit_is_printed_without_a_measurement(feste: Feste) -> None:
    result = feste("plan", "--network", "--batch", "64", "--cores", "8")
    assert result.status == 0 and "65,536 tokens a step" in result.out and "gpt2_1558m" in result.out
    one = json.loads(feste("plan", "--network", "--config", "gpt2_124m", "--bandwidth", "40", "--json").out)
    assert [each["gbit_per_second"] for each in one] == [40.0]


def test_a_plan_of_nothing_is_one_line(feste: Feste) -> None:
    result = feste("plan")
    assert result.status == 2 and result.err.startswith("error: --config: missing")


def test_a_plan_creates_nothing_and_prints_a_table(
    place: Place, feste: Feste, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = feste("plan", "--config", place.config)
    assert result.status == 0 and result.out.rstrip().endswith("it fits")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_does_not_fit_is_exit_status_2_with_the_setting_to_change(
    place: Place, feste: Feste
) -> None:
    huge = ["--set", "model.n_layer=64", "--set", "model.n_embd=16384", "--set", "model.n_head=64"]
    result = feste("plan", "--config", place.config, *huge)
    assert result.status == 2
    assert "MISSING      memory: " in result.out and "model.n_layer" in result.out
    assert "not measured" in result.out
    as_json = feste("plan", "--config", place.config, *huge, "--json")
    assert as_json.status == 2 and json.loads(as_json.out)["fits"] is False


@pytest.mark.parametrize(
    ("name", "workers"), [("tiny", 2), ("medium", 2), pytest.param("gpt2_87m", 2, marks=pytest.mark.long)]
)
def test_the_planned_memory_is_within_10_percent_of_a_real_run_s(
    feste: Feste, name: str, workers: int
) -> None:
    """As bench counts it: libraries in every process, nothing saved and no samples drawn."""
    given = ["--config", ROOT / "configs" / f"{name}.yaml", "--workers", str(workers), "--json"]
    plan = json.loads(feste("plan", *given).out)
    bench = subprocess.run(
        [*COMMAND, "bench", *map(str, given), "--steps", "2", "--warmup", "1"],
        capture_output=True,
        check=True,
    )
    measured = json.loads(bench.stdout)["memory"]["total_bytes"]
    memory = plan["memory"]
    counted = plan["memory_bytes"] + workers * memory["libraries"] - memory["staging"] - memory["sampling"]
    assert counted == pytest.approx(measured, rel=0.10)
