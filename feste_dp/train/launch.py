"""Starts a run, new or resumed: prepares all that it needs, in the order in which nothing is created for bad
input, opens it, gives it the state to begin with, and trains."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from feste_dp.checkpoint.listing import newest_whole, step_directories
from feste_dp.checkpoint.loading import read_manifest
from feste_dp.config.changes import check_changes
from feste_dp.config.dumping import dump_config
from feste_dp.config.loading import ConfigText, Override, config_on_top, load_config, override_keys
from feste_dp.config.schema import Config
from feste_dp.config.worker_counts import refuse_workers_of_run
from feste_dp.data.tokens import TokenData
from feste_dp.errors import UsageError
from feste_dp.files.writing import write_whole
from feste_dp.nodes.team import team_words
from feste_dp.run.creation import (
    check_can_create,
    check_can_create_at,
    check_can_lock,
    create_run_directory,
    create_run_directory_at,
)
from feste_dp.run.directory import RunDirectory, open_run_directory
from feste_dp.run.events import RESUME, START
from feste_dp.run.initial_weights import initial_weights
from feste_dp.run.lock import RunLock
from feste_dp.run.log import RunLog
from feste_dp.run.saved_state import is_tokenizer_of, older_arithmetic, saved_config
from feste_dp.run.token_data import shown_corpus, with_absolute_paths, with_corpus
from feste_dp.run.trace import RunTrace, check_steps
from feste_dp.run.trackers.choosing import make_trackers
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.train.announcing import already_finished
from feste_dp.train.observers import Observers
from feste_dp.train.open_run import OpenRun, Prepared, open_run
from feste_dp.train.prompt import with_prompt
from feste_dp.train.start import Surroundings, check_machine, prepare, prepare_for, settle, start_workers


def launch(config: Config, out: Path | None, around: Surroundings) -> int:
    """Train a new run; returns the exit status: 0, 1 when something could not be saved, 128 + signal.

    The run directory is `out`, or a new one under run.dir. Raises UsageError with nothing created, RunError.
    """
    if around.nodes is not None and not around.nodes.is_first:
        from feste_dp.train.follower import follow

        return follow(config, None, around, around.nodes)
    with launched(config, out, around) as opened:
        return opened.train()


@contextlib.contextmanager
def launched(config: Config, out: Path | None, around: Surroundings) -> Iterator[OpenRun]:
    """A new run before its first step; as launch."""
    prepared = _prepare_new(config, out, around)
    with _processes(prepared, around, is_new=True) as (trace, coordinator):
        start_workers(coordinator, prepared.config, prepared.workers, around)
        if around.nodes is not None:
            trace.of_nodes(around.nodes.link, around.nodes.transport)
        run = _create(prepared, out)
        trace.put_in(run.path)
        with (
            RunLock(run, datetime.now(UTC)) as lock,
            open_run(run, lock, prepared, coordinator, around, trace) as opened,
        ):
            seed, start = prepared.config.train.seed, prepared.start
            opened.start_anew()
            opened.share_state()
            begun = "" if start is None else f" from the weights of {start.place}"
            team = team_words(around.team, prepared.workers)
            opened.begin(START, f"new run{begun}, {team}, seed {seed}")
            if start is not None:  # which may be gone by the next start
                opened.trainer.save_start()
            yield opened


def resume(
    path: Path,
    workers: int | None,
    overrides: Sequence[str],
    around: Surroundings,
    pin: str | None = None,
    edited: ConfigText | None = None,
) -> int:
    """Continue a run after its newest whole checkpoint; returns the exit status as launch does.

    Keys of the config change as config/changes.py allows; those that `edited` gives count as if the run's
    own config had been edited. Raises UsageError with nothing changed, RunError.
    """
    if around.nodes is not None and not around.nodes.is_first:
        from feste_dp.train.follower import follow

        return follow(None, workers, around, around.nodes)
    with resumed(path, workers, overrides, around, pin, edited) as opened:
        return 0 if opened is None else opened.train()


@contextlib.contextmanager
def resumed(
    path: Path,
    workers: int | None,
    overrides: Sequence[str],
    around: Surroundings,
    pin: str | None = None,
    edited: ConfigText | None = None,
) -> Iterator[OpenRun | None]:
    """A run before the first step after its newest whole checkpoint, as resume; None where there is nothing
    left to do, which is told."""
    run = open_run_directory(path)
    with RunLock(run, datetime.now(UTC)) as lock:
        around.record.log_to(RunLog(run.log))
        prepared = _prepare_resumed(run, _Changes(workers, tuple(overrides), pin, edited), around)
        with _processes(prepared, around, is_new=False) as (trace, coordinator):
            trace.put_in(run.path)
            checkpoint = prepared.checkpoint
            with open_run(run, lock, prepared, coordinator, around, trace, checkpoint) as opened:
                if checkpoint is None:
                    opened.start_anew()
                else:
                    opened.restore(checkpoint)
                if opened.trainer.finished:
                    around.tell_of_no_work()
                    opened.mark_finished()
                    around.progress.finish(already_finished(run, opened.trainer, prepared.config))
                    yield None
                    return
                start_workers(coordinator, prepared.config, prepared.workers, around)
                if around.nodes is not None:
                    trace.of_nodes(around.nodes.link, around.nodes.transport)
                opened.share_state()
                opened.unmark_finished()
                _put_right(opened, dump_config(prepared.to_store), prepared.data)
                where = checkpoint.name if checkpoint else "the start"
                team = team_words(around.team, prepared.workers)
                opened.begin(RESUME, f"resumed from {where}, {team}")
                yield opened


@dataclass(frozen=True)
class _Changes:
    """What a resume is asked to do otherwise than the run did."""

    workers: int | None
    overrides: tuple[str, ...]
    pin: str | None
    edited: ConfigText | None

    def config_of(self, run: RunDirectory, *, for_now: bool) -> Config:
        """The run's config with them; workers and pin are not of the config, they hold for now."""
        given = list(self.overrides)
        if for_now and self.workers is not None:
            given.append(Override(f"run.workers={self.workers}", "run.workers", names_key=True))
        if for_now and self.pin is not None:
            given.append(Override(f"run.pin={self.pin}", "run.pin", names_key=True))
        if self.edited is None:
            return load_config(run.config, given, from_run=True)
        return with_absolute_paths(config_on_top(load_config(run.config, from_run=True), self.edited, given))


@dataclass(frozen=True)
class _Resumed(Prepared):
    """A run that goes on: from where, and what its config.yaml is to say."""

    checkpoint: Path | None
    to_store: Config


def _prepare_new(config: Config, out: Path | None, around: Surroundings) -> Prepared:
    if out is not None:
        check_can_create_at(out)
    else:
        check_can_create(Path(config.run.dir))
    check_steps(around.trace, config.train.steps)
    config, start = settle(with_absolute_paths(config))
    workers = around.workers(config)
    check_machine(config, workers, around, saves_in=out or Path(config.run.dir))
    make_trackers(config.run.trackers)
    check_can_lock(out or Path(config.run.dir))
    data = prepare(config, around, start)
    return Prepared(with_prompt(config, data), data, workers, start)


def _prepare_resumed(run: RunDirectory, changes: _Changes, around: Surroundings) -> _Resumed:
    to_store = changes.config_of(run, for_now=False)
    if changes.workers is not None and changes.workers > to_store.train.shards:
        raise refuse_workers_of_run(changes.workers, to_store.train)
    config, asked_keys = changes.config_of(run, for_now=True), override_keys(changes.overrides)
    checkpoint, damages = _find_checkpoint(run)
    known = None if checkpoint is None else read_manifest(checkpoint)
    before = load_config(run.config, from_run=True)
    saved = before if checkpoint is None or known is None else saved_config(known, checkpoint)
    changed = check_changes(saved, config, explicit=asked_keys)
    if known is not None and (line := older_arithmetic(known)) is not None:
        changed.append(line)
    for line in damages:
        around.record.warn(line)
    workers = around.workers(config)
    check_steps(around.trace, config.train.steps, 0 if known is None else known.step)
    check_machine(config, workers, around, saves_in=run.checkpoints, resumes=True)
    make_trackers(config.run.trackers)
    asked = "data.corpus" in asked_keys
    found = prepare_for(with_absolute_paths(config), run.path, known, around, asked=asked)
    is_elsewhere = asked or found.moved is not None
    if known is None and is_elsewhere and not is_tokenizer_of(run.tokenizer, found.data.tokenizer_sha256):
        raise UsageError(
            f"the text at {found.corpus} gives another tokenizer than the run's: start a new run"
        )
    corpus = before.data.corpus
    if asked and corpus != found.corpus:
        changed.append(f"data.corpus: {shown_corpus(corpus)} -> {shown_corpus(found.corpus)}")
    elif not asked and found.moved is not None:
        changed.append(found.moved)
    for line in changed:
        around.record.tell("change", f"changed: {line}")

    def settled(config: Config) -> Config:
        return with_prompt(with_corpus(config, found.corpus), found.data)

    start = initial_weights(config) if checkpoint is None else None
    return _Resumed(settled(config), found.data, workers, start, checkpoint, settled(to_store))


def _find_checkpoint(run: RunDirectory) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint and what is wrong with newer ones; None when none was ever saved: the
    start of a run is a function of its config, so it can be had again."""
    if not step_directories(run.checkpoints):
        return None, []
    return newest_whole(run.checkpoints)


@contextlib.contextmanager
def _processes(
    prepared: Prepared, around: Surroundings, *, is_new: bool
) -> Iterator[tuple[RunTrace, Coordinator]]:
    """The coordinator, whose workers are not started yet, and what makes a trace of all of them."""
    notice, directory = Observers(around.record).notice, prepared.data.directory
    block, nodes = None, around.nodes
    if nodes is not None:
        from feste_dp.train.follower import share_job

        block = nodes.block(prepared.config.train.shards)
        share_job(nodes.link, prepared.config, prepared.data, around.trace, is_new=is_new)
    with (
        RunTrace(around.trace, around.progress) as trace,
        Coordinator(
            prepared.config, prepared.workers, directory, around.environ, notice, trace.request, block
        ) as coordinator,
    ):
        yield trace, coordinator


def _create(prepared: Prepared, out: Path | None) -> RunDirectory:
    config, text = prepared.config, dump_config(prepared.config)
    tokenizer = prepared.data.tokenizer_path
    if out is not None:
        return create_run_directory_at(out, config=text, tokenizer=tokenizer)
    return create_run_directory(
        Path(config.run.dir), config.run.name, datetime.now(UTC), config=text, tokenizer=tokenizer
    )


def _put_right(opened: OpenRun, config: str, data: TokenData) -> None:
    """Store the config with what this resume changed, and the tokenizer where the run's own is damaged."""
    run = opened.run
    try:
        if run.config.read_bytes() != config.encode():
            run.write_config(config)
        if not is_tokenizer_of(run.tokenizer, data.tokenizer_sha256):
            write_whole(run.tokenizer, data.tokenizer_path.read_bytes())
            opened.around.record.warn(f"{run.tokenizer} was damaged; it is the tokenizer of the run again")
    except OSError as error:
        opened.trainer.report_unsaved(
            f"{run.config} not brought up to date: {error.strerror}; give the next resume the same changes"
        )
