"""Bad input: one clear line on standard error, exit status 2, and not a byte changed on disk.

Every case has a directory of its own; that a process shows no more is tried with a few.
"""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Feste, Place

LAUNCH = "launch --config CONFIG"
BENCH = "bench --config CONFIG"
PREPARE = "prepare TEXT --vocab-size 300 --out new"

# The command line, and words that its one line must hold, ` ... ` between those apart. CONFIG, TEXT, TOKENS
# and RUN are a good config, text, token data and run; `_` stands for a space inside an argument, `""` for an
# empty one.
CASES = [
    ("lauch", "did you mean ... 'launch'"),
    ("launch", "missing option '--config'"),
    ("launch --config nope.yaml", "nope.yaml: no such file"),
    ("launch --config smal.yaml", "did you mean small.yaml?"),
    ("launch --config tinny", "tinny: no such file; did you mean tiny"),
    ("launch --config xyzzy", "xyzzy: no such file and no config of that name; feste-dp configs lists them"),
    ('launch --config ""', "'--config': is empty"),
    ("launch --config .", "is a directory; give a YAML file"),
    ("launch --config empty.txt", "empty.txt: is empty"),
    ("launch --config list.yaml", "list.yaml:1:1: expected sections such as `model:`, got a list"),
    ("launch --config syntax.yaml", "syntax.yaml:3:1: YAML syntax"),
    ("launch --config latin.txt", "is not UTF-8"),
    ("launch --config binary.txt", "binary.txt"),
    ("launch --config twice.yaml", "twice.yaml:3:3: train.steps: ... twice"),
    ("launch --config tab.yaml", "tab.yaml:2:1: YAML syntax ... indent with spaces"),
    (
        "launch --config scalar.yaml",
        "scalar.yaml:1:8: model: expected the keys vocab_size, ... below it, got '7'",
    ),
    ("launch --config deep.yaml", "deep.yaml ... train.steps: expected a whole number from 1 to 1000000000"),
    ("launch --config anchor.yaml", "anchor.yaml:1 ... write the value out"),
    ("launch --config long.yaml", "long.yaml: is larger than 1 MiB; this is no config"),
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
    (f"{LAUNCH} --set optim.lr=nan", "optim.lr: expected a number above 0 and at most 10, got the text"),
    (f"{LAUNCH} --set optim.min_lr=5", "5.0 is above optim.lr ... lower one, raise the other"),
    (f"{LAUNCH} --set train.precision=fp64", "train.precision: expected fp32 or bf16, got the text 'fp64'"),
    (f"{LAUNCH} --set model.dropout=1", "model.dropout: expected a number from 0 to below 1"),
    (f"{LAUNCH} --set model.tie_embeddings=1", "expected true or false, got 1"),
    (f"{LAUNCH} --set model.n_layer=1.5", "expected a whole number from 1 to 1024, got 1.5"),
    (f"{LAUNCH} --set train.seed=-1", "expected a whole number from 0 to 9223372036854775807, got -1"),
    (
        f"{LAUNCH} --set train.micro_batch=3",
        "3 does not divide train.batch_size / train.shards ... use 1 or 2",
    ),
    (f"{LAUNCH} --set run.on_nonfinite=pray", "expected stop or skip, got the text 'pray'"),
    (
        f"{LAUNCH} --set model.n_embd=65536 --set model.n_head=1 --set model.n_layer=1024",
        "memory: ... MiB more are needed ... free memory or raise its limit, or set the model smaller",
    ),
    (f"{LAUNCH} --set train.batch_size=6", "6 is not divisible by train.shards 4"),
    (f"{LAUNCH} --set train.shards=3", "3 is not a power of two"),
    (f"{LAUNCH} --set model.n_head=3", "not divisible by model.n_head 3"),
    (f"{LAUNCH} --set run.pin=[8000]", "CPU 8000 is not among the usable ones"),
    (f"{LAUNCH} --set run.pin=[0,0]", "run.pin: CPU 0 is named twice: name it once"),
    (f"{LAUNCH} --pin 8000,8001", "--pin: CPU 8000 is not among the usable ones"),
    (f"{LAUNCH} --pin fast", "expected none, auto or CPU numbers from 0 to 8191 such as 0,2,4-7, got 'fast'"),
    (f"{LAUNCH} --pin 3-1", "expected none, auto or CPU numbers from 0 to 8191 such as 0,2,4-7, got '3-1'"),
    (f"{LAUNCH} --pin 9999", "expected none, auto or CPU numbers from 0 to 8191 such as 0,2,4-7, got '9999'"),
    (f"{LAUNCH} --name a_b", "expected at most 64 letters"),
    (f"{LAUNCH} --name it's", "expected at most 64 letters"),
    (f'{LAUNCH} --name "x"', "expected at most 64 letters"),
    (f"{LAUNCH} --name ../up", "expected at most 64 letters"),
    (f'{LAUNCH} --name ""', "expected at most 64 letters"),
    (f"{LAUNCH} --out RUN", "is not empty: give a new or empty directory; to continue its run"),
    (f"{LAUNCH} --out empty.txt", "is not a directory"),
    (f'{LAUNCH} --out ""', "'--out': is empty"),
    (f"{LAUNCH} --set run.dir=empty.txt/runs", "is not a directory"),
    (f"{LAUNCH} --set data.corpus=[nope.txt]", "nope.txt does not exist"),
    (f"{LAUNCH} --set data.corpus=[empty.txt]", "empty.txt is empty"),
    (f"{LAUNCH} --set data.corpus=[latin.txt]", "is not UTF-8 (bad byte 0xe9 at offset 3)"),
    (f"{LAUNCH} --set data.corpus=[binary.txt]", "is binary (a NUL byte"),
    (f"{LAUNCH} --set data.corpus=hollow", "holds no .txt files and no meta.json: name text files"),
    (f"{LAUNCH} --set data.corpus=[hollow]", "holds no .txt files and no meta.json: name text files"),
    (f"{LAUNCH} --set data.corpus=[pipe]", "it is a FIFO, not a regular file: name a file on disk"),
    (f"{LAUNCH} --set data.corpus=[vast.txt]", "vast.txt is binary (a NUL byte at offset 0)"),
    (f"{LAUNCH} --set data.corpus=[short.txt]", "model.vocab_size: the text yields 257 tokens"),
    (f"{LAUNCH} --set data.corpus=[short.txt] --set model.vocab_size=256", "fewer than model.block_size + 1"),
    (f"{LAUNCH} --set model.vocab_size=301", "set model.vocab_size to 300"),
    ("resume", "missing argument 'RUN'"),
    ('resume ""', "'RUN': is empty"),
    ("resume nope", "no run at nope"),
    ("resume small.yaml", "is a file: give the directory of a run"),
    ("resume RUN/checkpoints", "is inside a run"),
    ("resume TOKENS", "is not a run"),
    (
        "resume RUN --workers 5",
        "--workers: 5 is more than train.shards 4, which a run keeps; use at most 4 ... --set train.shards=8",
    ),
    ("resume RUN --pin 8000,8001", "--pin: CPU 8000 is not among the usable ones"),
    ("resume RUN --set model.n_layer=2", "a resumed run keeps these keys: model.n_layer: 1 -> 2"),
    ("resume RUN --set train.step=20", "did you mean train.steps?"),
    ("generate RUN", "missing option '--prompt' or '--prompt-file'"),
    ("generate RUN --prompt-file nope.txt", "--prompt-file: nope.txt cannot be read: No such file"),
    ("generate RUN --prompt-file .", "--prompt-file: . cannot be read: it is a directory"),
    ("generate RUN --prompt-file latin.txt", "is not UTF-8"),
    ("generate RUN --prompt-file -", "- is empty: give at least one character"),
    ("generate RUN --prompt x --top-p 0", "expected a number between 0 and 1, got '0'"),
    ("generate RUN --prompt x --min-p 2", "expected a number from 0 to 1, got '2'"),
    ("generate RUN --prompt x --repetition-penalty 0", "expected a number between 0 and 100, got '0'"),
    ("generate RUN --prompt x -n 0", "expected a whole number from 1 to 1024, got '0'"),
    ('generate RUN --prompt x --stop ""', "'--stop': is empty"),
    ('generate RUN --prompt ""', "'--prompt': is empty"),
    ("generate RUN --prompt x --tokens 0", "expected a whole number from 1 to 1000000, got '0'"),
    ("generate RUN --prompt x --temperature nan", "expected a number from 0 to 100, got 'nan'"),
    ("generate RUN --prompt x --temperature -1", "expected a number from 0 to 100, got '-1'"),
    ("generate RUN --prompt x --top-k 0", "expected a whole number from 1"),
    ("generate RUN --prompt x --seed -1", "expected a whole number from 0"),
    ("generate RUN --prompt x --checkpoint 7", "no checkpoint of that step; there are 4, 6, 8 or 12"),
    ("generate RUN --prompt x --checkpoint newest", "give best, latest or the number of a step"),
    ("generate nope --prompt x", "no run at nope"),
    ("generate RUN --prompt x --top-k many", "expected a whole number from 1"),
    ("evaluate", "missing argument 'RUN'"),
    ("evaluate nope", "no run at nope"),
    ("evaluate RUN --checkpoint 7", "no checkpoint of that step; there are 4, 6, 8 or 12"),
    ("evaluate RUN --data hollow", "hollow"),
    ("replay RUN", "missing option '--step'"),
    ("replay RUN --step 0", "expected a whole number from 1 to 1000000000, got '0'"),
    ("replay RUN --step x", "expected a whole number from 1 to 1000000000, got 'x'"),
    ("replay RUN --step 13", "--step: 13 is not a step that the run has tried; it has 1 to 12"),
    ("replay RUN --step 3 --shard 4", "--shard: 4 is not a shard of the run; it has 0 to 3"),
    ("replay RUN --step 3 --shard -1", "expected a whole number from 0 to 255, got '-1'"),
    (
        "replay RUN --step 3 --workers 5",
        "--workers: 5 is more than train.shards 4, which a run keeps; use at most 4 ... --set train.shards=8",
    ),
    ("replay nope --step 3", "there is no such directory"),
    ("evaluate RUN --workers 5", "--workers: 5 is more than train.shards 4"),
    ("evaluate RUN --data nope", "does not exist"),
    ("evaluate RUN --data OTHER_TOKENS", "made by another tokenizer"),
    ("prepare --vocab-size 300 --out new", "missing argument 'TEXT...'"),
    ("prepare TEXT --out new", "give either --vocab-size or --tokenizer"),
    ("prepare TEXT --vocab-size 300", "missing option '--out'"),
    ("prepare TEXT --vocab-size 255 --out new", "expected a whole number from 256"),
    ("prepare short.txt --vocab-size 400 --out new", "--vocab-size: the text yields 257 tokens"),
    ("prepare nope.txt --vocab-size 300 --out new", "nope.txt does not exist"),
    ("prepare . --vocab-size 300 --out new", "binary.txt is binary"),
    ("prepare empty.txt --vocab-size 300 --out new", "is empty: name a file that holds text"),
    ("prepare binary.txt --vocab-size 300 --out new", "is binary (a NUL byte at offset 0): only UTF-8 text"),
    ("prepare latin.txt --vocab-size 300 --out new", "bad byte 0xe9 at offset 3): convert it to UTF-8"),
    ("prepare cut.txt --vocab-size 300 --out new", "bad byte 0xc3 at offset 5): convert it to UTF-8"),
    (
        "prepare vast.txt --vocab-size 300 --out new",
        "vast.txt is binary (a NUL byte at offset 0)",
    ),
    ("prepare TEXT pipe --vocab-size 300 --out new", "it is a FIFO, not a regular file: name a file on disk"),
    ("prepare TEXT --vocab-size 300 --out TOKENS", "exists and is not empty"),
    ("prepare TEXT --vocab-size 300 --out empty.txt", "exists and is not empty"),
    (f"{PREPARE} --val-fraction 1", "expected a number between 0 and 1, got '1'"),
    (f"{PREPARE} --val-fraction nan", "expected a number between 0 and 1, got 'nan'"),
    ("bench", "--config: missing; give a name or a YAML file"),
    ("bench --config nope.yaml", "nope.yaml: no such file"),
    (f"{BENCH} --steps 0", "expected a whole number from 1 to 1000000, got '0'"),
    (f"{BENCH} --warmup -1", "expected a whole number from 0 to 1000000, got '-1'"),
    (f"{BENCH} --workers 5", "--workers: 5 is more than train.shards 4; use at most 4"),
    (f"{BENCH} --set train.shards=3", "3 is not a power of two"),
    (f"{BENCH} --set run.pin=[8000]", "CPU 8000 is not among the usable ones"),
    (f"{BENCH} --kernels --steps 3", "leave out --workers, --steps and --warmup"),
    ("bench --kernels --set train.step=3", "did you mean train.steps?"),
    ("config check nope", "nope: no such file and no config of that name"),
    (
        "config check misspelled.yaml",
        "misspelled.yaml:2:3: train.step: unknown key; did you mean train.steps?",
    ),
    (
        "config check CONFIG --set train.shards=3",
        "--set train.shards=3: train.shards: 3 is not a power of two",
    ),
    ("config show --set train.shards=3", "--set train.shards=3: train.shards: 3 is not a power of two"),
    ("config show RUN", "is a directory; give a YAML file, such as ... config.yaml"),
    ("config init", "missing argument 'FILE'"),
    ("config init small.yaml", "small.yaml is there already: give another name, or remove it"),
    ("config init pipe", "pipe is there already"),
    ("config init hollow", "hollow is there already"),
    ("config init new/", "new/ is the name of a folder; give that of a file"),
    ("config init none/new.yaml", "none/new.yaml cannot be written: No such file or directory"),
    ("config init new.yaml --from tinny", "tinny: no such file; did you mean tiny"),
    ("config init new.yaml --set train.shards=3", "3 is not a power of two"),
    ("config shwo tiny", "did you mean 'show'"),
    ("doctor --config nope.yaml", "nope.yaml: no such file"),
    ("doctor --workers 9", "--workers: 9 is more than train.shards 8"),
    ("configs extra", "unexpected extra argument (extra)"),
    ("checkpoint list nope", "no run at nope"),
    ("checkpoint verify TOKENS", "is not a run"),
    ("checkpoint verfy RUN", "did you mean 'verify'"),
]


BAD_FILES = {
    "empty.txt": b"",
    "list.yaml": b"- model\n",
    "syntax.yaml": b"train:\n  steps: [1\n",
    "misspelled.yaml": b"train:\n  step: 3\n",
    "twice.yaml": b"train:\n  steps: 3\n  steps: 4\n",
    "tab.yaml": b"train:\n\tsteps: 3\n",
    "scalar.yaml": b"model: 7\n",
    "deep.yaml": b"train: {steps: {more: 1}}\n",
    "anchor.yaml": b"train: &a {steps: 3}\n",
    "long.yaml": b"#" * (2**20 + 1),
    "latin.txt": b"caf\xe9\n",
    "cut.txt": b"five \xc3",
    "binary.txt": b"\0\1",
    "short.txt": b"To be, or not to be.\n",
}
VAST_BYTES = 2**40  # of a file with a hole in it, which takes no room


@dataclass(frozen=True)
class World:
    """What the words in CASES stand for."""

    root: Path
    words: dict[str, str]

    def arguments(self, line: str) -> list[str]:
        return [self._argument(word) for word in line.split()]

    def _argument(self, word: str) -> str:
        for name, path in self.words.items():
            word = path + word.removeprefix(name) if word.startswith(name) else word
        return "" if word == '""' else word.replace("_b", " b") if word == "a_b" else word


@pytest.fixture(scope="module")
def world(place: Place, tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    other, text = root / "other", root / "other.txt"
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
    return World(root, {name: str(path) for name, path in words.items()})


def listing(*roots: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below; a lock's text is no part of a run's content."""
    return {
        str(path): (path.lstat().st_size, 0 if path.is_dir() else path.lstat().st_mtime_ns)
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.name != "lock"
    }


@pytest.fixture
def here(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with bad files in it; beside it those for temporary files and for caches."""
    here = tmp_path / "here"
    for directory in (here, here / "hollow", tmp_path / "tmp"):
        directory.mkdir()
    for name, content in BAD_FILES.items():
        (here / name).write_bytes(content)
    (here / "small.yaml").write_text(Path(world.words["CONFIG"]).read_text())
    os.mkfifo(here / "pipe")
    with (here / "vast.txt").open("wb") as file:
        file.truncate(VAST_BYTES)
    monkeypatch.chdir(here)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("FESTE_DP_CACHE", str(tmp_path / "cache"))
    return here


@pytest.mark.parametrize(("line", "words"), CASES, ids=[line for line, _ in CASES])
def test_bad_input_gets_one_line_and_leaves_no_trace(
    line: str, words: str, world: World, place: Place, here: Path, feste: Feste
) -> None:
    before = listing(here.parent, place.run.parent)
    ended = feste(*world.arguments(line))
    assert listing(here.parent, place.run.parent) == before
    assert ended.status == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert re.search(".*".join(map(re.escape, words.split(" ... "))), ended.err, re.IGNORECASE)
    assert set(ended.out.splitlines()) <= {"reading the text"}


@pytest.mark.parametrize("line", ["lauch", f"{LAUNCH} --set train.shards=3", "resume RUN --set train.seed=2"])
def test_a_process_shows_no_more_than_that_line(line: str, world: World, here: Path) -> None:
    done = subprocess.run([*COMMAND, *world.arguments(line)], cwd=here, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")


def test_there_are_many_cases_and_each_command_has_some() -> None:
    commands = [line.split()[0] for line, _ in CASES]
    assert len({line for line, _ in CASES}) == len(CASES) >= 100
    assert {"launch", "resume", "generate", "evaluate", "prepare", "bench", "checkpoint"} <= set(commands)


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
        done = subprocess.run([*COMMAND, *arguments], cwd=world.root, capture_output=True)
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
        "config",
        "config show",
        "config check",
        "config schema",
        "config init",
        "configs",
        "doctor",
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
