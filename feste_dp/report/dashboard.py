"""What the dashboard answers: pages made from the runs below a directory as they are at the moment.

Knows no server: asked by address, answers with a status, a version and a page. Writes nothing.
"""

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from feste_dp import __version__
from feste_dp.errors import UsageError, on_one_line
from feste_dp.report.discovery import Found, find
from feste_dp.report.markup import Markup, section, tag
from feste_dp.report.overview import COMPARE_ADDRESS, RUN_ADDRESS, STUDY_ADDRESS, overview_parts
from feste_dp.report.page import page, report_title, run_parts
from feste_dp.report.run_data import RunData, RunReader
from feste_dp.report.run_summary import RunSummary, newest_first, summarize
from feste_dp.report.study_sections import read_study_part
from feste_dp.run.directory import RunDirectory
from feste_dp.run.lock import is_locked
from feste_dp.scale.study import FILE_NAME

MOST_COMPARED = 8
MOST_CARDS = 48


@dataclass(frozen=True)
class Answer:
    """A page, or 304 where the asker has this version already."""

    status: int
    version: str
    body: str = ""


class Dashboard:
    """The pages of one directory. May be asked from several threads; one page is made at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._readers: dict[Path, RunReader] = {}
        self._summaries: dict[Path, tuple[object, RunSummary]] = {}
        self._lock = threading.Lock()
        find(directory)

    def answer(self, address: str, chosen: Sequence[str] = (), known_version: str | None = None) -> Answer:
        """`address` is the decoded path of the request, `chosen` the runs of a comparison."""
        with self._lock:
            found = find(self._directory)
            wanted = self._wanted(address, chosen, found)
            if wanted is None:
                return Answer(404, "", page("Not found", [_not_found()], home="/"))
            runs, study = wanted
            version = _version([address, *runs, *found.studies], [found.runs[name] for name in runs], study)
            if version == known_version:
                return Answer(304, version)
            return Answer(200, version, self._page(address, runs, study, found, version))

    def _wanted(
        self, address: str, chosen: Sequence[str], found: Found
    ) -> tuple[list[str], Path | None] | None:
        """The names of the runs that an address shows, and its study; None where there is no such address."""
        if address == "/":
            return list(found.runs), None
        if address == COMPARE_ADDRESS:
            names = list(dict.fromkeys(name for name in chosen if name in found.runs))[:MOST_COMPARED]
            return (names, None) if names else None
        if address.startswith(RUN_ADDRESS) and (name := address.removeprefix(RUN_ADDRESS)) in found.runs:
            return [name], None
        if (
            address.startswith(STUDY_ADDRESS)
            and (name := address.removeprefix(STUDY_ADDRESS)) in found.studies
        ):
            return [], found.studies[name]
        return None

    def _page(
        self, address: str, names: Sequence[str], study: Path | None, found: Found, version: str
    ) -> str:
        if study is not None:
            try:
                parts = [read_study_part(study)]
            except UsageError as error:
                parts = [_problem(str(error))]
            return page(f"Scaling study {study.name}", parts, version=version, home="/")
        listed: list[RunSummary] = []
        if address == "/":
            listed = newest_first([self._summary(name, found.runs[name]) for name in names])
            listed.sort(key=lambda run: run.state != "training")
            names = [run.name for run in listed[:MOST_CARDS]]
        runs: list[RunData] = []
        problems: dict[str, str] = {}
        for name in names:
            try:
                runs.append(self._reader(found.runs[name]).read(name))
            except UsageError as error:
                problems[name] = str(error)
            except Exception as error:  # whatever a run from elsewhere holds, the others are shown
                problems[name] = f"cannot be read: {on_one_line(error)}"
        if address == "/":
            title = f"Runs in {self._directory.absolute().name}"
            parts = overview_parts(listed, runs, list(found.studies), problems)
            return page(title, parts, version=version, home="/")
        try:
            parts = run_parts(runs)
        except Exception as error:
            parts = [_problem(f"cannot be drawn: {on_one_line(error)}")]
        parts += [_problem(text) for text in problems.values()]
        return page(report_title(list(names)), parts, version=version, home="/")

    def _summary(self, name: str, path: Path) -> RunSummary:
        """Made anew only when something of the run has changed."""
        stamp = _run_stamp(path)
        if self._summaries.get(path, (None,))[0] != stamp:
            self._summaries[path] = stamp, summarize(name, path)
        return self._summaries[path][1]

    def _reader(self, path: Path) -> RunReader:
        if path not in self._readers:
            self._readers[path] = RunReader(path)
        return self._readers[path]


def _version(names: Iterable[str], runs: Sequence[Path], study: Path | None) -> str:
    """Changes when anything changes that the page shows."""
    seen: list[object] = [__version__, *names]
    seen += map(_run_stamp, runs)
    if study is not None:
        seen.append(_stamp(study / FILE_NAME))
    return f'"{hashlib.sha256(repr(seen).encode()).hexdigest()[:32]}"'


def _run_stamp(run: Path) -> object:
    """Changes when anything changes that is said of a run."""
    files = [run / name for name in ("metrics.csv", "events.jsonl", "config.yaml", "checkpoints", "finished")]
    return [is_locked(RunDirectory(run)), *map(_stamp, files)]


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0
    return status.st_ino, status.st_size, status.st_mtime_ns


def _problem(text: str) -> Markup:
    return section("problem", "Cannot be shown", tag("p", {"class": "problem"}, text))


def _not_found() -> Markup:
    link = tag("a", {"href": "/"}, "all runs")
    return section(
        "problem", "There is no such page", tag("p", None, "The run may have been removed: see ", link, ".")
    )
