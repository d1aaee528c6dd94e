"""The training loop: what happens between steps.

Owns when to validate, sample, save and stop. Knows nothing of how it is measured (measuring.py's), of what
becomes of a save (saves.py's), of the arithmetic of a step (step.py's), of processes and messages (runtime's,
see source.py) nor of directories and the command line (launch.py's).
"""

import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feste_dp.checkpoint.format import (
    Arrays,
    Manifest,
    ManifestFields,
    TensorRange,
    TrainState,
    Unmeasured,
)
from feste_dp.checkpoint.joint_saving import DivergedError
from feste_dp.config.schema import Config
from feste_dp.data.tokenizer import ByteTokenizer
from feste_dp.data.tokens import TokenData
from feste_dp.errors import RunError, UsageError
from feste_dp.machine.cpus import crowding
from feste_dp.model.parameters import layout
from feste_dp.run.held import HeldRun
from feste_dp.run.metrics import MetricsRow, with_perplexity
from feste_dp.runtime.faults import NO_FAULTS, Faults
from feste_dp.runtime.tracing import Recorder
from feste_dp.train.early_stop import EarlyStop
from feste_dp.train.measuring import Measuring
from feste_dp.train.nonfinite import MAX_SKIPPED_IN_A_ROW, is_usable
from feste_dp.train.observers import Observers
from feste_dp.train.saves import Rows, Saves, Writer
from feste_dp.train.signals import Abandoned, StopSignals
from feste_dp.train.source import Exchange, Workforce
from feste_dp.train.spikes import WINDOW
from feste_dp.train.step import Stepper, StepResult
from feste_dp.wording import counted


@dataclass(frozen=True)
class Outlets:
    """Where a run speaks and writes, who watches it, and the signals that stop it."""

    observers: Observers
    metrics: Rows
    writer: Writer
    signals: StopSignals
    requested_workers: Callable[[], int | None] = lambda: None
    """Asked between steps: another number of workers, where somebody wants one."""
    held: HeldRun | None = None
    faults: Faults = NO_FAULTS
    recorder: Recorder | None = None
    """Of a traced run, which step takes which time."""
    exchange: Exchange | None = None
    """With the other nodes, where there are several."""


class Trainer:
    """The state of a run between steps, and the loop over them."""

    def __init__(
        self,
        config: Config,
        data: TokenData,
        tokenizer: ByteTokenizer,
        workforce: Workforce,
        outlets: Outlets,
    ) -> None:
        self._config, self._data = config, data
        self._workforce, self._out = workforce, outlets
        self._arena = workforce.arena
        self._stepper = Stepper(
            config,
            data,
            workforce,
            outlets.exchange,
            computing=outlets.signals.computing,
            faults=outlets.faults,
            recorder=outlets.recorder,
        )
        self._observers, self._record = outlets.observers, outlets.observers.record
        self._saves = Saves(self._record, outlets.metrics, outlets.writer, outlets.held, outlets.faults)
        self._measuring = Measuring(
            config,
            data,
            tokenizer,
            workforce,
            outlets.exchange,
            outlets.signals,
            self._record,
            outlets.faults,
        )
        self._early_stop = EarlyStop(config.eval.patience)
        self._step = 0
        self._val_loss: float | None = None
        self._unmeasured: Unmeasured | None = None
        """Set from a step's update until its validation and sample are there."""
        self._elapsed_before = self._started = 0.0

    def start_from(self, params: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
        """Begin at step 0 with these weights (P,)."""
        self._arena.params[:] = params

    def save_start(self) -> None:
        """Save step 0, so that the run needs nothing else to go on."""
        self._save(0.0)

    def restore_into(self) -> Arrays:
        """The buffers that a checkpoint is to be loaded into; then call restore()."""
        return self._stepper.arrays

    def restore(self, manifest: Manifest, rows: Sequence[MetricsRow] = ()) -> None:
        """Go on after the step of this checkpoint; rows are those of metrics.csv, of the steps whose
        measurements it has."""
        state = manifest.train
        self._step = self._stepper.whole_after = manifest.step
        self._saves.restored(manifest.step)
        self._unmeasured = state.unmeasured
        self._stepper.skipped_steps, self._val_loss = state.skipped_steps, state.val_loss
        self._elapsed_before = state.elapsed_seconds
        self._early_stop = EarlyStop(
            self._config.eval.patience, state.best_val_loss, state.best_step, state.evals_since_best
        )
        past = [(row.train_loss, row.grad_norm) for row in rows]
        if state.unmeasured is not None:
            past.append((float(state.unmeasured.train_loss), float(state.unmeasured.grad_norm)))
        finite = [loss for loss, _ in past if math.isfinite(loss)]
        self._record.step = manifest.step
        self._observers.remember(manifest.step, finite[-(WINDOW + 1) :])
        for loss, norm in past[-MAX_SKIPPED_IN_A_ROW:]:
            usable = is_usable(loss, norm, self._config.optim.clip_norm)
            self._stepper.skipped_in_a_row = 0 if usable else self._stepper.skipped_in_a_row + 1

    def close(self) -> None:
        self._stepper.close()

    @property
    def params(self) -> NDArray[np.float32]:
        """(P,) the weights, shared with the workers."""
        return self._arena.params

    @property
    def step(self) -> int:
        return self._step

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do: all steps are done, or validation has stopped improving."""
        if self._unmeasured is not None:
            return False
        return self._step >= self._config.train.steps or self._early_stop.should_stop

    @property
    def early_stop(self) -> EarlyStop:
        return self._early_stop

    @property
    def degraded(self) -> bool:
        """Whether something that the user asked for could not be kept: a save or a metrics row failed."""
        return self._saves.degraded

    @property
    def saved_step(self) -> int | None:
        """The last step that a checkpoint holds, None where there is none."""
        return self._saves.stored_step

    @property
    def saved(self) -> bool:
        """Whether a checkpoint holds the state as it is now."""
        return self._saves.has_kept(self._step)

    def report_unsaved(self, line: str) -> None:
        """Say that something was not kept; the run goes on, and its exit status will say so."""
        self._saves.report_unsaved(line)

    def run(self) -> None:
        """Train to the end, to an early stop or to a signal, and save the last step. Raises RunError.

        Whatever ends it, but a request to stop at once: the last finished step is saved first.
        """
        for _ in self.steps():
            pass

    def steps(self) -> Generator[MetricsRow, None, None]:
        """As run, a step at a time. Who asks for no more of them calls leave()."""
        started = self._started = time.monotonic() - self._elapsed_before
        try:
            if self._unmeasured is not None:
                yield self._finish_step(self._unmeasured, started)
            while not self.finished and not self._is_asked_to_stop():
                self._hear_others()
                self._resize()
                step_started = time.perf_counter()
                result = self.train_step(self._step + 1)
                seconds = time.perf_counter() - step_started
                self._step, self._val_loss = self._step + 1, None
                self._observers.step(self._step, result)
                numbers = Unmeasured(
                    train_loss=repr(float(result.train_loss)),
                    grad_norm=repr(float(result.grad_norm)),
                    learning_rate=repr(float(result.learning_rate)),
                    tokens_per_second=repr(self._config.tokens_per_step / max(seconds, 1e-9)),
                )
                yield self._finish_step(numbers, started)
        except Abandoned:
            self._workforce.close(at_once=True)  # what the workers still compute is not wanted
        except DivergedError:  # what memory holds is in doubt
            raise
        except Exception:
            self._hear_others()
            self._keep_what_is_whole(started)
            raise
        self._hear_others()
        self._save_last(started, together=True)

    def _is_asked_to_stop(self) -> bool:
        """At a place where every node has the same answer."""
        exchange = self._out.exchange
        return self._out.signals.requested if exchange is None else exchange.stop_signal is not None

    def _hear_others(self) -> None:
        """Tell here what the other nodes have to tell."""
        for told in () if self._out.exchange is None else self._out.exchange.told():
            self._record.tell(told.kind, told.text, told.level, node=told.node)

    def leave(self) -> None:
        """Between two steps: save the last one. Raises NonFiniteError."""
        self._save_last(self._started)

    def _keep_what_is_whole(self, started: float) -> None:
        """Save the last finished step, where memory still holds it; what ends the run is told next."""
        try:
            if self._stepper.whole_after == self._step:
                self._save_last(started)
            else:  # in the midst of an update
                self._saves.wait()
        except Exception as failure:
            self.report_unsaved(f"step {self._step} could not be saved: {failure or type(failure).__name__}")

    def _save_last(self, started: float, *, together: bool = False) -> None:
        """Return when the last finished step is on the disk; together, where all nodes come here."""
        self._saves.look_after_the_run()
        self._saves.wait()
        saves = self._step > 0 and not self._saves.has_still(self._step)
        if self._out.exchange is not None and together:  # what is on the disk, the first node knows
            agreed = self._out.exchange.agree(saves)
            saves, together = (saves, False) if agreed is None else (agreed, True)
        if saves:
            self._save(time.monotonic() - started, together=together)
        self._saves.wait()

    def _resize(self) -> None:
        """Go on with another number of workers where one was asked for."""
        exchange, before = self._out.exchange, self._workforce.workers
        wanted = self._out.requested_workers() if exchange is None else exchange.take_workers()
        if wanted is None or not 0 < wanted <= self._config.train.shards:
            return
        wanted = min(wanted, self._workforce.block.count)
        if wanted == before:
            return
        try:
            self._workforce.resize(wanted)
        except (UsageError, RunError) as error:
            self._record.warn(f"still {counted(before, 'worker')}: {error}")
            return
        line = f"{counted(wanted, 'worker')} from step {self._step + 1} on, {before} before"
        crowded = crowding(wanted)
        self._record.tell("worker_count", line, workers=wanted)
        if crowded is not None:
            self._record.warn(crowded)

    def _finish_step(self, numbers: Unmeasured, started: float) -> MetricsRow:
        """What comes after an update: validation and sample where due, the metrics row, a save where due.

        Where measuring is given up, the row lacks it, and what is saved says so. Raises Abandoned.
        """
        self._unmeasured = numbers
        val_loss, sample, is_best = None, "", False
        evaluates, samples = self._is_due(self._config.eval.every), self._is_due(self._config.sample.every)

        def row() -> MetricsRow:
            return MetricsRow(
                step=self._step,
                elapsed_seconds=time.monotonic() - started,
                learning_rate=float(numbers.learning_rate),
                train_loss=float(numbers.train_loss),
                grad_norm=float(numbers.grad_norm),
                tokens_per_second=float(numbers.tokens_per_second),
                val_loss=val_loss,
                sample=sample,
            )

        if evaluates or samples:
            try:
                val_loss, sample = self._measuring.measure(
                    self._step,
                    evaluates=evaluates,
                    samples=samples,
                    save=lambda: self._save_while_measuring(started),
                )
            except (Abandoned, Exception) as error:
                self._write_row(row(), is_best)  # the step is done, and a resume measures again
                self._measuring.give_up(error)
                raise
        self._unmeasured = None
        self._saves.outdate(self._step)  # a save during the measuring lacks what it gave
        if val_loss is not None:
            is_best = self._judge(val_loss)
        finished = row()
        self._write_row(finished, is_best)
        if self._should_save(is_best):
            self._save(finished.elapsed_seconds, together=True)
        self._saves.poll()
        self._saves.look_after_the_run(at_once=False)
        if evaluates or samples or self._saves.has(self._step):
            self._workforce.tend()  # what took long: has a worker been lost meanwhile?
        return finished

    def train_step(self, step: int) -> StepResult:
        """One update of the shared weights; a step that is skipped is said so. See Stepper.step."""
        result = self._stepper.step(step)
        if result.skipped is not None:
            line = f"step {step} skipped ({self._stepper.skipped_steps} so far): {result.skipped}"
            self._record.tell("skip", line, "warning", step=step)
        return result

    def _is_due(self, every: int) -> bool:
        return every > 0 and (self._step % every == 0 or self._step == self._config.train.steps)

    def _judge(self, val_loss: float) -> bool:
        """Take note of the step's validation loss; True when it is the best so far."""
        self._val_loss = val_loss
        self._early_stop, is_best, stops = self._early_stop.update(self._step, val_loss)
        best = self._early_stop
        if is_best:
            line = f"best validation loss so far: {with_perplexity(self._val_loss)}"
            self._record.tell("best", line, "routine", val_loss=self._val_loss)
        if stops:
            line = f"early stop: no finite validation loss in {best.evals_since_best} evaluations"
            if best.best_loss is not None:
                line = (
                    f"early stop: no better validation loss in {best.evals_since_best} evaluations; "
                    f"best {with_perplexity(best.best_loss)} at step {best.best_step}"
                )
            self._record.tell("early_stop", line)
        return is_best

    def _write_row(self, row: MetricsRow, is_best: bool) -> None:
        self._saves.write_row(row)
        self._record.row(row, self._config.train.steps, is_best)

    def _should_save(self, is_best: bool) -> bool:
        asked = (self._out.exchange or self._out.signals).take_save_request()
        every = self._config.checkpoint.every
        return asked or is_best or (every > 0 and self._step % every == 0)

    def _save_while_measuring(self, started: float) -> None:
        """In a signal's handler, which the other nodes know nothing of."""
        if self._out.exchange is None or self._out.exchange.is_first:
            self._save(time.monotonic() - started)
        else:
            self._out.signals.save_requested = True

    def _save(self, elapsed_seconds: float, *, together: bool = False) -> None:
        """Where all nodes come here they save together. Raises NonFiniteError where there is a NaN or an
        infinity in the state."""
        self._stepper.check_state(self._step)
        self._saves.save(self._manifest_fields(elapsed_seconds), self._stepper.arrays, together=together)

    def _manifest_fields(self, elapsed_seconds: float) -> ManifestFields:
        config, early_stop = self._config, self._early_stop
        finite_val = self._val_loss is not None and math.isfinite(self._val_loss)
        return ManifestFields(
            step=self._step,
            config=config.model_dump(mode="json"),
            tokenizer_sha256=self._data.tokenizer_sha256,
            data_sha256=self._data.fingerprint,
            seed=config.train.seed,
            train=TrainState(
                best_val_loss=early_stop.best_loss,
                best_step=early_stop.best_step,
                evals_since_best=early_stop.evals_since_best,
                val_loss=self._val_loss if finite_val else None,
                elapsed_seconds=elapsed_seconds,
                skipped_steps=self._stepper.skipped_steps,
                unmeasured=self._unmeasured,
            ),
            layout=tuple(TensorRange(**tensor._asdict()) for tensor in layout(config.model)),
        )
