"""feste-dp bench through the real command line."""

import json
import subprocess
from pathlib import Path

import pytest

from feste_dp.bench import kernel_timing
from feste_dp.run.step_times import PHASES
from tests.cli.conftest import COMMAND, Feste, Place


def test_bench_prints_one_json_object_whose_phases_add_up_and_writes_nothing(
    place: Place, tmp_path: Path
) -> None:
    command = [*COMMAND, "bench", "--config", str(place.config), "--workers", "2", "--steps", "3", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "timing 3 steps after 3 to warm up" in done.stderr
    assert list(tmp_path.iterdir()) == []
    report = json.loads(done.stdout)
    assert (report["workers"], report["steps"], report["warmup_steps"], report["shards"]) == (2, 3, 3, 4)
    assert report["tokens_per_step"] == 8 * 16
    assert len(report["step_ms_each"]) == 3 and min(report["step_ms_each"]) == report["step_ms"]["lowest"]
    assert set(report["phases_ms"]) == set(PHASES)
    assert sum(report["phases_ms"].values()) == pytest.approx(report["phases_step_ms"])
    assert all(milliseconds >= 0 for milliseconds in report["phases_ms"].values())
    for key in ("gflops_per_second_per_core", "peak_gflops_per_second_per_core", "memory_gb_per_second"):
        assert report[key] > 0
    assert 0 < report["share_of_peak"] < 1
    for phase in ("reduce", "update"):
        assert report[phase]["bytes"] > 0 and report[phase]["gb_per_second"] > 0
    memory = report["memory"]
    assert len(memory["worker_bytes"]) == 2
    parts = [memory["arena_bytes"], memory["coordinator_bytes"], *memory["worker_bytes"]]
    assert memory["total_bytes"] == sum(parts) and min(parts) > 0
    assert report["last_loss"] < report["first_loss"] < 7


def test_bench_takes_the_steps_of_a_real_run(place: Place, feste: Feste) -> None:
    result = feste("bench", "--config", place.config, "--steps", "2", "--warmup", "0", "--json")
    assert result.status == 0
    report = json.loads(result.out)
    rows = (place.run / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train_loss")
    losses = [float(row.split(",")[column]) for row in rows[1:3]]
    assert [report["first_loss"], report["last_loss"]] == pytest.approx(losses, abs=1e-6)


def test_bench_prints_a_table(place: Place, feste: Feste) -> None:
    result = feste("bench", "--config", place.config, "--workers", "1", "--steps", "1", "--warmup", "0")
    assert result.status == 0
    for words in (*PHASES, "tokens/s", "GF/s per core", "FLOPs a token", "peak memory", "counted:"):
        assert words in result.out


def test_bench_of_kernels_asks_a_process_for_them(
    place: Place, feste: Feste, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = {
        "cpu": "a CPU",
        "precision": "fp32",
        "cores": 2,
        "micro_batch": 1,
        "block_size": 16,
        "peak_gflops_per_second_one_core": 2.0,
        "peak_gflops_per_second_per_core_all_cores": 1.0,
        "memory_gb_per_second_one_core": 4.0,
        "memory_gb_per_second_all_cores": 5.0,
        "kernels": [
            {
                "name": "adamw",
                "microseconds": 1.5,
                "calls": 1,
                "gflops_per_second": 1.0,
                "gb_per_second": 2.0,
                "limit": "memory",
                "limit_microseconds": 0.75,
                "share_of_limit": 0.5,
            }
        ],
    }

    class Answers(subprocess.Popen[str]):
        def __init__(self, command: list[str], **options: object) -> None:
            program = f"import sys; assert '\"n_embd\":16' in sys.stdin.read(); print({json.dumps(report)!r})"
            super().__init__([command[0], "-c", program], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(kernel_timing.subprocess, "Popen", Answers)
    result = feste("bench", "--kernels", "--config", place.config, "--json")
    assert (result.status, json.loads(result.out)) == (0, report)
    assert "50.0%" in feste("bench", "--kernels", "--config", place.config).out
