"""Training as a loop over its steps, in the caller's process and thread; the workers are processes as ever.

Signals are handled while a step is computed and at no other time: between steps they are the caller's.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Self, TextIO, cast

from feste_dp.api.configs import Given, config_of, overrides_of
from feste_dp.api.model import Model
from feste_dp.cache import cache_root
from feste_dp.config.schema import Config
from feste_dp.data.tokenizer import load_tokenizer
from feste_dp.errors import UsageError
from feste_dp.files.home import expand_home
from feste_dp.interruption import Interrupted
from feste_dp.run.metrics import MetricsRow
from feste_dp.run.screen import Progress, make_progress
from feste_dp.runtime.warmup import COMPILING
from feste_dp.train.launch import launched, resumed
from feste_dp.train.open_run import OpenRun
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings

Step = MetricsRow
"""A finished step: step, train_loss, learning_rate, grad_norm, tokens_per_second, elapsed_seconds; val_loss
and sample where they were due."""
Begin = Callable[[Surroundings], contextlib.AbstractContextManager[OpenRun | None]]


def train(
    config: Given,
    overrides: Mapping[str, object] | None = None,
    *,
    workers: int | None = None,
    out: str | Path | None = None,
    show: bool = False,
) -> "Training":
    """Starts a new run; iterate over it to train.

    config is the name of a preset, a path, a dict of sections or a Config; overrides change keys of it, such
    as {"train.steps": 100}. workers is the number of processes, one a usable core unless given. The run is
    written to `out`, or to a new directory in run.dir. With show, it prints what `feste-dp launch` prints.
    Raises UsageError with nothing created, and RunError.
    """
    settings = config_of(config, overrides, workers)
    place = None if out is None else Path(expand_home(str(out)))
    return Training(lambda around: launched(settings, place, around), show)


def resume(
    run: str | Path,
    overrides: Mapping[str, object] | None = None,
    *,
    workers: int | None = None,
    show: bool = False,
) -> "Training":
    """Goes on with a run after its newest checkpoint, as `feste-dp resume` does; iterate over it to train."""
    place, changes = Path(expand_home(str(run))), overrides_of(overrides)
    return Training(lambda around: resumed(place, workers, changes, around), show)


class Training(Iterator[Step]):
    """A run under way: each item is a finished step with its metrics.

    Leaving the loop stops the run: the last step is saved, the workers end. It does so by itself where
    nothing else holds this object, as in `for step in train(...)`; else call close(), or use `with`. Ctrl-C
    finishes the step, saves, ends the workers and raises KeyboardInterrupt. In another thread than the main
    one it is the main thread's, and the thread that began the run must live as long as its workers are to.
    """

    def __init__(self, begin: Begin, show: bool) -> None:
        self._process = os.getpid()
        self._stack, self._signals = contextlib.ExitStack(), StopSignals()
        self._steps: Generator[Step, None, None] | None = None
        self._opened: OpenRun | None = None
        out, err = (cast(TextIO, _WithoutDescriptor(each)) for each in (sys.stdout, sys.stderr))
        progress = make_progress(False, False, out, err) if show else _Quiet(out, err)
        around = Surroundings(os.environ, cache_root(os.environ), progress, self._signals)
        at_exit = weakref.WeakMethod(self.close)
        atexit.register(_close_at_exit, at_exit)
        self._stack.callback(atexit.unregister, at_exit)
        with self._undone_by_failure():
            self._stack.enter_context(progress)
            self._opened = self._stack.enter_context(begin(around))
            if self._opened is not None:
                self._steps = self._opened.steps()

    @property
    def directory(self) -> Path:
        """Of the run."""
        return self._run.held.path

    @property
    def config(self) -> Config:
        """The run's, with every default filled in."""
        return self._run.prepared.config

    @property
    def model(self) -> Model:
        """The model as it is now: its weights change with every step."""
        run = self._run
        tokenizer = load_tokenizer(run.prepared.data.tokenizer_path)
        return Model(run.prepared.config.model, run.trainer.params, tokenizer)

    @property
    def _run(self) -> OpenRun:
        if self._opened is None:
            raise UsageError("the run has done all its steps: there is nothing left to train")
        return self._opened

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Step:
        if self._steps is None:
            raise StopIteration
        with self._undone_by_failure():
            step = next(self._steps, None)
        if step is None:
            self.close()
            self._pass_on()
            raise StopIteration
        return step

    def close(self) -> None:
        """Stop: save the last step, end the workers. Safe to call twice."""
        if self._process != os.getpid():
            return  # of a copy in a process that was forked
        with self._undone_by_failure():
            steps, self._steps = self._steps, None
            if steps is not None:
                steps.close()
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    @contextlib.contextmanager
    def _undone_by_failure(self) -> Iterator[None]:
        """With the signals handled, where they are ours to handle; whatever is raised ends the run."""
        is_main = threading.current_thread() is threading.main_thread()
        with self._signals if is_main else contextlib.nullcontext():
            try:
                yield
            except BaseException as error:
                self._steps = None
                self._stack.__exit__(type(error), error, error.__traceback__)
                if not isinstance(error, Interrupted):
                    raise
                interrupted = error.signum
            else:
                return
        self._signals.stop_signal = interrupted
        self._pass_on()

    def _pass_on(self) -> None:
        """A signal that stopped the run is then what it would have been without one."""
        signum, self._signals.stop_signal = self._signals.stop_signal, None
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        if signum is not None:
            signal.raise_signal(signum)


def _close_at_exit(close: "weakref.WeakMethod[Callable[[], None]]") -> None:
    if (method := close()) is not None:
        method()


class _WithoutDescriptor:
    """Writes where the caller's prints go, which in a notebook is no file."""

    def __init__(self, stream: TextIO) -> None:
        self.write, self.flush = stream.write, stream.flush
        self.encoding = getattr(stream, "encoding", None) or "utf-8"


class _Quiet(Progress):
    """Warnings, and why a first start takes long."""

    def phase(self, text: str) -> None:
        if text == COMPILING:
            self._err.line(text)

    def finish(self, summary: str) -> None:
        pass
