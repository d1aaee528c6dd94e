"""Starts a run, new or resumed: prepares all that it needs, in the order in which nothing is created for bad
input, and hands it to the trainer."""

import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from feste_dp.checkpoint.background import BackgroundWriter
from feste_dp.checkpoint.listing import newest_whole, step_directories
from feste_dp.checkpoint.loading import load_checkpoint, read_manifest
from feste_dp.config.changes import check_changes
from feste_dp.config.dumping import dump_config, flat_values
from feste_dp.config.loading import ConfigText, config_on_top, load_config, override_keys
from feste_dp.config.schema import Config
from feste_dp.config.worker_counts import too_many_workers_for_run
from feste_dp.data.tokenizer import load_tokenizer
from feste_dp.data.tokens import TokenData
from feste_dp.errors import RunError, UsageError
from feste_dp.files.writing import write_whole
from feste_dp.interruption import Interrupted
from feste_dp.machine.cpus import default_workers
from feste_dp.machine.facts import machine_facts
from feste_dp.model.parameters import initial_params, parameter_count
from feste_dp.plan.step_time import LAUNCH_S, estimated_step, run_seconds
from feste_dp.run.creation import (
    check_can_create,
    check_can_create_at,
    check_can_lock,
    create_run_directory,
    create_run_directory_at,
)
from feste_dp.run.directory import RunDirectory, open_run_directory
from feste_dp.run.events import FINISH, RESUME, START, STOP
from feste_dp.run.held import HeldRun
from feste_dp.run.history import History
from feste_dp.run.lock import RunLock
from feste_dp.run.log import RunLog
from feste_dp.run.metrics import MetricsWriter, truncate_after, with_perplexity
from feste_dp.run.saved_state import is_tokenizer_of, older_arithmetic, saved_config
from feste_dp.run.screen import format_duration
from feste_dp.run.token_data import shown_corpus, with_absolute_corpus, with_corpus
from feste_dp.run.trace import RunTrace, check_steps
from feste_dp.run.trackers.choosing import make_trackers
from feste_dp.run.trackers.tracker import RunFacts
from feste_dp.run.worker_request import take_request
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.train.nonfinite import NonFiniteError
from feste_dp.train.notices import teller
from feste_dp.train.observing import Observing
from feste_dp.train.prompt import with_prompt
from feste_dp.train.start import (
    Surroundings,
    check_layout,
    check_machine,
    prepare,
    prepare_for,
    start_workers,
)
from feste_dp.train.stragglers import Stragglers
from feste_dp.train.trainer import Outlets, Trainer
from feste_dp.wording import command, counted

Beginning = tuple[str, str, dict[str, object]]
"""The kind, text and fields of the event that the history begins with."""


def launch(config: Config, out: Path | None, around: Surroundings) -> int:
    """Train a new run; returns the exit status: 0, 1 when something could not be saved, 128 + signal.

    The run directory is `out`, or a new one under run.dir. Raises UsageError with nothing created, RunError.
    """
    if out is not None:
        check_can_create_at(out)
    else:
        check_can_create(Path(config.run.dir))
    check_steps(around.trace, config.train.steps)
    config = with_absolute_corpus(config)
    workers = config.run.workers or default_workers(config.train.shards)
    warnings = check_machine(config, workers, around, saves_in=out or Path(config.run.dir))
    make_trackers(config.run.trackers)
    check_can_lock(out or Path(config.run.dir))
    data = prepare(config, around)
    config = with_prompt(config, data)
    shown = teller(around.progress)
    with (
        RunTrace(around.trace, around.progress) as trace,
        Coordinator(config, workers, data.directory, around.environ, shown, trace.request) as coordinator,
    ):
        start_workers(coordinator, workers, around)
        text, tokenizer = dump_config(config), data.tokenizer_path
        if out is not None:
            run = create_run_directory_at(out, config=text, tokenizer=tokenizer)
        else:
            run = create_run_directory(
                Path(config.run.dir), config.run.name, datetime.now(UTC), config=text, tokenizer=tokenizer
            )
        trace.put_in(run.path)
        with RunLock(run, datetime.now(UTC)) as lock:
            log = RunLog(run.log)

            def begin(trainer: Trainer) -> Beginning:
                for line in warnings:
                    log.warning(line)
                line = f"new run, {counted(workers, 'worker')}, seed {config.train.seed}"
                return START, line, {"warnings": warnings}

            return _train(run, lock, config, data, coordinator, workers, log, around, begin, trace)


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
    run = open_run_directory(path)
    with RunLock(run, datetime.now(UTC)) as lock:
        log = RunLog(run.log)
        to_store = _changed_config(run, edited, overrides)
        for_now = [] if workers is None else [f"run.workers={workers}"]
        for_now += [] if pin is None else [f"run.pin={pin}"]
        if workers is not None and workers > to_store.train.shards:
            raise UsageError(f"--workers: {too_many_workers_for_run(workers, to_store.train)}")
        config = _changed_config(run, edited, [*overrides, *for_now])
        checkpoint, damages = _find_checkpoint(run)
        saved = _saved_config(run, checkpoint)
        done = read_manifest(checkpoint).step if checkpoint else 0
        changes = check_changes(saved, config, explicit=override_keys(overrides))
        if checkpoint is not None and (line := older_arithmetic(read_manifest(checkpoint))) is not None:
            changes.append(line)
        for line in damages:
            around.progress.warning(line)
        count = config.run.workers or default_workers(config.train.shards)
        check_steps(around.trace, config.train.steps, done)
        warnings = check_machine(config, count, around, saves_in=run.checkpoints, resumes=True)
        make_trackers(config.run.trackers)
        for line in [*damages, *warnings]:
            log.warning(line)
        known = None if checkpoint is None else read_manifest(checkpoint)
        asked = "data.corpus" in override_keys(overrides)
        found = prepare_for(with_absolute_corpus(config), run.path, known, around, asked=asked)
        data = found.data
        if (
            known is None
            and (asked or found.moved)
            and not is_tokenizer_of(run.tokenizer, data.tokenizer_sha256)
        ):
            raise UsageError(
                f"the text at {found.corpus} gives another tokenizer than the run's: start a new run"
            )
        before = load_config(run.config, from_run=True).data.corpus
        if asked and before != found.corpus:
            changes.append(f"data.corpus: {shown_corpus(before)} -> {shown_corpus(found.corpus)}")
        elif found.moved is not None:
            changes.append(found.moved)
        config, to_store = with_corpus(config, found.corpus), with_corpus(to_store, found.corpus)
        config, to_store = with_prompt(config, data), with_prompt(to_store, data)
        shown = teller(around.progress, log)
        with (
            RunTrace(around.trace, around.progress) as trace,
            Coordinator(config, count, data.directory, around.environ, shown, trace.request) as coordinator,
        ):
            trace.put_in(run.path)

            def begin(trainer: Trainer) -> Beginning:
                start_workers(coordinator, count, around)
                _put_right(run, dump_config(to_store), data, trainer, around)
                for line in changes:
                    around.progress.message(f"changed: {line}")
                    log.info(f"changed: {line}")
                where = checkpoint.name if checkpoint else "the start"
                return (
                    RESUME,
                    f"resumed from {where}, {counted(count, 'worker')}",
                    {"changes": changes, "damages": damages},
                )

            return _train(run, lock, config, data, coordinator, count, log, around, begin, trace, checkpoint)


def _train(
    run: RunDirectory,
    lock: RunLock,
    config: Config,
    data: TokenData,
    coordinator: Coordinator,
    workers: int,
    log: RunLog,
    around: Surroundings,
    begin: Callable[[Trainer], Beginning],
    trace: RunTrace,
    resume_from: Path | None = None,
) -> int:
    """Train from `resume_from` or the start; calls begin once it is clear that there are steps to do."""

    def warn(line: str) -> None:
        around.progress.warning(line)
        log.warning(line)

    first_step = 0
    if resume_from is not None:
        saved = read_manifest(resume_from)
        check_layout(saved, config)  # before anything is changed
        # the row of a step that is still to be measured is written again
        first_step = saved.step - (saved.train.unmeasured is not None)
    rows = truncate_after(run.metrics, first_step)
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(HeldRun(run))
        inside = held.inside
        stack.callback(lambda: trace.put_in(None if held.is_gone else held.path))
        writer = BackgroundWriter(
            inside.checkpoints, parameter_count(config.model), keep=config.checkpoint.keep
        )
        metrics = stack.enter_context(MetricsWriter(inside.metrics))
        stack.enter_context(contextlib.closing(writer))

        def write_in(inside: RunDirectory) -> None:
            log.path, writer.checkpoints_dir = inside.log, inside.checkpoints

        held.follow(write_in)
        history = stack.enter_context(History(inside.events, warn))
        stragglers = Stragglers()
        coordinator.tell(teller(around.progress, log, history, stragglers))
        take_request(inside)  # one that came too late for the process before
        outlets = Outlets(
            around.progress,
            log,
            metrics,
            history,
            writer,
            around.signals,
            stragglers,
            lambda: take_request(held.inside),
            held,
        )
        tokenizer = load_tokenizer(data.tokenizer_path)
        trainer = Trainer(config, data, tokenizer, coordinator, outlets)
        stack.enter_context(contextlib.closing(trainer))
        if resume_from is None:
            trainer.start_from(initial_params(config.model, config.train.seed))
        else:
            manifest, _ = load_checkpoint(resume_from, out=trainer.restore_into())
            trainer.restore(manifest, rows)
            writer.catch_up(inside.checkpoints / resume_from.name, manifest)
        if trainer.finished:
            around.progress.finish(_already_finished(run, trainer, config, around))
            return 0
        kind, line, fields = begin(trainer)
        log.info(line)
        held.keep(inside.config.read_bytes(), data.tokenizer_path.read_bytes(), metrics, history, lock)
        facts = RunFacts(run.path, flat_values(config), dump_config(config), trainer.step)
        history.open(facts, make_trackers(config.run.trackers))
        history.event(trainer.step, kind, line, **fields, **_start_facts(config, data, workers))
        about = ""
        with Observing(warn)("the estimate of the time"):
            about = _time_left(config, workers, trainer.step)
        around.progress.announce(_announcement(run, config, data, workers, trainer.step, about))
        around.signals.defer()
        try:
            trainer.run()
        except Exception as error:
            raise _told(error, held, trainer, log, around) from None
        except Interrupted:
            log.warning("stopped at once, by a second signal")
            writer.abandon()
            around.progress.finish(f"to go on from what is saved:    {command('resume', held.path)}")
            raise
        return _finish(held, trainer, config, log, history, around)


def _start_facts(config: Config, data: TokenData, workers: int) -> dict[str, object]:
    return {
        "workers": workers,
        "parameters": parameter_count(config.model),
        "train_tokens": len(data.train),
        "val_tokens": len(data.val),
        "machine": machine_facts(),
    }


def _told(error: Exception, held: HeldRun, trainer: Trainer, log: RunLog, around: Surroundings) -> Exception:
    """What ended the run, with where it goes on from; a fault of the program keeps its traceback."""
    reason = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        reason = "out of memory: set the model, train.micro_batch or --workers smaller"
    log.warning(f"the run failed after step {trainer.step}: {reason}")
    for note in getattr(error, "__notes__", []):
        log.warning(note)
    if isinstance(error, NonFiniteError):
        reason += f"; to see why: {command('replay', held.path, '--step', str(error.step))}"
    saved = f"after step {trainer.saved_step}" if trainer.saved_step else "from the start, nothing is saved"
    way_on = f"to go on {saved}: {command('resume', held.path)}"
    if held.is_gone:
        way_on = "nothing is saved"
    if isinstance(error, RunError | OSError | MemoryError):
        return RunError(f"{reason}; {way_on}")
    around.progress.warning(way_on)
    return error


def _put_right(
    run: RunDirectory, config: str, data: TokenData, trainer: Trainer, around: Surroundings
) -> None:
    """Store the config with what this resume changed, and the tokenizer where the run's own is damaged."""
    try:
        if run.config.read_bytes() != config.encode():
            run.write_config(config)
        if not is_tokenizer_of(run.tokenizer, data.tokenizer_sha256):
            write_whole(run.tokenizer, data.tokenizer_path.read_bytes())
            around.progress.warning(f"{run.tokenizer} was damaged; it is the tokenizer of the run again")
    except OSError as error:
        trainer.report_unsaved(
            f"{run.config} not brought up to date: {error.strerror}; give the next resume the same --set"
        )


def _finish(
    held: HeldRun, trainer: Trainer, config: Config, log: RunLog, history: History, around: Surroundings
) -> int:
    stopped = around.signals.exit_status if not trainer.finished else 0
    where = f"saved in {held.path}"
    if not trainer.step:
        where = "nothing to save yet"
    elif not trainer.saved:
        where = f"which is NOT saved; what was saved is in {held.path}"
    if held.is_gone:
        where = f"which is NOT saved: {held.path} was removed"
    best = trainer.early_stop
    lines = []
    if best.best_loss is not None:
        lines.append(f"best validation loss {with_perplexity(best.best_loss)} at step {best.best_step}")
    if stopped:
        lines.append(f"stopped after step {trainer.step} of {config.train.steps}, {where}")
    else:
        lines.append(f"finished after step {trainer.step}, {where}")
    if stopped and not held.is_gone:
        lines.append(f"to go on:    {command('resume', held.path)}")
    elif not held.is_gone:
        prompt = config.sample.prompt.rstrip() or config.sample.prompt
        lines.append(f"to write:    {command('generate', held.path, '--prompt', prompt)}")
    if trainer.degraded and not held.is_gone:
        lines.append(f"something could not be saved: see the warnings in {held.path / held.inside.log.name}")
    around.progress.finish("\n".join(lines))
    line = f"{'stopped' if stopped else 'finished'} after step {trainer.step}"
    log.info(line)
    history.event(trainer.step, STOP if stopped else FINISH, line)
    return 1 if trainer.degraded else stopped


def _changed_config(run: RunDirectory, edited: ConfigText | None, overrides: Sequence[str]) -> Config:
    if edited is None:
        return load_config(run.config, overrides, from_run=True)
    return with_absolute_corpus(config_on_top(load_config(run.config, from_run=True), edited, overrides))


def _find_checkpoint(run: RunDirectory) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint and what is wrong with newer ones; None when none was ever saved: the
    start of a run is a function of its config, so it can be had again."""
    if not step_directories(run.checkpoints):
        return None, []
    return newest_whole(run.checkpoints)


def _saved_config(run: RunDirectory, checkpoint: Path | None) -> Config:
    if checkpoint is None:
        return load_config(run.config, from_run=True)
    return saved_config(read_manifest(checkpoint), checkpoint)


def _already_finished(run: RunDirectory, trainer: Trainer, config: Config, around: Surroundings) -> str:
    if trainer.step >= config.train.steps:
        return (
            f"nothing to do: {run.path} has done all its {trainer.step} steps; "
            f"for more: {command('resume', run.path, '--set', f'train.steps={2 * trainer.step}')}"
        )
    return (
        f"nothing to do: {run.path} stopped early at step {trainer.step}; "
        f"to go on all the same: {command('resume', run.path, '--set', 'eval.patience=0')}"
    )


def _time_left(config: Config, workers: int, first_step: int) -> str:
    left = (config.train.steps - first_step) / config.train.steps
    seconds = max(1.0, run_seconds(config, estimated_step(config, workers, LAUNCH_S)) * left)
    return f", about {format_duration(seconds)} on this machine"


def _announcement(
    run: RunDirectory, config: Config, data: TokenData, workers: int, first_step: int, about: str
) -> list[str]:
    model, train = config.model, config.train
    head = "tied" if model.tie_embeddings else "untied"
    to_go = ""
    if first_step:
        to_go = f", {train.steps - first_step:,} of them to go"
    lines = [
        f"model        {parameter_count(model):,} parameters ({counted(model.n_layer, 'layer')}, "
        f"{counted(model.n_head, 'head')}, "
        f"{model.n_embd} channels, {head} head)",
        f"data         {len(data.train):,} training tokens, {len(data.val):,} for validation, "
        f"vocabulary {model.vocab_size}",
        f"step         {config.tokens_per_step:,} tokens ({counted(train.batch_size, 'sequence')} of "
        f"{model.block_size}) in {counted(train.shards, 'shard')} on {counted(workers, 'worker')}",
        f"run          {counted(train.steps, 'step')}, {config.total_tokens:,} tokens{to_go}{about}",
        f"directory    {run.path}",
    ]
    if first_step:
        lines.append(f"resuming     after step {first_step}")
    return lines
