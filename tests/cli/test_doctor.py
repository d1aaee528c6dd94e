"""feste-dp doctor as a process: what it prints, its exit status, and that it leaves nothing behind."""

import json
import os
import subprocess
from pathlib import Path

from tests.cli.conftest import COMMAND, Feste


def test_a_process_with_small_limits_is_told_what_to_mend_and_leaves_nothing(tmp_path: Path) -> None:
    environ = dict(os.environ) | {"NUMBA_OPT": "0", "OMP_NUM_THREADS": "4"}
    shell = ["bash", "-c", 'ulimit -S -n 30 -f 1; exec "$@"', "bash", *COMMAND, "doctor"]
    done = subprocess.run(shell, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("feste-dp ") and lines[-1].startswith("2 to mend")
    assert sum(line.startswith("MEND") for line in lines) == 2
    assert any(line.startswith("note") and "NUMBA_OPT=0 is ignored" in line for line in lines)
    assert any(line.startswith("note") and "OMP_NUM_THREADS=4" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_json_has_every_finding(feste: Feste) -> None:
    made = feste("doctor", "--json", "--workers", "1")
    found = json.loads(made.out)
    assert {each["verdict"] for each in found["findings"]} <= {"fine", "note", "MEND"}
    assert made.status == any(each["verdict"] == "MEND" for each in found["findings"])
