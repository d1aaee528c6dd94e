"""A run with its files open: from the state it begins with to its last line."""

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from feste_dp.checkpoint.background import BackgroundWriter
from feste_dp.checkpoint.format import PARAMS, Manifest
from feste_dp.checkpoint.loading import load_checkpoint, read_manifest
from feste_dp.config.dumping import dump_config, flat_values
from feste_dp.config.schema import Config
from feste_dp.data.tokenizer import load_tokenizer
from feste_dp.data.tokens import TokenData
from feste_dp.errors import RunError
from feste_dp.interruption import Interrupted
from feste_dp.machine.facts import machine_facts
from feste_dp.model.parameters import parameter_count
from feste_dp.optim.optimizer import optimizer_class
from feste_dp.run.directory import RunDirectory, reason
from feste_dp.run.events import FINISH, STOP
from feste_dp.run.held import HeldRun
from feste_dp.run.history import History
from feste_dp.run.initial_weights import InitialWeights, params_at_start
from feste_dp.run.lock import RunLock
from feste_dp.run.log import RunLog
from feste_dp.run.metrics import MetricsRow, MetricsWriter, truncate_after
from feste_dp.run.observing import Observing
from feste_dp.run.trace import RunTrace
from feste_dp.run.trackers.choosing import make_trackers
from feste_dp.run.trackers.tracker import RunFacts
from feste_dp.run.worker_request import take_request
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.train.announcing import announcement, ending, time_left
from feste_dp.train.nonfinite import NonFiniteError
from feste_dp.train.observers import Observers
from feste_dp.train.source import Exchange
from feste_dp.train.start import Surroundings, check_layout
from feste_dp.train.trainer import Outlets, Trainer
from feste_dp.wording import command

LEFT = 1
"""The status of a run that who iterates over its steps has left: any but 0."""


@dataclass(frozen=True)
class Prepared:
    """All that a run needs before its first step, while nothing of it on the disk has changed."""

    config: Config
    data: TokenData
    workers: int
    start: InitialWeights | None
    """None: weights at random"""


@dataclass
class OpenRun:
    """What trains a run, and where it writes."""

    run: RunDirectory
    lock: RunLock
    prepared: Prepared
    around: Surroundings
    held: HeldRun
    metrics: MetricsWriter
    history: History
    writer: BackgroundWriter
    trainer: Trainer
    rows: list[MetricsRow]
    """What metrics.csv has of the steps that are done."""
    restored: Manifest | None = None
    """Of the checkpoint that it goes on from."""

    def restore(self, checkpoint: Path) -> None:
        """Go on from the state of a checkpoint. Raises UsageError."""
        manifest, _ = load_checkpoint(checkpoint, out=self.trainer.restore_into())
        self.trainer.restore(manifest, self.rows)
        self.restored = manifest
        self.writer.catch_up(self.held.inside.checkpoints / checkpoint.name, manifest)

    def start_anew(self) -> None:
        """Begin at step 0. Raises UsageError."""
        self.trainer.start_from(params_at_start(self.prepared.config, self.prepared.start))

    def share_state(self) -> None:
        """Have the other nodes begin with the state that this one has, where there are any."""
        nodes = self.around.nodes
        if nodes is not None:
            from feste_dp.train.follower import share_state
            from feste_dp.train.shared_saving import helpers, share_saving

            found = share_saving(nodes.link, self.prepared.config, self.held.path.absolute() / "checkpoints")
            if found.is_shared:
                self.writer.helpers = helpers(nodes.link, lambda: self.held.path.absolute() / "checkpoints")
            if found.line:
                self.around.record.tell("saving", found.line)
            share_state(nodes.link, self.trainer, self.restored)

    def begin(self, kind: str, text: str) -> None:
        """The first event of the history, and on the screen what is about to be trained."""
        config, data, workers = self.prepared.config, self.prepared.data, self.prepared.workers
        trainer, record = self.trainer, self.around.record
        tokenizer = data.tokenizer_path.read_bytes()
        self.held.keep(self.held.inside.config.read_bytes(), tokenizer, self.metrics, self.history, self.lock)
        facts = RunFacts(self.run.path, flat_values(config), dump_config(config), trainer.step)
        self.history.open(facts, make_trackers(config.run.trackers))
        record.begin(
            self.history,
            kind,
            text,
            workers=workers,
            parameters=parameter_count(config.model),
            train_tokens=len(data.train),
            val_tokens=len(data.val),
            machine=machine_facts(),
            **({"nodes": [asdict(node) for node in self.around.team]} if self.around.team else {}),
        )
        about = ""
        with Observing(record.warn)("the estimate of the time"):
            own = self.around.team[0].shards if self.around.team else None
            about = time_left(config, workers, trainer.step, own)
        self.around.progress.announce(
            announcement(self.run, config, data, workers, trainer.step, about, self.around.team)
        )

    def train(self) -> int:
        """To the end, to an early stop or to a signal; returns the exit status. Raises RunError."""
        self.around.signals.defer()
        try:
            self.trainer.run()
        except Exception as error:
            self._fail(error)
        except Interrupted:
            self._stop_at_once()
            raise
        return self._finish(self.around.signals.exit_status)

    def steps(self) -> Generator[MetricsRow, None, None]:
        """As train, a step at a time; left before the last one, the run is stopped: saved, to be resumed."""
        self.around.signals.defer()
        try:
            yield from self.trainer.steps()
        except Exception as error:
            self._fail(error)
        except Interrupted:
            self._stop_at_once()
            raise
        except GeneratorExit:
            self.trainer.leave()
            self._finish(LEFT)
            raise
        self._finish(self.around.signals.exit_status)

    def _finish(self, status: int) -> int:
        """Tell how the run ended; the exit status, 0 where all was done that there is to do."""
        trainer, around = self.trainer, self.around
        stopped = status if not trainer.finished else 0
        if trainer.finished and trainer.saved:
            self.mark_finished()
        around.progress.finish(ending(self.held, trainer, self.prepared.config, bool(stopped)))
        line = f"{'stopped' if stopped else 'finished'} after step {trainer.step}"
        around.record.tell(STOP if stopped else FINISH, line, "routine")
        return 1 if trainer.degraded else stopped

    def mark_finished(self) -> None:
        """Leave the file that says so, where it is not there."""
        inside = self.held.inside
        if self.held.is_gone or inside.is_finished:
            return
        try:
            inside.write_finished(self.trainer.step, datetime.now(UTC))
        except OSError as error:
            self.trainer.report_unsaved(f"{self.held.path / 'finished'} not written: {reason(error)}")

    def unmark_finished(self) -> None:
        """Remove it, where the run goes on."""
        try:
            self.held.inside.finished.unlink(missing_ok=True)
        except OSError as error:
            self.trainer.report_unsaved(f"{self.held.path / 'finished'} not removed: {reason(error)}")

    def _stop_at_once(self) -> None:
        self.around.record.tell("warning", "stopped at once, by a second signal", "routine")
        self.writer.abandon()
        self.around.progress.finish(f"to go on from what is saved:    {command('resume', self.held.path)}")

    def _fail(self, error: Exception) -> NoReturn:
        """What ended the run, with where it goes on from; a fault of the program keeps its traceback."""
        trainer, held, record = self.trainer, self.held, self.around.record
        why = str(error) or type(error).__name__
        if isinstance(error, MemoryError):
            why = "out of memory: set the model, train.micro_batch or run.workers smaller"
        notes = "\n".join(getattr(error, "__notes__", []))
        record.note(f"the run failed after step {trainer.step}: {why}", "warning", trace=notes)
        if isinstance(error, NonFiniteError):
            why += f"; to see why: {command('replay', held.path, '--step', str(error.step))}"
        saved = (
            f"after step {trainer.saved_step}" if trainer.saved_step else "from the start, nothing is saved"
        )
        way_on = f"to go on {saved}: {command('resume', held.path)}"
        if held.is_gone:
            way_on = "nothing is saved"
        if isinstance(error, RunError | OSError | MemoryError):
            raise RunError(f"{why}; {way_on}") from None
        record.warn(way_on)
        raise error from None


@contextlib.contextmanager
def open_run(
    run: RunDirectory,
    lock: RunLock,
    prepared: Prepared,
    coordinator: Coordinator,
    around: Surroundings,
    trace: RunTrace,
    checkpoint: Path | None = None,
) -> Iterator[OpenRun]:
    """Open what a run writes, after `checkpoint` or from the start; closes all of it, in the order in which
    what it still has to write finds its place. Raises UsageError with nothing changed."""
    config, record = prepared.config, around.record
    first_step = 0
    if checkpoint is not None:
        saved = read_manifest(checkpoint)
        check_layout(saved, config)
        # the row of a step that is still to be measured is written again
        first_step = saved.step - (saved.train.unmeasured is not None)
    rows = truncate_after(run.metrics, first_step)
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(HeldRun(run))
        stack.callback(lambda: trace.put_in(None if held.is_gone else held.path))
        parameters, tensors = parameter_count(config.model), (PARAMS, *optimizer_class(config.optim).names)
        writer = BackgroundWriter(held.inside.checkpoints, parameters, tensors, keep=config.checkpoint.keep)
        metrics = stack.enter_context(MetricsWriter(held.inside.metrics))
        stack.enter_context(contextlib.closing(writer))
        log = RunLog(held.inside.log)
        record.log_to(log)

        def write_in(inside: RunDirectory) -> None:
            log.path, writer.checkpoints_dir = inside.log, inside.checkpoints

        held.follow(write_in)
        history = stack.enter_context(History(held.inside.events, record.warn))
        observers = Observers(record)
        coordinator.tell(observers.notice)
        take_request(held.inside)  # one that came too late for the process before
        outlets = Outlets(
            observers,
            metrics,
            writer,
            around.signals,
            lambda: take_request(held.inside),
            held,
            coordinator.faults,
            coordinator.recorder,
            _exchange(config, held, around),
        )
        tokenizer = load_tokenizer(prepared.data.tokenizer_path)
        trainer = Trainer(config, prepared.data, tokenizer, coordinator, outlets)
        stack.enter_context(contextlib.closing(trainer))
        yield OpenRun(run, lock, prepared, around, held, metrics, history, writer, trainer, rows)


def _exchange(config: Config, held: HeldRun, around: Surroundings) -> Exchange | None:
    """With the other nodes, where there are any."""
    if around.nodes is None:
        return None
    from feste_dp.train.together import NodeExchange

    return NodeExchange(
        around.nodes,
        config.train.shards,
        parameter_count(config.model),
        around.signals,
        lambda: take_request(held.inside),
    )
