"""What each command prints for good input, and how it treats closed, full and narrow outputs."""

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Feste, Place
from tests.cli.terminal import Terminal


def test_launch_says_what_it_trains_and_what_came_of_it_on_a_dumb_terminal_too(
    place: Place, environ: dict[str, str], tmp_path: Path
) -> None:
    name = ["--name", "on", "--set", f"run.dir={tmp_path}/runs", "--set", "train.steps=6", "--workers", "4"]
    with Terminal(
        [*COMMAND, "launch", "--config", str(place.config), *name],
        environ=environ | {"TERM": "dumb"},
        cwd=tmp_path,
        columns=40,
    ) as terminal:
        assert terminal.finish() == 0
    assert "\x1b" not in terminal.raw
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("on-")
    for words in (
        "parameters (1 layer, 2 heads, 16 channels",
        "in 4 shards on 4 workers",
        "sample at step 6",
        f"finished after step 6, saved in {run}",
        f"-m feste_dp generate {run} --prompt",  # as it was called
    ):
        assert " ".join(words.split()) in " ".join(terminal.output.split())
    rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 7)]


@pytest.mark.parametrize("prompt", ["HAMLET.", "HAMLET.\n", "é😀日本", "To be " * 100, " "])
def test_generate_prints_the_prompt_and_ends_with_one_line_end(
    prompt: str, place: Place, feste: Feste
) -> None:
    result = feste("generate", place.run, "--prompt", prompt, "--tokens", "12")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(prompt)
    assert len(result.out) > len(prompt) + 1
    assert result.out.endswith("\n")


def test_generate_repeats_itself_with_a_seed_and_shows_control_characters(place: Place, feste: Feste) -> None:
    def write(*options: str) -> str:
        result = feste("generate", place.run, "--prompt", "a\x1b[31mb", "--tokens", "30", *options)
        assert (result.status, result.err) == (0, "")
        assert result.out.startswith("a\\x1b[31mb")
        return result.out

    assert write("--seed", "2") == write("--seed", "2") != write("--seed", "3")
    assert write("--temperature", "0") == write("--top-k", "1") == write("--temperature", "0", "--seed", "9")
    assert write("--checkpoint", "latest") == write("--checkpoint", "12")


def test_generate_writes_several_texts_and_says_why_each_ends(place: Place, feste: Feste) -> None:
    def texts(*options: str) -> list[dict[str, object]]:
        result = feste("generate", place.run, "--tokens", "20", "--json", *options)
        assert (result.status, result.err) == (0, "")
        found: list[dict[str, object]] = json.loads(result.out)["texts"]
        return found

    several = texts("--prompt", "KING.", "--prompt", "To be", "-n", "2", "--top-p", "0.9", "--min-p", "0.01")
    assert [(text["prompt"], text["sample"]) for text in several] == [
        *(("KING.", 0), ("KING.", 1)),
        *(("To be", 0), ("To be", 1)),
    ]
    assert several[2:3] == texts("--prompt", "To be", "--top-p", "0.9", "--min-p", "0.01")
    assert {text["finish"] for text in several} == {"length"} and several[0]["tokens"] == 20
    part = str(several[0]["text"])[4:7]
    (stopped,) = texts("--prompt", "KING.", "--top-p", "0.9", "--min-p", "0.01", "--stop", part)
    assert stopped["finish"] == "stop"
    assert stopped["text"] == str(several[0]["text"]).partition(part)[0]
    printed = feste("generate", place.run, "--prompt", "KING.", "--tokens", "5", "-n", "2")
    assert printed.out.startswith("--- 1 of 2 ---\nKING.") and "\n--- 2 of 2 ---\nKING." in printed.out


def test_generate_takes_its_prompt_from_a_file_or_standard_input(place: Place, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("KING.\n")

    def write(name: str) -> str:
        command = [*COMMAND, "generate", str(place.run), "--prompt-file", name, "--tokens", "9"]
        done = subprocess.run(command, input=prompt.read_text(), capture_output=True, text=True, check=True)
        return done.stdout

    assert write("-") == write(str(prompt))
    assert write("-").startswith("KING.\n")


def test_generate_into_a_closed_pipe_is_silent(place: Place) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [*COMMAND, "generate", str(place.run), "--prompt", "x", "--tokens", "3"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_generate_into_a_full_disk_says_so(place: Place, unbuffered: str) -> None:
    environ = dict(os.environ) | {"PYTHONUNBUFFERED": unbuffered}
    command = [*COMMAND, "generate", str(place.run), "--prompt", "x", "--tokens", "3"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environ)
    assert (done.returncode, done.stderr) == (1, b"error: cannot write: No space left on device\n")


def test_an_output_that_cannot_show_a_character_gets_its_escape(place: Place) -> None:
    command = [*COMMAND, "generate", str(place.run), "--prompt", "日", "--tokens", "1"]
    environ = dict(os.environ) | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environ, capture_output=True, check=True)
    assert done.stdout.startswith(b"\\u65e5")


def test_closed_standard_streams_do_no_harm(place: Place, tmp_path: Path) -> None:
    launch = [*COMMAND, "launch", "--config", str(place.config), "--out", str(tmp_path / "run")]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    done = subprocess.run([*closed, *launch, "--set", "train.steps=2"])
    assert done.returncode == 0
    assert (tmp_path / "run" / "checkpoints" / "step-00000002").is_dir()


def test_evaluate_gives_the_same_loss_for_any_worker_count(place: Place, feste: Feste) -> None:
    plain = feste("evaluate", place.run, "--checkpoint", "latest", "--workers", "1")
    assert plain.status == 0
    result = feste("evaluate", place.run, "--checkpoint", "12", "--json", "--data", place.tokens)
    fields = json.loads(result.out)
    assert fields.keys() == {"step", "loss", "perplexity", "bits_per_byte", "tokens"}
    assert plain.out.startswith(
        f"step 12: loss {fields['loss']:.4f}, perplexity {fields['perplexity']:.2f}, "
    )


def test_prepare_says_what_it_made_and_how_to_use_it(place: Place, feste: Feste, tmp_path: Path) -> None:
    out = tmp_path / "with space"
    result = feste("prepare", place.text, "--vocab-size", "280", "--out", out, "--val-fraction", "0.2")
    assert (result.status, result.err) == (0, "")
    assert "vocabulary 280" in result.out
    assert f"--set 'data.corpus={out}' --set model.vocab_size=280" in result.out
    assert {path.name for path in out.iterdir()} == {"meta.json", "tokens.bin", "tokenizer.json"}


def test_checkpoint_list_marks_the_best_and_the_latest(place: Place, feste: Feste) -> None:
    lines = feste("checkpoint", "list", place.run).out.splitlines()
    assert [line.split()[1] for line in lines] == ["4", "6", "8", "12"]
    assert "latest" in lines[-1]
    listed = json.loads(feste("checkpoint", "list", place.run, "--json").out)
    assert [each["step"] for each in listed if each["latest"]] == [12]
    assert sum(each["best"] for each in listed) == 1


def test_a_damaged_checkpoint_is_named_and_the_newest_whole_one_offered(own_run: Path, feste: Feste) -> None:
    assert feste("checkpoint", "verify", own_run).status == 0
    shard = sorted((own_run / "checkpoints" / "step-00000012").glob("*.safetensors"))[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    verified = feste("checkpoint", "verify", own_run)
    assert verified.status == 1
    assert verified.out.count("whole") == 3
    assert "DAMAGED" in verified.out
    assert shard.name in verified.out
    result = feste("generate", own_run, "--prompt", "x", "--checkpoint", "12")
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert shard.name in result.err
    assert result.err.endswith("; the newest whole one: checkpoint 8\n")


def test_a_run_without_checkpoints_says_so(own_run: Path, feste: Feste) -> None:
    for path in (own_run / "checkpoints").iterdir():
        subprocess.run(["rm", "-r", str(path)], check=True)
    result = feste("checkpoint", "verify", own_run)
    assert (result.status, result.out) == (0, "the run has no checkpoint yet\n")
    assert json.loads(feste("checkpoint", "list", own_run, "--json").out) == []
    assert feste("generate", own_run, "--prompt", "x").err.endswith("there is no checkpoint\n")


def test_two_launches_at_once_do_not_meet(place: Place, tmp_path: Path) -> None:
    command = [*COMMAND, "launch", "--config", str(place.config), "--quiet", "--workers", "1"]
    both = [
        subprocess.Popen([*command, "--set", f"run.dir={tmp_path}/runs"], stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait() for process in both] == [0, 0]
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    figures = [
        [
            (row["train_loss"], row["val_loss"])
            for row in csv.DictReader((run / "metrics.csv").read_text().splitlines())
        ]
        for run in runs
    ]
    assert figures[0] == figures[1]
