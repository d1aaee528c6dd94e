"""What a page shows of one run, read from its directory; nothing there is changed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from feste_dp.checkpoint.listing import CheckpointInfo, list_checkpoints
from feste_dp.config.dumping import flat_values
from feste_dp.config.loading import load_config
from feste_dp.config.schema import Config
from feste_dp.data.tokenizer import load_tokenizer
from feste_dp.errors import UsageError, on_one_line
from feste_dp.report.chronicle import Chronicle
from feste_dp.report.following import Following
from feste_dp.report.status import Status, status_of
from feste_dp.run.directory import open_run_directory
from feste_dp.run.events import BEGINNINGS, Event
from feste_dp.run.lock import is_locked
from feste_dp.run.metrics import MetricsRow, read_rows


@dataclass(frozen=True)
class TokenizerFacts:
    """What tokenizer.json holds."""

    vocab_size: int
    merges: int
    longest: list[str]
    """The longest tokens, as text."""


@dataclass(frozen=True)
class RunData:
    """One run at one moment."""

    path: Path
    name: str
    """What pages call it; unlike that of any other run on the page."""
    config: Config
    rows: Sequence[MetricsRow]
    events: Sequence[Event]
    """All but times."""
    times: Sequence[Event]
    """Where the seconds of steps went; of steps that were done again, the last time only."""
    status: Status
    checkpoints: Sequence[CheckpointInfo]
    tokenizer: TokenizerFacts

    @property
    def settings(self) -> dict[str, object]:
        return flat_values(self.config)

    @property
    def facts(self) -> Mapping[str, object]:
        """What its newest start said of workers, data and machine; empty where it kept no history."""
        beginnings = [event.fields for event in self.events if event.kind in BEGINNINGS]
        return beginnings[-1] if beginnings else {}

    @property
    def last_step(self) -> int:
        return self.rows[-1].step if self.rows else 0

    @property
    def best(self) -> MetricsRow | None:
        """The row of the lowest validation loss."""
        validated = [row for row in self.rows if row.val_loss is not None and row.val_loss == row.val_loss]
        return min(validated, key=lambda row: row.val_loss or 0.0, default=None)


class RunReader:
    """Reads a run again and again; what has been read of its growing files is not read again.

    Raises UsageError where `path` is no run, or a file of it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._run = open_run_directory(path)
        self.path = path
        self._metrics = Following(self._run.metrics, read_rows)
        self._history = Chronicle(self._run.events)
        self._tokenizer: TokenizerFacts | None = None

    def read(self, name: str = "") -> RunData:
        locked = is_locked(self._run)  # first: see status_of
        config = load_config(self._run.config, from_run=True)
        try:
            self._history.update()
            self._metrics.update()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else on_one_line(error)
            raise UsageError(f"{self.path}: metrics.csv or events.jsonl cannot be read: {reason}") from error
        if self._tokenizer is None:
            self._tokenizer = _tokenizer_facts(self._run.tokenizer)
        rows, history = self._metrics.rows, self._history
        last_step = rows[-1].step if rows else 0
        return RunData(
            path=self.path,
            name=name or self.path.absolute().name,
            config=config,
            rows=rows,
            events=history.events,
            times=history.times,
            status=status_of(
                locked, history.turns, last_step, config.train.steps, self.path, self._run.is_finished
            ),
            checkpoints=list_checkpoints(self._run.checkpoints),
            tokenizer=self._tokenizer,
        )


def read_runs(paths: Sequence[Path]) -> list[RunData]:
    """Each run once, under a name of its own."""
    distinct = list({path.resolve(): path for path in paths}.values())
    names = distinct_names([path.resolve() for path in distinct])
    return [RunReader(path).read(name) for path, name in zip(distinct, names, strict=True)]


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many parts before it as it takes to tell them apart."""
    for parts in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _tokenizer_facts(path: Path) -> TokenizerFacts:
    tokenizer = load_tokenizer(path)
    size = tokenizer.vocab_size
    texts = [tokenizer.decode([token]) for token in range(size)]
    return TokenizerFacts(
        vocab_size=size,
        merges=tokenizer.merges,
        longest=sorted({text for text in texts if "\ufffd" not in text}, key=lambda text: (-len(text), text))[
            :24
        ],
    )


def config_difference(runs: Sequence[RunData]) -> list[str]:
    """The keys in which the runs differ."""
    settings = [run.settings for run in runs]
    return [key for key in settings[0] if len({json.dumps(each[key]) for each in settings}) > 1]
