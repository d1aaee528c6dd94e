"""A table of things that others take away from a run, and of moments at which it needs them: it goes on to
the same bits, or where it must end, saves its last finished step and says so in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from feste_dp.data.corpus import read_shakespeare
from feste_dp.kernels.code_cache import COMPILED_FOLDER, code_place
from tests.cli.taking_away import MOMENTS, REPORT_FD, STEPS, TAKEN_AT, THINGS

LIMIT_S = 120

CONFIG = """\
model: {vocab_size: 300, block_size: 16, n_layer: 1, n_head: 2, n_embd: 16, dropout: 0.1}
data: {corpus: TEXT}
train: {steps: STEPS, batch_size: 8, shards: 4}
eval: {every: 8, batches: 2}
sample: {every: 12, tokens: 8, prompt: "KING."}
checkpoint: {every: 8, keep: 5}
run: {name: taken, workers: 1}
"""

# Root owns what it makes and may do all with it; without these it is held to the modes of files.
AS_A_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
IN_A_NAMESPACE = ["unshare", "-Urm", *AS_A_USER]


@dataclass
class End:
    """What is left of a run: its exit status, its words, its states after each step, its saved ones."""

    status: int
    out: str
    err: str
    states: dict[int, str]
    saved: dict[int, str] = field(default_factory=dict)
    log: str = ""
    left_over: list[str] = field(default_factory=list)

    @property
    def last(self) -> int:
        return max(self.states, default=0)


class Cells:
    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        self._cache = folder / "cache"
        code = self._cache / COMPILED_FOLDER / code_place().path.name
        shutil.copytree(code_place().path, code)
        self._text = read_shakespeare()[:60_000]
        self.undisturbed = self.run("nothing", "end")

    def run(self, thing: str, moment: str) -> End:
        self._number += 1
        place = self._folder / str(self._number)
        for name in ("cwd", "t", "disk"):
            (place / name).mkdir(parents=True)
        cache = place / "cache"
        shutil.copytree(self._cache, cache)
        (place / "text.txt").write_text(self._text)
        config = place / "config.yaml"
        config.write_text(CONFIG.replace("TEXT", str(place / "text.txt")).replace("STEPS", str(STEPS)))
        reader, writer = os.pipe()
        environ = dict(os.environ) | {
            "FESTE_DP_CACHE": str(cache),
            "TMPDIR": str(place / "t"),
            REPORT_FD: str(writer),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        launch = ["launch", "--config", str(config), "--out", str(place / "disk/run"), "--quiet"]
        command = [*IN_A_NAMESPACE, sys.executable, "-m", "tests.cli.taking_away", thing, moment, *launch]
        with subprocess.Popen(
            command,
            cwd=place / "cwd",
            env=environ,
            pass_fds=[writer],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            os.close(writer)
            try:
                out, err = process.communicate(timeout=LIMIT_S)
            finally:
                left_over = in_session(process.pid) if process.poll() is not None else []
                process.kill()
        with os.fdopen(reader) as file:
            lines = file.read().splitlines()
        told = json.loads(lines.pop()) if lines and lines[-1].startswith("{") else {}
        assert process.returncode != 99, "\n".join(lines)
        states = {int(step): state for step, state in map(str.split, lines)}
        saved = {int(step): state for step, state in told.get("saved", {}).items()}
        shutil.rmtree(cache, ignore_errors=True)
        return End(process.returncode, out, err, states, saved, told.get("log", ""), left_over)


def in_session(leader: int) -> list[str]:
    """The processes of a session that are still there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cells]:
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("unshare and setpriv (util-linux) are not installed")
    probe = subprocess.run([*IN_A_NAMESPACE, "mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True)
    if probe.returncode:
        pytest.skip("this system allows no file system in a user namespace")
    yield Cells(tmp_path_factory.mktemp("taken"))


# Where no worker can be started, or its tokens are gone, nobody could compute the next step.
ENDS = {
    "no processes": ("recovery",),
    "ten descriptors": ("recovery",),
    "tokens cut": ("recovery", "save", "resize", "end"),
    "tokens emptied": ("recovery", "save", "resize", "end"),
    "tokens overwritten": ("recovery", "save", "resize", "end"),
}
# Where nothing can be written there is no checkpoint, and the run says so.
UNSAVED = ("run removed", "checkpoints not writable", "disk full", "no file sizes")

OFTEN = [
    ("all temporary folders", "recovery"),
    ("cache gone for good", "recovery"),
    ("no descriptors", "stop"),
    ("tokens cut", "save"),
]


@pytest.mark.parametrize(
    ("thing", "moment"),
    [
        pytest.param(thing, moment, marks=() if (thing, moment) in OFTEN else pytest.mark.long)
        for thing in THINGS
        for moment in MOMENTS
    ],
)
def test_a_run_goes_on_to_the_same_bits_or_saves_its_last_step_and_says_why_it_ends(
    cells: Cells, thing: str, moment: str
) -> None:
    end = cells.run(thing, moment)
    told = f"{end.out}\n{end.err}"
    undisturbed = cells.undisturbed.states
    assert end.states and end.states.items() <= undisturbed.items(), told
    assert end.saved.items() <= undisturbed.items(), told
    assert "Traceback" not in told + end.log and end.left_over == [], told + end.log
    if moment in ENDS.get(thing, ()):  # a start is tried three times, with a line each
        assert end.status == 1 and end.out == "", told
        assert end.last == (STEPS - 1 if moment == "end" else TAKEN_AT), told
        assert end.err.count("error: ") == 1 and end.err.count("\n") <= 4, told
        assert f"to go on after step {end.last}: " in end.err.splitlines()[-1] and end.last in end.saved, told
        return
    usual = 128 + signal.SIGTERM if moment == "stop" else 0
    assert end.status in (usual, 1) and end.last == (TAKEN_AT if moment == "stop" else STEPS), told
    if thing in UNSAVED:
        assert end.status == 1 and "which is NOT saved" in end.out and end.err.count("\n") < 9, told
    else:
        assert end.last in end.saved and "NOT saved" not in end.out and end.err.count("\n") <= 3, told
