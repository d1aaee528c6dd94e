"""A run or study whose files say anything, before everybody who looks at it: report, pages, watch, generate.

One line may refuse it; nothing else may come of it, and nothing of it may reach the page of all runs.
"""

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from feste_dp.checkpoint.format import TensorRange
from feste_dp.checkpoint.listing import list_checkpoints
from feste_dp.checkpoint.saving import write_checkpoint
from feste_dp.config.schema import Config
from feste_dp.errors import UsageError
from feste_dp.model.parameters import layout, parameter_count
from feste_dp.report.dashboard import Dashboard
from feste_dp.report.page import page, run_parts
from feste_dp.report.run_data import RunReader, read_runs
from feste_dp.report.study_sections import read_study_part
from feste_dp.report.watch import view, watch_run
from feste_dp.run.directory import RunDirectory
from feste_dp.run.log import RunLog
from feste_dp.run.metrics import truncate_after
from feste_dp.run.trained_model import load_trained_model
from tests.checkpoint.conftest import example_arrays, example_fields
from tests.fuzz.mutation import mutated_bytes, mutated_lines
from tests.fuzz.targets import Mutate, Target, one_line
from tests.report.conftest import TOKENIZER, study, write_run

WIDTHS = (1, 20, 80)
SETTINGS = {
    "model": {"vocab_size": 270, "n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 8},
    "train": {"steps": 40},
}


class StillRunning(BaseException):
    """watch would look again."""


def look_at_run(path: Path, whole: Path) -> None:
    """What people do with a run; `whole` is another run beside it."""
    with refusals():
        page("a run", run_parts(read_runs([path])))
    with refusals():
        page("two runs", run_parts(read_runs([path, whole])))
    pages = Dashboard(path.parent)
    assert pages.answer(f"/runs/{path.name}").status in (200, 404)
    overview = pages.answer("/")
    assert overview.status == 200 and f"/runs/{whole.name}" in overview.body
    for terminal in (False, True):
        with refusals(), contextlib.suppress(StillRunning):
            watch_run(path, io.StringIO(), terminal, wait)
    with refusals():
        run = RunReader(path).read()
        for width in WIDTHS:
            Console(file=io.StringIO(), width=width).print(view(run, width))
    with refusals():
        list_checkpoints(path / "checkpoints", verify=True)
    with refusals():
        load_trained_model(path, None)
    with refusals():
        truncate_after(path / "metrics.csv", 20)
    RunLog(path / "log.txt").info("the run goes on")


def look_at_study(path: Path) -> None:
    with refusals():
        page("a study", [read_study_part(path)])
    pages = Dashboard(path.parent)
    assert pages.answer(f"/studies/{path.name}").status == pages.answer("/").status == 200


def wait(seconds: float) -> None:
    raise StillRunning


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        one_line(error)


def make_run_targets(folder: Path) -> list[Target]:
    shutil.rmtree(folder, ignore_errors=True)
    whole = write_run(folder / "runs" / "whole", **SETTINGS)  # type: ignore[arg-type]
    path = write_run(folder / "runs" / "mutated", **SETTINGS)  # type: ignore[arg-type]
    config = Config.model_validate(SETTINGS)
    fields = example_fields(
        40,
        parameter_count(config.model),
        config=config.model_dump(mode="json"),
        layout=tuple(TensorRange(**tensor._asdict()) for tensor in layout(config.model)),
        tokenizer_sha256=hashlib.sha256(TOKENIZER).hexdigest(),
    )
    arrays = example_arrays(1, parameter_count(config.model))
    write_checkpoint(path / "checkpoints", fields, arrays, file_count=1)
    (path / "log.txt").write_text("2026-01-31T12:00:00Z info: begun\n2026-01-31T12:00:01Z info: done\n")
    measured = folder / "studies" / "study"
    measured.mkdir(parents=True)
    (measured / "scaling.json").write_text(json.dumps(study()))

    def of(file: Path, count: int, mutate: Mutate, look: Callable[[], None]) -> Target:
        original = file.read_bytes()
        kept = (path / "metrics.csv").read_bytes()

        def read(data: bytes) -> None:
            file.write_bytes(data)
            try:
                look()
            finally:
                (path / "metrics.csv").write_bytes(kept)
                file.write_bytes(original)

        return Target(f"run {file.name}", count, [original], mutate, read)

    def look() -> None:
        look_at_run(path, whole)

    run = RunDirectory(path)
    return [
        of(run.metrics, 1200, mutated_lines, look),
        of(run.events, 1200, mutated_lines, look),
        of(run.config, 600, mutated_lines, look),
        of(run.tokenizer, 200, mutated_lines, look),
        of(run.log, 200, mutated_bytes, look),
        of(path / "checkpoints" / "step-00000040" / "manifest.json", 300, mutated_lines, look),
        of(measured / "scaling.json", 1200, mutated_lines, lambda: look_at_study(measured)),
    ]
