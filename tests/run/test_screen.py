"""What a run prints: live, plain and quiet, with hostile text and narrow or broken outputs."""

import io
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.run.metrics import MetricsRow
from feste_dp.run.screen import (
    LiveProgress,
    PlainProgress,
    Progress,
    format_duration,
    make_progress,
    printable,
)

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HOSTILE = "[bold]To be[/bold] \x1b[31mred\x07\r\x9b\u202e :smile:\udcff\n\tindented"
SHOWN = "[bold]To be[/bold] \\x1b[31mred\\x07\\x0d\\x9b\\u202e :smile:\\udcff"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def row(step: int, val_loss: float | None = None, step_s: float = 1.0) -> MetricsRow:
    return MetricsRow(step, step * step_s, 1e-3, 3.0212, 1.0, 12345.0, val_loss)


def plain(clock: Clock | None = None) -> tuple[PlainProgress, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return PlainProgress(out, err, clock or Clock()), out, err


def live(width: int, clock: Clock | None = None) -> tuple[LiveProgress, io.StringIO]:
    out = io.StringIO()
    return LiveProgress(out, io.StringIO(), clock or Clock(), width), out


def screen(output: str, width: int) -> list[str]:
    """The lines a terminal of this width would show, from the few controls that are used."""
    lines, line, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", output):
        if part == "\n":
            line, column = line + 1, 0
            if line == len(lines):
                lines.append("")
        elif part == "\r":
            column = 0
        elif part == "\x1b[2K":
            lines[line] = ""
        elif re.fullmatch(r"\x1b\[\d+A", part):
            line -= int(part[2:-1])
        elif re.fullmatch(r"\x1b\[(\?25[lh]|[\d;]*m)", part):
            continue
        else:
            assert len(part) == 1, part
            assert column < width, f"line wraps: {lines[line]!r}"
            lines[line] = lines[line][:column].ljust(column) + part + lines[line][column + 1 :]
            column += 1
    return lines


def test_plain_prints_the_first_and_last_step_and_round_steps_between() -> None:
    progress, out, _ = plain()
    for step in range(1, 204):
        progress.step(row(step), 203)
    steps = [int(line.split()[1].split("/")[0]) for line in out.getvalue().splitlines()]
    assert steps == [1, *range(5, 204, 5), 203]


def test_plain_prints_every_evaluation_and_at_least_every_ten_seconds() -> None:
    clock = Clock()
    progress, out, _ = plain(clock)
    for step in range(1, 31):
        clock.now = 1.0 * step
        progress.step(row(step, 3.5 if step == 7 else None), 100_000, best=step == 7)
    lines = out.getvalue().splitlines()
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [1, 7, 17, 27]
    assert "val 3.5000 (best)" in lines[1]
    assert "val" not in lines[2]


def test_plain_shows_perplexity_speed_and_eta_beside_each_loss() -> None:
    progress, out, _ = plain()
    progress.step(row(1), 100)
    progress.step(row(2, val_loss=2.0), 100)
    first, second = out.getvalue().splitlines()
    assert first == "step   1/100  loss 3.0212  ppl 20.5  12,345 tok/s  elapsed 1s"
    assert second == (
        "step   2/100  loss 3.0212  ppl 20.5  val 2.0000  val ppl 7.4  12,345 tok/s  elapsed 2s  ETA 1m38s"
    )


def test_plain_prints_a_held_last_step_before_the_summary() -> None:
    progress, out, _ = plain()
    for step in range(1, 5):
        progress.step(row(step), 100_000)
    progress.finish("stopped\nsaved in x")
    lines = out.getvalue().splitlines()
    assert "step      1/100000" in lines[0]
    assert "step      4/100000" in lines[1]
    assert lines[2:] == ["stopped", "saved in x"]


def test_plain_shows_hostile_samples_escaped_and_indented() -> None:
    progress, out, _ = plain()
    progress.sample(200, HOSTILE)
    assert out.getvalue() == f"sample at step 200:\n    {SHOWN}\n    \tindented\n"


def test_quiet_prints_the_result_and_warnings_only() -> None:
    out, err = io.StringIO(), io.StringIO()
    with make_progress(True, True, out, err) as progress:
        progress.announce(["87M parameters"])
        progress.phase("compiling kernels")
        progress.step(row(1), 10)
        progress.sample(1, "text")
        progress.message("text")
        progress.warning("disk is full")
        progress.finish("done")
    assert out.getvalue() == "done\n"
    assert err.getvalue() == "warning: disk is full\n"


def test_the_form_follows_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    out = io.StringIO()
    assert type(make_progress(True, False, out, out)) is LiveProgress
    assert type(make_progress(False, False, out, out)) is PlainProgress
    assert type(make_progress(False, True, out, out)) is Progress
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_progress(True, False, out, out)) is PlainProgress


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 100, 200])
def test_live_keeps_one_line_that_never_wraps_at_any_width(width: int) -> None:
    clock = Clock()
    progress, out = live(width, clock)
    with progress:
        progress.phase("compiling kernels, which takes a while on the first start of all")
        for step in range(1, 121):
            clock.now += 0.04
            progress.step(row(step, 3.1 if step % 50 == 0 else None), 2000, best=True)
    lines = screen(out.getvalue(), width)
    assert lines[1:] in ([], [""])
    assert lines[0].strip()


def test_live_at_40_columns_shows_step_loss_and_eta() -> None:
    progress, out = live(40)
    with progress:
        progress.step(row(1198), 2000)
        progress.step(row(1199), 2000)
        progress.step(row(1200, 3.1), 2000)
    assert screen(out.getvalue(), 40)[0] == "step 1200/2000  loss 3.0212  ETA 13m20s"


def test_live_at_full_width_shows_everything_and_a_bar() -> None:
    progress, out = live(160)
    with progress:
        progress.step(row(999, 3.1), 2000, best=True)
        progress.step(row(1000), 2000)
    (line, *_) = screen(out.getvalue(), 160)
    assert line == (
        "━" * 10 + "─" * 10 + "  step 1000/2000  loss 3.0212  ppl 20.5  val 3.1000 (best)  val ppl 22.2"
        "  12,345 tok/s  elapsed 16m40s  ETA 16m40s"
    )


def test_live_samples_and_messages_scroll_above_the_line() -> None:
    progress, out = live(60)
    progress.announce(["169,728 parameters"])
    progress.step(row(1), 10)
    progress.sample(1, HOSTILE)
    progress.message("checkpoint [saved]")
    progress.warning("worker 1 is slow")
    progress.step(row(10), 10)
    progress.finish("done: loss 3.0212")
    lines = [line.rstrip() for line in screen(out.getvalue(), 60)]
    assert lines[0] == "169,728 parameters"
    assert lines[1].startswith("──") and " sample at step 1 ─" in lines[1]
    assert all(line.startswith("  ") for line in lines[2:5])
    assert "".join(lines[2:4]).replace(" ", "") == SHOWN.replace(" ", "")
    assert lines[4:7] == ["      indented", "checkpoint [saved]", "warning: worker 1 is slow"]
    assert "step 10/10" in lines[7]
    assert lines[8:] == ["done: loss 3.0212", ""]


def test_live_redraws_at_most_ten_times_a_second_but_ends_on_the_last_step() -> None:
    clock = Clock()
    progress, out = live(80, clock)
    with progress:
        for step in range(1, 1001):
            clock.now += 0.001
            progress.step(row(step), 5000)
    drawn = re.findall(r"step +(\d+)/5000", out.getvalue())
    assert len(drawn) <= 12
    assert drawn[-1] == "1000"


def test_live_shows_the_cursor_again_after_an_error() -> None:
    progress, out = live(80)
    with pytest.raises(RuntimeError), progress:
        progress.step(row(1), 10)
        raise RuntimeError
    progress.close()
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")


class Broken(io.StringIO):
    """A pipe whose reader leaves after some bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, text: str) -> int:
        self.room -= len(text)
        if self.room < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("room", [0, 30, 200])
def test_an_output_that_breaks_does_not_end_the_run(terminal: bool, quiet: bool, room: int) -> None:
    with make_progress(terminal, quiet, Broken(room), Broken(room)) as progress:
        progress.phase("compiling kernels")
        for step in range(1, 11):
            progress.step(row(step, 3.0), 10)
            progress.sample(step, "text")
            progress.warning("text")
        progress.finish("done")


@pytest.mark.parametrize("terminal", [True, False])
def test_an_ascii_output_gets_escapes_for_what_it_lacks(terminal: bool) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    with make_progress(terminal, False, out, out) as progress:
        progress.step(row(1), 10)
        progress.sample(1, "naïve ☃")
        progress.finish("done")
    text = raw.getvalue().decode("ascii")
    assert "na\\xefve \\u2603" in text
    assert "done" in text


def test_the_summary_goes_to_standard_error_where_the_output_has_no_room() -> None:
    err = io.StringIO()
    with Path("/dev/full").open("w") as full, Progress(full, err) as progress:
        progress.message("lost")
        progress.finish("finished\nto write: ...")
    assert err.getvalue() == "finished\nto write: ...\n"


def test_the_summary_is_not_said_twice() -> None:
    out, err = io.StringIO(), io.StringIO()
    with Progress(out, err) as progress:
        progress.finish("finished")
    assert (out.getvalue(), err.getvalue()) == ("finished\n", "")


@given(text=st.text() | st.text(alphabet=st.sampled_from("\x1b\x9b\r\n\t[]m0\x00\x7f\ud800a")))
def test_printable_text_holds_no_control_character_but_newline_and_tab(text: str) -> None:
    shown = printable(text)
    assert all(character in "\n\t" or character.isprintable() or ord(character) > 0x9F for character in shown)
    shown.encode()


@given(text=st.text(alphabet=st.characters(codec="utf-8"), max_size=200), width=st.integers(20, 100))
def test_no_sample_can_disturb_the_terminal(text: str, width: int) -> None:
    progress, out = live(width)
    progress.sample(1, text)
    left = ANSI.sub("", out.getvalue())
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", left)


def test_durations_read_well() -> None:
    seconds = [0, 0.4, 42, 59.6, 192, 3599.7, 3900, 86399.9, 183_600]
    expected = ["0s", "0s", "42s", "1m00s", "3m12s", "1h00m", "1h05m", "1d00h", "2d03h"]
    assert [format_duration(each) for each in seconds] == expected


NUMBERS = [0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, -1.0, 5e-324]


@pytest.mark.parametrize("width", [1, 2, 20, 10_000])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("is_live", [False, True])
def test_no_figures_and_no_terminal_are_a_fault(width: int, encoding: str, is_live: bool) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    clock = Clock()
    shown = LiveProgress(out, out, clock, width) if is_live else PlainProgress(out, out, clock)
    with shown:
        shown.announce(["model \u2501"])
        for step, x in enumerate(NUMBERS * 2, 1):
            clock.now += x if math.isfinite(x) else -1.0  # a clock that jumps, both ways
            shown.step(MetricsRow(step, x, x, x, x, x, x, "\u2501"), 8)
            shown.sample(step, "\u2501" * 50)
        shown.warning("w" * 50)
        shown.finish("done")


@given(st.floats())
def test_any_number_of_seconds_can_be_said(seconds: float) -> None:
    assert format_duration(seconds)
