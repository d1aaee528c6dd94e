"""Runs as the trainer leaves them, written without training, and a scaling study."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from feste_dp.config.dumping import dump_config
from feste_dp.config.schema import Config
from feste_dp.data.tokenizer import train_tokenizer
from feste_dp.run.creation import create_run_directory_at
from feste_dp.run.events import Event, encode_event
from feste_dp.run.metrics import MetricsRow, MetricsWriter

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOSTILE = "HAMLET.\n</pre><script>alert(1)</script><img src=x onerror=alert(2)> \u202egnp.\x1b[31m &amp; \"'"
MACHINE = {
    "cpu": "A CPU <3 GHz>", "cpus": 4, "usable_cpus": 2, "memory_bytes": 8 << 30,
    "versions": {"python": "3.11.7", "numba": "0.61"},
}  # fmt: skip
TOKENIZER = train_tokenizer(["to be or not to be, that is the question\n" * 20], 270).to_json()


def row(step: int, **changes: object) -> MetricsRow:
    figures = {
        "step": step,
        "elapsed_seconds": 0.01 * step,
        "learning_rate": 1e-3,
        "train_loss": 6.0 - step / 100,
        "grad_norm": 1.0 + step % 3,
        "tokens_per_second": 1000.0 + step % 7,
        "val_loss": 6.1 - step / 100 if step % 10 == 0 else None,
        "sample": f"HAMLET.\nsample of step {step}" if step % 20 == 0 else "",
    }
    return MetricsRow(**(figures | changes))  # type: ignore[arg-type]


def event(step: int, kind: str, text: str = "", **fields: object) -> Event:
    return Event(NOON + timedelta(seconds=step), step, kind, text, fields)


def times(step: int, *workers: float) -> Event:
    phases = {"compute": 2.0, "wait": 0.5, "reduce": 0.25, "update": 0.125, "control": 1.0}
    return event(step, "times", steps=10, step_ms=3.875, phases_ms=phases, worker_compute_ms=list(workers))


NODES = [
    {"name": f"node {number} ({host})", "cpu": "A CPU <3 GHz>", "usable_cpus": 8, "workers": 4, "shards": 4}
    for number, host in enumerate(("alpha", "<beta>"))
]


def history_of_nodes(last_step: int) -> list[Event]:
    """What a run on two nodes tells, the second the slower one."""
    phases = {"compute": 2.0, "wait": 0.5, "reduce": 0.25, "exchange": 0.75, "update": 0.125, "control": 1.0}
    told = [event(0, "start", "new run", workers=4, parameters=1234, machine=MACHINE, nodes=NODES)]
    for step in range(10, last_step + 1, 10):
        told.append(
            event(step, "times", steps=10, step_ms=4.625, phases_ms=phases,
                  worker_compute_ms=[2.0, 2.5], node_compute_ms=[2.5, 3.0])
        )  # fmt: skip
    return [*told, event(last_step, "finish", f"finished after step {last_step}")]


def history(last_step: int, end: str = "finish") -> list[Event]:
    """What a run with two workers tells, up to its end."""
    told = [event(0, "start", "new run, 2 workers", workers=2, parameters=1234, machine=MACHINE)]
    for step in range(10, last_step + 1, 10):
        told.append(times(step, 2.0, 2.5))
        told.append(event(step, "best", "best validation loss so far", val_loss=1.0))
        told.append(event(step, "save", f"saved step {step} in 0.01 s", seconds=0.01))
    return [*told, event(last_step, end, f"{end} after step {last_step}")] if end else told


def write_run(
    path: Path,
    rows: Sequence[MetricsRow] | None = None,
    events: Sequence[Event] | None = None,
    **settings: dict[str, object],
) -> Path:
    """A run directory; rows and events are what its files hold, settings change its config."""
    written = [row(step) for step in range(1, 41)] if rows is None else rows
    told = history(written[-1].step if written else 0) if events is None else events
    config = Config.model_validate({"train": {"steps": 40}, "sample": {"prompt": "HAMLET.\n"}} | settings)
    run = create_run_directory_at(path, config=dump_config(config), tokenizer=TOKENIZER)
    with MetricsWriter(run.metrics) as writer:
        for each in written:
            writer.append(each)
    run.events.write_text("".join(f"{encode_event(each)}\n" for each in told))
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """write_run in this test's folder."""

    def make(name: str = "run", *arguments: Sequence[object], **settings: object) -> Path:
        return write_run(tmp_path / name, *arguments, **settings)  # type: ignore[arg-type]

    return make


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": 0.9 * value, "high": 1.1 * value}


def study() -> dict[str, object]:
    """A study of 1, 2 and 4 workers, in the form of scaling.json."""
    counts = [
        {
            "workers": workers, "cores": min(workers, 2), "tokens_per_step": 512,
            "tokens_per_second": interval(1000.0 * rate), "tokens_per_second_each": [1000.0 * rate] * 2,
            "speedup": interval(rate), "efficiency": interval(rate / workers), "step_ms": 5.0 / rate,
            "phases_ms": {"compute": 3.0 / rate, "wait": 0.1, "reduce": 0.2, "update": 0.1, "control": 0.5},
            "gflops_per_second_per_core": 50.0, "peak_gflops_per_second_per_core": 100.0,
            "reduce": {"gb_per_second": 10.0, "share_of_triad": 0.5},
            "update": {"gb_per_second": 12.0, "share_of_triad": 0.6},
            "memory_bytes": 400 << 20, "loss_sha256": "00", "above_cores": workers > 2,
        }
        for workers, rate in ((1, 1.0), (2, 1.8), (4, 1.7))
    ]  # fmt: skip
    curve = [
        {"workers": n, "tokens_per_second": interval(1000.0 * n / (1 + 0.1 * (n - 1)))} for n in (1, 2, 4, 8)
    ]
    return {
        "format": 1, "kind": "strong", "created": "2026-01-31T12:00:00+00:00", "config_name": "tiny",
        "config": {}, "parameters": 169_728, "flops_per_token": 1e6, "flops_formula": "", "warmup_steps": 2,
        "steps": 20, "repeats": 2, "intervals": "95 %: Student's t",
        "machine": {
            "cpu": "A CPU", "usable_cpus": 2, "physical_cores": 2, "sockets": 1, "threads_per_core": 1,
            "numa_nodes": 1, "memory_bytes": 8 << 30, "cgroup_cpus": None, "cgroup_memory_bytes": None,
            "caches": [{"level": 1, "kind": "Data", "bytes": 32768, "shared_by": 1, "instances": 2}],
            "pin": "none", "pinned_cpus": [None, None], "load_before": 0.1, "busy_before": 0.0,
            "versions": {"python": "3.11"},
        },
        "counts": counts,
        "baselines": [
            {"name": "one process", "what": "no messages", "threads": 1, "tokens_per_second": interval(1100),
             "tokens_per_second_each": [1100.0], "memory_bytes": 1, "skipped": None},
            {"name": "PyTorch", "what": "one process", "threads": 2, "tokens_per_second": None,
             "tokens_per_second_each": [], "memory_bytes": None, "skipped": "PyTorch is not installed"},
        ],
        "fits": [{"law": "Amdahl", "formula": "X(N) = X1 N / (1 + s (N - 1))", "counts": [1, 2],
                  "parameters": {"serial_fraction": interval(0.1)}, "largest_residual": 0.01, "curve": curve,
                  "note": "beyond 2 workers the curve is extrapolated"}],
        "limit": {"cause": "control", "sentence": "At 4 workers the limit is control.", "rule": "by phase",
                  "at_workers": 4,
                  "lost": [{"cause": "control", "milliseconds": 1.0, "share_of_step": 0.2}]},
        "same_bits": {"agree": True, "sentence": "all runs gave the same losses, bit for bit"},
        "warnings": ["4 workers share 2 physical cores"],
    }  # fmt: skip


@pytest.fixture
def study_directory(tmp_path: Path) -> Path:
    path = tmp_path / "study"
    path.mkdir()
    (path / "scaling.json").write_text(json.dumps(study()))
    return path
