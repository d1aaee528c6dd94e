"""What a run shows its user, on a terminal, in a pipe or hardly at all. Computes nothing that is kept.

Everything goes to standard output, except that the plain and the quiet form send warnings to standard
error. Nothing waits for who reads it (output.py); the run goes on where nobody does.
"""

import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from feste_dp.output import Output
from feste_dp.run.metrics import MetricsRow, perplexity
from feste_dp.run.pace import Pace

PLAIN_LINES = 50  # about as many step lines as a plain run prints, evaluations aside
PLAIN_SILENCE_S = 10.0
REDRAW_S = 0.1
BAR_WIDTH = 20

# control characters but newline and tab, line separators, bidirectional overrides, undecodable bytes
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with everything that could move a cursor, change a colour or hide other text shown as \x1b
    or \u202e; newlines and tabs stay."""

    def escaped(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

    return _UNSAFE.sub(escaped, text.replace("\r\n", "\n"))


def format_duration(seconds: float) -> str:
    """42s, 3m12s, 1h05m or 2d03h; ? for what is no time."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02d}m"
    return f"{whole // 86400}d{whole // 3600 % 24:02d}h"


class Progress:
    """The quiet form, `--quiet`, and what the others refine: the result and warnings, nothing else.

    Text may come from anywhere, the model included: it is printed escaped and never as markup.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = Output(out)
        self._err = self._out if err is out else Output(err)
        self._summary, self._lost_before = "", 0

    def announce(self, lines: Sequence[str]) -> None:
        """What is about to be trained, before the first step."""
        for line in lines:
            self.message(line)

    def phase(self, text: str) -> None:
        """What is going on while there are no steps, such as "compiling kernels"."""
        self.message(text)

    def step(self, row: MetricsRow, total_steps: int, best: bool = False) -> None:
        """A finished step; `best` marks its validation loss as the best so far."""

    def sample(self, step: int, text: str) -> None:
        """Text that the model wrote after `step`."""

    def message(self, text: str) -> None:
        """Anything else worth a line."""

    def warning(self, text: str) -> None:
        """What the user must hear even when quiet."""
        self._err.line(f"warning: {printable(text)}")

    def finish(self, summary: str) -> None:
        """The end of the run and its result, of one or more lines."""
        self._out.urgent = True
        self._summary, self._lost_before = printable(summary), self._out.lost_lines
        self._out.line(self._summary)

    def troubles(self) -> list[str]:
        """What went wrong with the screen since the last call, for the log."""
        return [*self._out.troubles(), *self._err.troubles()]

    def close(self) -> None:
        """Leaves the terminal as it was, with all that was printed on it where somebody reads; safe to call
        twice."""
        self._out.drain()
        if self._summary and self._out.lost_lines > self._lost_before:  # a full disk, a limit of file sizes
            self._err.line(self._summary)
            self._summary = ""
        self._err.drain()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class PlainProgress(Progress):
    """Lines for a pipe or a file: the first and last step, every evaluation, about fifty steps between, and
    at least one every ten seconds while there are steps."""

    def __init__(self, out: TextIO, err: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(out, err)
        self._clock = clock
        self._pace = Pace()
        self._printed_at: float | None = None
        self._held: str | None = None  # the line of the last step, where it was not printed

    def step(self, row: MetricsRow, total_steps: int, best: bool = False) -> None:
        self._pace.add(row)
        facts = _facts(row, total_steps, self._pace, row.val_loss, best)
        line = "  ".join(text for _, text in facts)
        now = self._clock()
        if (
            self._printed_at is None
            or row.step % _round_up(total_steps / PLAIN_LINES) == 0
            or row.step == total_steps
            or row.val_loss is not None
            or now - self._printed_at >= PLAIN_SILENCE_S
        ):
            self._out.line(line)
            self._printed_at, self._held = now, None
        else:
            self._held = line

    def sample(self, step: int, text: str) -> None:
        self._out.line(f"sample at step {step}:")
        for line in printable(text).split("\n"):
            self._out.line(f"    {line}".rstrip(" "))

    def message(self, text: str) -> None:
        self._out.line(printable(text))

    def finish(self, summary: str) -> None:
        if self._held is not None:
            self._out.line(self._held)
            self._held = None
        super().finish(summary)


class LiveProgress(Progress):
    """One line at the bottom of a terminal, drawn anew as steps finish; all else scrolls above it.

    It has no thread of its own: nothing moves between steps.
    """

    def __init__(
        self, out: TextIO, err: TextIO, clock: Callable[[], float] = time.monotonic, width: int | None = None
    ) -> None:
        super().__init__(out, err)
        self._clock = clock
        self._pace = Pace()
        self._drawn_at = -math.inf
        self._last_val: tuple[float, bool] | None = None
        self.console = Console(
            file=cast(TextIO, self._out), force_terminal=True, width=width,
            markup=False, emoji=False, highlight=False,
        )  # fmt: skip
        self._live: Live | None = None

    def phase(self, text: str) -> None:
        self._draw(Text(f"{printable(text)} ...", style="dim", no_wrap=True, overflow="ellipsis"))

    def step(self, row: MetricsRow, total_steps: int, best: bool = False) -> None:
        self._pace.add(row)
        if row.val_loss is not None:
            self._last_val = row.val_loss, best
        val_loss, was_best = self._last_val or (None, False)
        facts = _facts(row, total_steps, self._pace, val_loss, was_best)
        now = self._clock()
        at_once = row.val_loss is not None or now - self._drawn_at >= REDRAW_S
        if at_once:
            self._drawn_at = now
        self._draw(_StatusLine(facts, row.step / max(total_steps, 1)), at_once)

    def sample(self, step: int, text: str) -> None:
        self.console.print(Rule(Text(f"sample at step {step}"), style="dim"))
        self.console.print(Padding(Text(printable(text).expandtabs(4)), (0, 0, 0, 2), expand=False))

    def message(self, text: str) -> None:
        self._line(Text(printable(text)))

    def warning(self, text: str) -> None:
        self._line(Text(f"warning: {printable(text)}", style="yellow"))

    def finish(self, summary: str) -> None:
        self._stop_live()
        self._line(Text(printable(summary)))

    def _line(self, text: Text) -> None:
        """As one line whatever the width: the terminal folds it, and a command in it can still be copied."""
        self.console.print(text, soft_wrap=True)

    def close(self) -> None:
        self._stop_live()
        super().close()

    def _stop_live(self) -> None:
        if self._live is not None:
            live, self._live = self._live, None
            self._out.urgent = True
            live.stop()

    def _draw(self, what: "Text | _StatusLine", at_once: bool = True) -> None:
        if self._live is None:
            # standard error keeps its own way where the user sends it elsewhere
            self._live = Live(console=self.console, auto_refresh=False, redirect_stderr=sys.stderr.isatty())
            self._live.start()
        self._live.update(what, refresh=at_once)


def make_progress(
    console_is_terminal: bool, quiet: bool, out: TextIO | None = None, err: TextIO | None = None
) -> Progress:
    """The form that suits where the output goes: standard output and error unless given."""
    out = out or sys.stdout
    err = err or sys.stderr
    if quiet:
        return Progress(out, err)
    if console_is_terminal:
        live = LiveProgress(out, err)
        if not live.console.is_dumb_terminal:
            return live
    return PlainProgress(out, err)


Fact = tuple[int, str]
"""A part of a step line after its rank: where there is no room the highest rank goes first."""


def _facts(row: MetricsRow, total_steps: int, pace: Pace, val_loss: float | None, best: bool) -> list[Fact]:
    """What a step line says, in its order."""
    width = len(str(total_steps))
    facts = [
        (0, f"step {row.step:>{width}}/{total_steps}"),
        (1, f"loss {row.train_loss:.4f}"),
        (5, f"ppl {_short(row.train_perplexity)}"),
    ]
    if val_loss is not None:
        facts.append((3, f"val {val_loss:.4f}{' (best)' if best else ''}"))
        facts.append((6, f"val ppl {_short(perplexity(val_loss))}"))
    facts.append((4, f"{pace.tokens_per_second:,.0f} tok/s"))
    facts.append((7, f"elapsed {format_duration(row.elapsed_seconds)}"))
    eta = pace.eta_seconds(total_steps - row.step)
    if eta is not None:
        facts.append((2, f"ETA {format_duration(eta)}"))
    return facts


class _StatusLine:
    """As many facts, and a bar, as fit the terminal's present width on one line."""

    def __init__(self, facts: list[Fact], done: float) -> None:
        self._facts = facts
        self._done = done

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        full = round(BAR_WIDTH * min(self._done, 1.0))
        done, todo = ("=", "-") if options.ascii_only else ("━", "─")
        facts = [(8, done * full + todo * (BAR_WIDTH - full)), *self._facts]
        while len(facts) > 1 and len("  ".join(text for _, text in facts)) > options.max_width:
            facts.remove(max(facts))
        line = "  ".join(text for _, text in facts)
        yield Text(line, no_wrap=True, overflow="ellipsis")


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 1000 else f"{number:,.0f}" if number < 1e6 else f"{number:.1e}"


def _round_up(number: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 ..: steps that people like to read."""
    nice = 1
    while nice < number:
        nice = nice * 5 // 2 if str(nice)[0] == "2" else nice * 2
    return nice
