"""Where starts are disturbed: a small text and config, the outcome of a quiet run, and a fresh place for each
attempt, of which is known what must be left in it at the end."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from feste_dp.checkpoint.format import step_directory_name
from feste_dp.data.corpus import read_shakespeare
from tests.chaos.storm import Outcome, outcome_of
from tests.seccomp import Watch, kill_all

PROGRAM = [sys.executable, "-m", "feste_dp"]
STEPS = 3
LIMIT_S = 600.0
"""Without a system call that writes, or to the end of a command: only what hangs takes so long."""
GONE_S = 2.0
"""After a coordinator was killed its workers are gone within this time."""

CONFIG = """\
model: {vocab_size: 300, block_size: 16, n_layer: 1, n_head: 2, n_embd: 16}
data: {corpus: TEXT}
train: {steps: 3, batch_size: 4, shards: 2}
eval: {every: 3, batches: 1}
sample: {every: 2, tokens: 4}
checkpoint: {every: 3, keep: 1}
run: {workers: 1}
"""


class Stage:
    """What all attempts share: compiled code, a text, a config, and a quiet run of STEPS."""

    def __init__(self, folder: Path, compiled: Path) -> None:
        """compiled: the folder of folders of compiled code, which must be complete."""
        self.folder, self.compiled = folder, compiled
        self.config, self.text = folder / "config.yaml", folder / "text.txt"
        self.text.write_text(read_shakespeare()[:60_000])
        self.config.write_text(CONFIG.replace("TEXT", str(self.text)))
        self._made = 0
        place = self.place()
        place.run_launch()
        self.quiet, self.names = place.outcome(), place.names()

    def place(self) -> "Place":
        self._made += 1
        return Place(self, self.folder / f"at{self._made}")

    @functools.cached_property
    def half(self) -> Path:
        """A run that was killed after its first save."""
        place = self.place()
        command = place.launch("--set", f"checkpoint.every={STEPS - 1}")
        with Watch(command, env=place.environ, stdout=subprocess.DEVNULL) as watch:
            for _ in watch.calls(LIMIT_S):
                if (place.run / "checkpoints" / step_directory_name(STEPS - 1)).exists():
                    kill_all(watch.process.pid)
        assert watch.process.returncode < 0
        return place.run


class Place:
    """A folder for one attempt: the run to be, caches without tokens, temporary files."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage, self.folder = stage, folder
        self.run, self._cache, self._temporary = folder / "run", folder / "cache", folder / "t"
        self._temporary.mkdir(parents=True)
        self._cache.mkdir()
        (self._cache / "compiled").symlink_to(stage.compiled)
        places = {"TMPDIR": self._temporary, "FESTE_DP_CACHE": self._cache}
        self.environ = dict(os.environ) | {name: str(path) for name, path in places.items()}

    def launch(self, *more: str) -> list[str]:
        command = [*PROGRAM, "launch", "--config", str(self._stage.config), "--out", str(self.run)]
        return [*command, "--quiet", *more]

    def run_launch(self) -> None:
        """A start that nobody disturbs."""
        subprocess.run(self.launch(), env=self.environ, check=True, capture_output=True)

    def resume(self) -> list[str]:
        return [*PROGRAM, "resume", str(self.run), "--quiet"]

    def go_on(self, by_itself: bool) -> list[str]:
        """The command that goes on after a start that was ended, or begins anew."""
        if by_itself:
            return self.launch("--resume", "auto")
        return self.resume() if (self.run / "config.yaml").exists() else self.launch()

    def with_half_a_run(self) -> "Place":
        shutil.copytree(self._stage.half, self.run, symlinks=True)
        return self

    def outcome(self) -> Outcome:
        return outcome_of(self.run, STEPS)

    def names(self) -> list[str]:
        """All that lies here."""
        found = []
        for folder, folders, files in os.walk(self.folder):
            found += [os.path.relpath(os.path.join(folder, name), self.folder) for name in folders + files]  # noqa: PTH118
        return sorted(found)

    def temporary_files(self) -> list[str]:
        return sorted(path.name for path in self._temporary.iterdir())

    def check_that_nothing_is_left(self) -> None:
        """After an end that could tidy up: no temporary file, and a run or none of it."""
        assert self.temporary_files() == []
        left = [name for name in self.names() if name.endswith(".tmp")]
        assert left == []
        assert (self.run / "config.yaml").exists() or not self.run.exists(), self.names()

    def check_that_it_goes_on(self, by_itself: bool = True) -> None:
        """The next start ends with the bits of the quiet run, and leaves the files of the quiet run."""
        done = subprocess.run(self.go_on(by_itself), env=self.environ, capture_output=True, timeout=LIMIT_S)
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert done.returncode == 0 and "Traceback" not in said, f"{done.returncode}: {said}"
        assert self.outcome() == self._stage.quiet, "other weights or metrics"
        assert self.names() == self._stage.names, sorted(set(self.names()) ^ set(self._stage.names))

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def calls_of(command: Sequence[str], environ: dict[str, str]) -> int:
    """How many calls that write a command makes, undisturbed."""
    with Watch(command, env=environ, stdout=subprocess.DEVNULL) as watch:
        return sum(1 for _ in watch.calls(LIMIT_S))
