"""Children are the same program as their parent, whatever lies in the current folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from feste_dp.import_path import PACKAGE, import_path

# What a process is: its flags, where its modules come from, and what it finds under some names.
PROBE = """
import json, sys
def main():
    import copy, random, numpy, feste_dp
    flags = {name: getattr(sys.flags, name) for name in dir(sys.flags)
             if not name.startswith(("_", "n_", "safe_path", "count", "index"))}
    files = [module.__file__ for module in (copy, random, numpy, feste_dp)]
    print(json.dumps([flags, sys.warnoptions, sys._xoptions, sys.path, files, sys.argv[1:]]))
"""
PARENT = """
import os, subprocess, sys
sys.path.append(sys.argv.pop())
from feste_dp.import_path import leave_current_folder
leave_current_folder()
from feste_dp.runtime.child_process import child_command, child_environment
import probe
probe.main()
sys.stdout.flush()
subprocess.run(child_command("probe", *sys.argv[1:]), env=child_environment(os.environ), check=True)
"""


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        ([], {}),
        (["-OO", "-Werror::UserWarning", "-Xutf8", "-Xpycache_prefix=/nowhere", "-b", "-B"], {}),
        (["-I"], {"PYTHONPATH": "/not/taken"}),
        ([], {"PYTHONPATH": ":/named", "PYTHONOPTIMIZE": "1"}),
        ([], {"PYTHONSAFEPATH": "1"}),
    ],
)
def test_a_child_has_its_parents_flags_and_modules(tmp_path: Path, flags: list[str], environ: dict[str, str]):
    here, packages = tmp_path / "my work", tmp_path / "an entry: of the path"
    for folder in (here, packages):
        folder.mkdir()
    shadows = ["copy", "random", "numpy", "probe"] + ["feste_dp"] * ("PYTHONPATH" not in environ)
    for name in shadows:
        (here / f"{name}.py").write_text("raise SystemExit('a file of the current folder was run')")
    (packages / "probe.py").write_text(PROBE)
    done = subprocess.run(
        [sys.executable, *flags, "-P", "-c", PARENT, "an argument", str(packages)],
        cwd=here,
        env=os.environ | environ,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    parent, child = map(json.loads, done.stdout.splitlines())
    assert child == parent
    assert str(packages) in parent[3] and str(here) not in parent[3]
    assert Path(parent[4][-1]).parent == Path(PACKAGE)


def test_python_m_takes_nothing_of_the_current_folder_either(tmp_path: Path):
    for name in ("copy", "random", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the current folder was run')")
    command = [sys.executable, "-m", "feste_dp", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("path", "variable", "expected"),
    [
        (["{here}", "/a"], "", ["/a"]),
        (["", "/a"], "", ["/a"]),
        (["/a", "{here}"], ":/a", ["/a"]),
        (["{here}", "/a"], "{here}", ["{here}", "/a"]),
        (["/a", "/lib/{archive}", "{here}"], "", ["/a", "/lib/{archive}", "{here}"]),
    ],
)
def test_the_current_folder_is_imported_from_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: list[str], variable: str, expected: list[str]
):
    names = {"here": str(tmp_path), "archive": f"python3{sys.version_info.minor}.zip"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry.format(**names) for entry in path])
    monkeypatch.setenv("PYTHONPATH", variable.format(**names))
    assert import_path() == [entry.format(**names) for entry in expected]


def test_a_package_that_lies_in_the_current_folder_stays_but_comes_last(monkeypatch: pytest.MonkeyPatch):
    home = str(Path(PACKAGE).parent)
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", [home, "/a"])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert import_path() == ["/a", home]
