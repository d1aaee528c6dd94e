"""Every command of README, docs/, launch/ and benchmarks/ is run as it is printed.

What stands in for what is needed: the folder that they run in has shrunk copies of configs/ (the batch, its
shards and its micro-batches as they are, a small model and few steps), runs that are called RUN and RUN2,
the texts A.txt and B.txt, and a config my.yaml. Not run are commands of other programs that change the
machine (NOT_HERE): there only the files that they name are looked for.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from feste_dp.cli.commands import cli
from feste_dp.config.loading import load_config
from feste_dp.config.worker_counts import too_many_workers
from feste_dp.data.corpus import read_shakespeare

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "launch/README.md",
         ROOT / "benchmarks/README.md"]  # fmt: skip
NOT_HERE = {"sudo", "make", "podman", "sbatch", "journalctl", "pip", "tensorboard"}
PROGRAMS = {"feste-dp", "python", "xz", "bash", "launch/background.sh", "launch/scaling-study.sh"} | NOT_HERE
# Seconds each: the rest takes longer, and is run by `make test-long`.
QUICK = {"configs", "config", "generate", "checkpoint", "runs", "report", "watch"}
STEPS = 120  # the pages trace and replay steps up to that


def documented() -> list[tuple[str, str]]:
    """Page and command: lines of code blocks without their remarks, whole commands within a sentence."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.sub(r"```(?:python|yaml)?\n.*?```", "", text, flags=re.DOTALL)
        lines = re.findall(r"^    (\S.*)$", blocks, re.MULTILINE)
        lines += [" ".join(each.split()) for each in re.findall(r"`(feste-dp \w+ --config [^`]+)`", blocks)]
        for line in lines:
            command = re.sub(r"\s{2,}#? .*$| +\(Ctrl.*$", "", line)
            if command.split()[0] in PROGRAMS:
                found.append((page.name, command))
    return list(dict.fromkeys(found))


COMMANDS = documented()
OWN = [(page, command) for page, command in COMMANDS if command.startswith("feste-dp ")]


def words(command: str) -> list[str]:
    """As the shell makes them, without where the output goes."""
    named = command.replace("CONFIG", "configs/tiny.yaml").replace("my.yaml", "configs/small.yaml")
    return [word for word in shlex.split(named) if not word.startswith(">")]


def test_the_pages_have_commands() -> None:
    assert len(OWN) > 25 and len(COMMANDS) > 40
    assert {words(command)[1] for _, command in OWN} >= {"launch", "resume", "scale", "plan", "runs"}


@pytest.mark.parametrize(("page", "command"), OWN)
def test_a_documented_command_is_understood(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options and values, and the config that it names with its overrides and worker counts."""
    monkeypatch.chdir(ROOT)
    arguments = words(command)[1:]
    context = cli.make_context("feste-dp", arguments[:1])
    group: click.Command | None = cli.get_command(context, arguments[0])
    arguments = arguments[1:]
    if isinstance(group, click.Group):
        group, arguments = group.get_command(context, arguments[0]), arguments[1:]
    assert group is not None
    given = group.make_context(command, arguments, parent=context).params
    path = given.get("config_path")
    if path is None or given.get("kernels"):
        return
    config = load_config(path, given["overrides"])
    workers = max(given.get("counts") or [given.get("workers") or 1])
    assert workers <= config.train.shards, too_many_workers(workers, config.train)


@pytest.mark.parametrize(("page", "command"), [each for each in COMMANDS if each[1].split()[0] in NOT_HERE])
def test_the_files_of_a_command_of_another_program_are_there(page: str, command: str) -> None:
    named = re.findall(
        r"(?<![\w/.])(?:launch|configs)/[\w@.-]+|(?<=make )\S+|(?<=srv/feste-dp )\S+$", command
    )
    for name in named:
        if name.startswith(("launch/", "configs/")):
            assert (ROOT / name).exists(), name
        elif command.split()[0] in ("make", "sudo"):
            rules = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
            assert name.startswith("-") or re.search(rf"^{re.escape(name)}:", rules, re.MULTILINE), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the root of the repository, with small models."""
    root = tmp_path_factory.mktemp("pages")
    for name in ("launch", "benchmarks", "data/shakespeare.txt.xz"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs", root / "docs")
    (root / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.yaml"):
        text = path.read_text()
        for key, value in (("n_layer", 1), ("n_head", 1), ("n_embd", 16), ("block_size", 16),
                           ("vocab_size", 512), ("steps", STEPS)):  # fmt: skip
            text = re.sub(rf"^(  {key}:) .*$", rf"\1 {value}", text, flags=re.MULTILINE)
        (root / "configs" / path.name).write_text(text)
    shutil.copy(root / "configs/tiny.yaml", root / "my.yaml")
    for name in ("A.txt", "B.txt"):
        (root / name).write_text(read_shakespeare()[:30_000])
    (root / "data/runs").mkdir()
    for name in ("RUN", "RUN2"):
        done = run_here(f"feste-dp launch --config configs/tiny.yaml --out {name} --quiet", root)
        assert done.returncode == 0, done.stderr
    return root


def environ() -> dict[str, str]:
    """With this environment's programs; mpirun takes any user and more nodes than there are cores."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    mpirun = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
              "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}  # fmt: skip
    return dict(os.environ) | mpirun | {"PATH": path}


def run_here(command: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=root, env=environ(), capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize("command", dict.fromkeys(each for _, each in OWN if words(each)[1] in QUICK))
def test_a_quick_documented_command_does_not_fail(command: str, folder: Path) -> None:
    if " init my.yaml" in command:
        (folder / "my.yaml").unlink()
    done = run_here(command, folder)
    assert done.returncode == 0, done.stderr


def slow() -> Iterator[tuple[str, str]]:
    for page, command in COMMANDS:
        program = command.split()[0]
        if program in NOT_HERE or (program == "feste-dp" and words(command)[1] in QUICK):
            continue
        yield page, command


@pytest.mark.long
@pytest.mark.parametrize(("page", "command"), list(slow()))
def test_a_documented_command_does_not_fail(page: str, command: str, folder: Path) -> None:
    if "trackers=wandb" in command:
        pytest.importorskip("wandb")
    command = command.replace("CONFIG", "configs/tiny.yaml")
    if "benchmarks.compare" in command:  # its own sizes, minutes each: one step of the smallest
        pytest.importorskip("torch")
        command += " --config configs/tiny.yaml --steps 1 --rounds 1 --no-compile"
    if "scale" in command and "--nodes" in command:
        pytest.importorskip("mpi4py")
        command += " --repeats 1 --steps 2"
    if "data.corpus=short" in command:
        run_here(
            "head -c 60000 A.txt >short.txt; feste-dp prepare short.txt --vocab-size 512 --out short", folder
        )
    if " prepare " in command and "--out DIR" not in command:
        shutil.rmtree(folder / "short", ignore_errors=True)
        command = command.replace("1536", "512")
    if command.startswith("feste-dp workers"):
        training = subprocess.Popen(
            ["bash", "-c", "exec feste-dp resume RUN --set train.steps=1000000 --quiet"],
            cwd=folder,
            env=environ(),
        )
        try:
            deadline = time.monotonic() + 60
            while (done := run_here(command, folder)).returncode == 2 and time.monotonic() < deadline:
                time.sleep(0.5)
        finally:
            training.send_signal(signal.SIGTERM)
            training.wait()
    elif command.startswith("feste-dp dashboard"):
        pytest.importorskip("uvicorn")
        with subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=environ() | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE, text=True,
        ) as serving:  # fmt: skip
            assert serving.stdout is not None
            found = re.search(r"http://\S+", serving.stdout.readline())
            assert found is not None
            with urllib.request.urlopen(found[0], timeout=60) as answer:  # it serves
                assert answer.status == 200
            serving.send_signal(signal.SIGINT)
            assert serving.wait() == 0
        return
    else:
        done = run_here(command, folder)
    assert done.returncode == 0, done.stderr
