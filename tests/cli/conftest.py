"""The command feste-dp in this process and as a process, and one small trained run that all tests share."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import feste_dp.cli.commands  # noqa: F401  the compiled code stays in the user's cache, whatever a test sets
from feste_dp.cli.main import main
from feste_dp.data.corpus import read_shakespeare

COMMAND = [sys.executable, "-m", "feste_dp"]

SMALL = """\
model: {vocab_size: 300, block_size: 16, n_layer: 1, n_head: 2, n_embd: 16}
data: {corpus: TOKENS}
train: {steps: 12, batch_size: 8, shards: 4}
eval: {every: 6, batches: 2}
sample: {every: 6, tokens: 8}
checkpoint: {every: 4, keep: 5}
run: {name: small, workers: 2}
"""


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Place:
    """Files that tests may read but not change: text, its tokens, a config, and a run of 12 steps."""

    text: Path
    tokens: Path
    config: Path
    run: Path


Feste = Callable[..., Result]


@pytest.fixture
def feste(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Feste:
    """Runs the command line in this process."""

    def call(*arguments: str | Path) -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["feste-dp", *map(str, arguments)])
        handler = signal.getsignal(signal.SIGINT)
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            signal.signal(signal.SIGINT, handler)
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("place")
    made = Place(root / "text.txt", root / "tokens", root / "small.yaml", root / "run")
    made.text.write_text(read_shakespeare()[:60_000])
    made.config.write_text(SMALL.replace("TOKENS", str(made.tokens)))
    for arguments in (
        ["prepare", made.text, "--vocab-size", "300", "--out", made.tokens],
        ["launch", "--config", made.config, "--out", made.run, "--quiet"],
    ):
        subprocess.run([*COMMAND, *map(str, arguments)], check=True, capture_output=True)
    return made


@pytest.fixture
def own_run(place: Place, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may change."""
    copy = tmp_path / "own"
    shutil.copytree(place.run, copy, symlinks=True)
    return copy


@pytest.fixture
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """For a run of its own; whatever it puts in the temporary directory must be gone at the end."""
    temporary = tmp_path_factory.mktemp("t")
    yield dict(os.environ) | {"TERM": "xterm-256color", "TMPDIR": str(temporary)}
    assert list(temporary.iterdir()) == []
