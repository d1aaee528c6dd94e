"""Bad input: one clear line on standard error, exit status 2, and not a byte changed on disk."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Feste, Place

LAUNCH = "launch --config CONFIG"
BENCH = "bench --config CONFIG"
PREPARE = "prepare TEXT --vocab-size 300 --out new"

# The command line, and words that its one line must hold. CONFIG, TEXT, TOKENS and RUN are a good config,
# text, token data and run; `_` stands for a space inside an argument, `""` for an empty one.
CASES = [
    ("lauch", "did you mean 'launch'"),
    ("launch", "missing option '--config'"),
    ("launch --config nope.yaml", "nope.yaml: no such file"),
    ("launch --config smal.yaml", "did you mean small.yaml?"),
    ('launch --config ""', "'--config': is empty"),
    ("launch --config .", "is a directory; give a YAML file"),
    ("launch --config empty.txt", "empty.txt: is empty"),
    ("launch --config list.yaml", "list.yaml:1:1: expected sections such as `model:`, got a list"),
    ("launch --config syntax.yaml", "syntax.yaml:3:1: YAML syntax"),
    ("launch --config latin.txt", "is not UTF-8"),
    (
        "launch --config misspelled.yaml",
        "misspelled.yaml:2:3: train.step: unknown key; did you mean train.steps?",
    ),
    (f"{LAUNCH} --wrokers 2", "did you mean '--workers'"),
    (f"{LAUNCH} extra", "unexpected extra argument (extra)"),
    (f"{LAUNCH} --workers 0", "expected a whole number from 1 to 256, got '0'"),
    (f"{LAUNCH} --workers -1", "expected a whole number from 1 to 256, got '-1'"),
    (f"{LAUNCH} --workers two", "expected a whole number from 1 to 256, got 'two'"),
    (f"{LAUNCH} --workers 5", "--workers: 5 is more than train.shards 4; use at most 4"),
    (f"{LAUNCH} --set", "option '--set' requires an argument"),
    (f"{LAUNCH} --set steps", "expected section.key=value"),
    (f"{LAUNCH} --set optm.lr=1", "did you mean"),
    (f"{LAUNCH} --set train.steps=many", "expected a whole number from 1 to 1000000000"),
    (f"{LAUNCH} --set train.steps=0", "expected a whole number from 1 to 1000000000, got 0"),
    (f"{LAUNCH} --set train.steps=", "train.steps: no value after ="),
    (f"{LAUNCH} --set optim.lr=nan", "optim.lr"),
    (f"{LAUNCH} --set train.batch_size=6", "6 is not divisible by train.shards 4"),
    (f"{LAUNCH} --set train.shards=3", "3 is not a power of two"),
    (f"{LAUNCH} --set model.n_head=3", "not divisible by model.n_head 3"),
    (f"{LAUNCH} --set run.pin=[8000]", "CPU 8000 is not among the usable ones"),
    (f"{LAUNCH} --name a_b", "expected at most 64 letters"),
    (f"{LAUNCH} --name it's", "expected at most 64 letters"),
    (f'{LAUNCH} --name "x"', "expected at most 64 letters"),
    (f"{LAUNCH} --name ../up", "expected at most 64 letters"),
    (f'{LAUNCH} --name ""', "expected at most 64 letters"),
    (f"{LAUNCH} --out RUN", "is not empty: give --out a new or empty directory; to continue its run"),
    (f"{LAUNCH} --out empty.txt", "is not a directory"),
    (f'{LAUNCH} --out ""', "'--out': is empty"),
    (f"{LAUNCH} --set run.dir=empty.txt/runs", "is not a directory"),
    (f"{LAUNCH} --set data.corpus=[nope.txt]", "nope.txt does not exist"),
    (f"{LAUNCH} --set data.corpus=[empty.txt]", "empty.txt is empty"),
    (f"{LAUNCH} --set data.corpus=[latin.txt]", "is not UTF-8 (bad byte 0xe9 at offset 3)"),
    (f"{LAUNCH} --set data.corpus=[binary.txt]", "is binary (a NUL byte"),
    (f"{LAUNCH} --set data.corpus=[short.txt]", "set model.vocab_size to"),
    (f"{LAUNCH} --set data.corpus=[short.txt] --set model.vocab_size=256", "fewer than model.block_size + 1"),
    (f"{LAUNCH} --set model.vocab_size=301", "set model.vocab_size to 300"),
    ("resume", "missing argument 'RUN'"),
    ('resume ""', "'RUN': is empty"),
    ("resume nope", "no run at nope"),
    ("resume small.yaml", "is a file: give the directory of a run"),
    ("resume RUN/checkpoints", "is inside a run"),
    ("generate RUN", "missing option '--prompt'"),
    ('generate RUN --prompt ""', "'--prompt': is empty"),
    ("generate RUN --prompt x --tokens 0", "expected a whole number from 1 to 1000000, got '0'"),
    ("generate RUN --prompt x --temperature nan", "expected a number from 0 to 100, got 'nan'"),
    ("generate RUN --prompt x --temperature -1", "expected a number from 0 to 100, got '-1'"),
    ("generate RUN --prompt x --top-k 0", "expected a whole number from 1"),
    ("generate RUN --prompt x --seed -1", "expected a whole number from 0"),
    ("generate RUN --prompt x --checkpoint 7", "no checkpoint of that step; there are 4, 6, 8 or 12"),
    ("generate RUN --prompt x --checkpoint newest", "give best, latest or the number of a step"),
    ("generate nope --prompt x", "no run at nope"),
    ("replay RUN", "missing option '--step'"),
    ("replay RUN --step 0", "expected a whole number from 1 to 1000000000, got '0'"),
    ("replay RUN --step x", "expected a whole number from 1 to 1000000000, got 'x'"),
    ("replay RUN --step 13", "--step: 13 is not a step that the run has tried; it has 1 to 12"),
    ("replay RUN --step 3 --shard 4", "--shard: 4 is not a shard of the run; it has 0 to 3"),
    ("replay RUN --step 3 --shard -1", "expected a whole number from 0 to 255, got '-1'"),
    ("replay RUN --step 3 --workers 5", "--workers: 5 is more than train.shards 4; use at most 4"),
    ("replay nope --step 3", "there is no such directory"),
    ("evaluate RUN --workers 5", "--workers: 5 is more than train.shards 4"),
    ("evaluate RUN --data nope", "does not exist"),
    ("evaluate RUN --data OTHER_TOKENS", "made by another tokenizer"),
    ("prepare --vocab-size 300 --out new", "missing argument 'TEXT...'"),
    ("prepare TEXT --out new", "missing option '--vocab-size'"),
    ("prepare TEXT --vocab-size 300", "missing option '--out'"),
    ("prepare TEXT --vocab-size 255 --out new", "expected a whole number from 256"),
    ("prepare short.txt --vocab-size 400 --out new", "set --vocab-size to"),
    ("prepare nope.txt --vocab-size 300 --out new", "nope.txt does not exist"),
    ("prepare . --vocab-size 300 --out new", "is a directory: name the files in it"),
    ("prepare TEXT --vocab-size 300 --out TOKENS", "exists and is not empty"),
    ("prepare TEXT --vocab-size 300 --out empty.txt", "exists and is not empty"),
    (f"{PREPARE} --val-fraction 1", "expected a number between 0 and 1, got '1'"),
    (f"{PREPARE} --val-fraction nan", "expected a number between 0 and 1, got 'nan'"),
    ("bench", "--config: missing; give a YAML file"),
    ("bench --config nope.yaml", "nope.yaml: no such file"),
    (f"{BENCH} --steps 0", "expected a whole number from 1 to 1000000, got '0'"),
    (f"{BENCH} --warmup -1", "expected a whole number from 0 to 1000000, got '-1'"),
    (f"{BENCH} --workers 5", "--workers: 5 is more than train.shards 4; use at most 4"),
    (f"{BENCH} --set train.shards=3", "3 is not a power of two"),
    (f"{BENCH} --set run.pin=[8000]", "CPU 8000 is not among the usable ones"),
    (f"{BENCH} --kernels --steps 3", "leave out --workers, --steps and --warmup"),
    ("bench --kernels --set train.step=3", "did you mean train.steps?"),
    ("checkpoint list nope", "no run at nope"),
    ("checkpoint verify TOKENS", "is not a run"),
    ("checkpoint verfy RUN", "did you mean 'verify'"),
]


@dataclass(frozen=True)
class World:
    """A directory with bad files in it, and what the words in CASES stand for."""

    here: Path
    words: dict[str, str]

    def arguments(self, line: str) -> list[str]:
        return [self._argument(word) for word in line.split()]

    def _argument(self, word: str) -> str:
        for name, path in self.words.items():
            word = path + word.removeprefix(name) if word.startswith(name) else word
        return "" if word == '""' else word.replace("_b", " b") if word == "a_b" else word


@pytest.fixture(scope="module")
def world(place: Place, tmp_path_factory: pytest.TempPathFactory) -> World:
    here = tmp_path_factory.mktemp("world")
    for name, content in {
        "small.yaml": place.config.read_bytes(),
        "empty.txt": b"",
        "list.yaml": b"- model\n",
        "syntax.yaml": b"train:\n  steps: [1\n",
        "misspelled.yaml": b"train:\n  step: 3\n",
        "latin.txt": b"caf\xe9\n",
        "binary.txt": b"\0\1",
        "short.txt": b"To be, or not to be.\n",
    }.items():
        (here / name).write_bytes(content)
    other = here / "other"
    text = here / "other.txt"
    text.write_text(place.text.read_text().upper())
    command = [*COMMAND, "prepare", str(text), "--vocab-size", "300", "--out", str(other)]
    subprocess.run(command, check=True, capture_output=True)
    words = {
        "CONFIG": place.config,
        "TEXT": place.text,
        "TOKENS": place.tokens,
        "RUN": place.run,
        "OTHER_TOKENS": other,
    }
    return World(here, {name: str(path) for name, path in words.items()})


def listing(*roots: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below; a lock's text is no part of a run's content."""
    return {
        str(path): (path.lstat().st_size, 0 if path.is_dir() else path.lstat().st_mtime_ns)
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.name != "lock"
    }


@pytest.mark.parametrize(("line", "words"), CASES, ids=[line for line, _ in CASES])
def test_bad_input_gets_one_line_and_leaves_no_trace(
    line: str, words: str, world: World, place: Place, feste: Feste, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.here)
    monkeypatch.setenv("FESTE_DP_CACHE", str(world.here / "cache"))
    before = listing(world.here, place.run.parent)
    result = feste(*world.arguments(line))
    assert listing(world.here, place.run.parent) == before
    assert result.status == 2
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert words.lower() in result.err.lower()
    assert set(result.out.splitlines()) <= {"reading the text"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.n_layer=2", "a resumed run keeps these keys: model.n_layer: 1 -> 2"),
        ("train.seed=2", "a resumed run keeps these keys: train.seed: 1 -> 2"),
        ("run.workers=5", "5 is more than train.shards 4"),
    ],
)
def test_resume_refuses_what_a_run_keeps_and_changes_nothing(
    override: str, words: str, own_run: Path, feste: Feste
) -> None:
    before = listing(own_run)
    result = feste("resume", own_run, "--set", override)
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert words in result.err
    assert listing(own_run) == before


def test_a_resume_with_nothing_to_do_keeps_the_config(own_run: Path, feste: Feste) -> None:
    config = (own_run / "config.yaml").read_bytes()
    result = feste("resume", own_run, "--set", "optim.lr=0.5", "--quiet")
    assert result.status == 0
    assert "nothing to do" in result.out
    assert (own_run / "config.yaml").read_bytes() == config
    assert feste("resume", own_run, "--quiet").status == 0


def test_bytes_that_are_no_text_never_become_a_traceback(world: World, place: Place) -> None:
    for arguments in (
        ["generate", place.run, "--prompt", b"\xff"],
        ["resume", b"no\xffrun\n\x1b[31m"],
        ["launch", "--config", b"\xff.yaml"],
        ["launch", "--config", place.config, "--set", b"run.name=\xff"],
    ):
        done = subprocess.run([*COMMAND, *arguments], cwd=world.here, capture_output=True)
        assert done.returncode == 2
        assert done.stderr.startswith(b"error: ")
        assert done.stderr.count(b"\n") == 1
        assert b"\x1b" not in done.stderr
        assert done.stdout == b""


def test_the_commands_alone_explain_themselves(feste: Feste) -> None:
    for command in ([], ["checkpoint"]):
        result = feste(*command)
        assert result.status == 2
        assert "Commands:" in result.err


@pytest.mark.parametrize(
    "command",
    [
        "",
        "launch",
        "resume",
        "generate",
        "evaluate",
        "prepare",
        "checkpoint",
        "checkpoint list",
        "checkpoint verify",
        "bench",
    ],
)
def test_each_help_shows_an_example(command: str, feste: Feste) -> None:
    result = feste(*command.split(), "--help")
    assert result.status == 0
    assert "Example" in result.out
    assert f"feste-dp {command}".strip() in result.out.partition("Example")[2]
    assert all(len(line) <= 100 for line in result.out.splitlines())
    assert os.linesep * 3 not in result.out
