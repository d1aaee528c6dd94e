"""Writes a study's files into one directory. Knows their names, not what is in them."""

from datetime import UTC, datetime
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.interruption import held
from feste_dp.run.creation import check_can_create, check_can_create_at
from feste_dp.run.directory import STAMP
from feste_dp.scale.plot import HOW_TO_INSTALL, can_draw, draw
from feste_dp.scale.study import FILE_NAME, Study, study_to_json
from feste_dp.scale.table import study_csv

DEFAULT_PARENT = Path("data/scaling")


def output_directory(out: Path | None, name: str, now: datetime) -> Path:
    """Where the study will go: `out`, new or empty, or a new directory under data/scaling. Creates nothing;
    raises UsageError where it could not be created."""
    if out is not None:
        check_can_create_at(out)
        return out
    check_can_create(DEFAULT_PARENT)
    path = DEFAULT_PARENT / f"{name}-{now.astimezone(UTC).strftime(STAMP)}"
    if path.exists():
        raise UsageError(f"{path} has just been made: wait a second, or give a directory")
    return path


def write_study(study: Study, directory: Path) -> tuple[list[Path], str | None]:
    """The files written, and what to install for those that are not. A signal waits for the last of them."""
    with held:
        directory.mkdir(parents=True, exist_ok=True)
        written = [directory / FILE_NAME, directory / "scaling.csv"]
        for path, text in zip(written, (study_to_json(study), study_csv(study)), strict=True):
            path.write_text(text, encoding="utf-8")
        if not can_draw():
            return written, HOW_TO_INSTALL
        return [*written, *draw(study, directory / "scaling")], None
