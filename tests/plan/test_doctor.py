"""What the doctor finds: each thing that can be wrong, on a machine where it is wrong."""

import getpass
import importlib.metadata
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from feste_dp.config.loading import load_config
from feste_dp.errors import UsageError
from feste_dp.machine import versions
from feste_dp.machine.cgroup import UNLIMITED
from feste_dp.machine.clocks import read_clocks
from feste_dp.machine.limits import measure_limits
from feste_dp.machine.variables import environment_at_start
from feste_dp.plan import doctor
from feste_dp.plan.doctor import FINE, MEND, NOTE, Finding, Patient, examine
from feste_dp.plan.preflight import shortages

TOPICS = {
    *("versions", "cpu", "load", "memory", "shared memory", "open files", "processes", "runs", "temporary"),
    *("cache", "kernels", "environment", "system calls", "clocks"),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_WATCH_S", 0.01)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    (tmp_path / "home").mkdir()
    environ = {"HOME": str(tmp_path / "home"), "FESTE_DP_CACHE": str(tmp_path / "home/cache")}
    return Patient(load_config("tiny", ["run.workers=1"]), environ)


def said(findings: list[Finding], verdict: str) -> list[str]:
    return [f"{finding.about}: {finding.text}" for finding in findings if finding.verdict == verdict]


def test_a_good_machine_has_nothing_to_mend_and_every_topic_has_a_line(patient: Patient, tmp_path: Path):
    findings = examine(patient)
    assert said(findings, MEND) == []
    assert {finding.about for finding in findings} == TOPICS
    assert all(finding.text.isprintable() for finding in findings)
    assert [each.name for each in tmp_path.iterdir()] == ["home"] and not any((tmp_path / "home").iterdir())


def test_no_line_names_the_machine_or_its_user(patient: Patient):
    text = " ".join(finding.text for finding in examine(patient))
    assert patient.environ["HOME"] not in text and "~/cache" in text
    assert socket.gethostname() not in text.split()
    assert getpass.getuser() == "root" or getpass.getuser() not in text


def test_what_a_run_lacks_is_said_as_a_start_says_it(patient: Patient):
    huge = replace(patient, config=load_config("gpt2_1558m", ["train.shards=256", "train.batch_size=256"]))
    limits = replace(measure_limits(None), memory=0, descriptors=9, processes=3)
    lines = {each.line for each in shortages(huge.config, huge.workers, limits)}
    assert len(lines) == 3
    found = said(examine(huge), MEND)
    assert any(line.startswith("memory: ") and "MiB more are needed" in line for line in found)


def test_small_limits_of_a_process_are_to_be_mended(patient: Patient, monkeypatch: pytest.MonkeyPatch):
    limits = replace(measure_limits(Path("data/runs")), descriptors=9)
    monkeypatch.setattr(doctor, "measure_limits", lambda place, root: limits)
    monkeypatch.setattr(doctor, "soft_limit", lambda kind: 1000)
    found = examine(patient)
    assert any("raise it with `ulimit -n" in line for line in said(found, MEND))
    assert any(line.startswith("file size: files of 0.0 MiB at most") for line in said(found, MEND))
    assert "CPU time: a process is stopped after 1,000 s (ulimit -t)" in said(found, NOTE)
    assert found[-1].verdict == MEND  # last, to be seen


def test_variables_that_matter_are_judged_and_no_other_is_shown(patient: Patient):
    environ = {
        "FESTE_DP_FAULT": "x",
        "NUMBA_OPT": "0",
        "OMP_NUM_THREADS": "8",
        "OPENBLAS_NUM_THREADS": "1",
        "LD_PRELOAD": f"{patient.environ['HOME']}/lib.so",
        "WANDB_API_KEY": "secret",
    }
    found = examine(replace(patient, environ=patient.environ | environ))
    assert said(found, MEND) == ["environment: FESTE_DP_FAULT=x makes workers fail on purpose: unset it"]
    notes = said(found, NOTE)
    assert "environment: NUMBA_OPT=0 is ignored: the kernels are compiled in one way" in notes
    assert any(line.startswith("environment: OMP_NUM_THREADS=8: a worker has one thread") for line in notes)
    assert "environment: LD_PRELOAD=~/lib.so puts other code into every process" in notes
    assert "environment: OPENBLAS_NUM_THREADS=1" in said(found, FINE)
    assert not any("secret" in finding.text for finding in found)


def test_the_environment_is_that_which_the_user_set(tmp_path: Path):
    assert environment_at_start({"A": "1"}, tmp_path) == {"A": "1"}
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/environ").write_bytes(b"NUMBA_OPT=0\0EMPTY=\0\xff\0X=a=b\0")
    assert environment_at_start({}, tmp_path) == {"NUMBA_OPT": "0", "EMPTY": "", "X": "a=b"}


def test_a_cache_that_is_elsewhere_is_a_note_and_one_without_room_is_to_be_mended(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "file").touch()
    elsewhere = replace(patient, environ=patient.environ | {"FESTE_DP_CACHE": str(tmp_path / "file/cache")})
    found = examine(elsewhere)
    assert said(found, MEND) == []
    assert any(line.startswith("cache: wanted in ") for line in said(found, FINE))
    monkeypatch.setattr(doctor, "free_disk", lambda path: 1 << 20)
    (line,) = said(examine(patient), MEND)
    assert line.startswith("cache: ~/cache: not there yet, 1.0 MiB free: make room, or FESTE_DP_CACHE")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found_topics = {line.partition(":")[0] for line in said(examine(patient), MEND)}
    assert found_topics == {"cache", "temporary", "runs"}


def test_what_the_kernel_refuses_is_to_be_mended(patient: Patient, monkeypatch: pytest.MonkeyPatch):
    def refuse(*given: object) -> int:
        raise OSError(1, "Operation not permitted")

    def refuse_with_words() -> None:
        raise UsageError("the system call sched_setscheduler is refused")

    monkeypatch.setattr(doctor, "reserve_shared_memory", refuse)
    monkeypatch.setattr(doctor, "check_that_a_thread_may_choose_its_scheduling", refuse_with_words)
    monkeypatch.setattr(os, "pidfd_open", refuse)
    found = examine(patient)
    assert said(found, MEND) == [
        "shared memory: none can be had (Operation not permitted): allow the system call memfd_create",
        "system calls: the system call sched_setscheduler is refused",
    ]
    assert any("pidfd_open is refused" in line for line in said(found, NOTE))


def test_a_package_that_is_missing_or_too_old_is_to_be_mended(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
):
    found = {"numpy": "1.26.4", "rich": "13.10.0"}

    def version(name: str) -> str:
        if name not in found:
            raise importlib.metadata.PackageNotFoundError
        return found[name]

    needed = ["numpy>=2.0", "rich>=13.7", "pyzmq>=26", "ruff>=0.6; extra == 'test'"]
    monkeypatch.setattr(versions.importlib.metadata, "requires", lambda name: needed)
    monkeypatch.setattr(versions.importlib.metadata, "version", version)
    assert said(examine(patient), MEND) == [
        "versions: numpy 1.26.4 is too old: pip install 'numpy>=2.0'",
        "versions: pyzmq is missing: pip install 'pyzmq>=26'",
    ]


def test_a_slow_clock_and_a_wrong_date_are_notes(patient: Patient, monkeypatch: pytest.MonkeyPatch):
    clocks = replace(read_clocks(), source="hpet", reading_s=2e-6, governor="powersave", mhz=1500.0, now=0.0)
    monkeypatch.setattr(doctor, "read_clocks", lambda root: clocks)
    notes = [line for line in said(examine(patient), NOTE) if line.startswith("clocks")]
    assert notes[0] == "clocks: hpet, a look takes 2,000 ns, 1,500 MHz now, governor powersave"
    assert notes[1].startswith("clocks: the date lies before that of this program's files")


def test_a_machine_that_says_nothing_of_itself_is_looked_at_all_the_same(patient: Patient, tmp_path: Path):
    (tmp_path / "nothing").mkdir()
    found = examine(replace(patient, root=tmp_path / "nothing"))
    assert {finding.about for finding in found} == TOPICS
    assert measure_limits(None, tmp_path / "nothing").memory == UNLIMITED
    assert any("an unknown amount available" in line for line in said(found, FINE))


def test_a_cpu_without_fused_multiply_add_is_a_note(patient: Patient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "cpu_features", lambda path: ["avx"])
    assert any("no fused multiply-add" in line for line in said(examine(patient), NOTE))
    for features in (["avx", "fma"], []):
        monkeypatch.setattr(doctor, "cpu_features", lambda path, features=features: features)
        assert not any("multiply-add" in line for line in said(examine(patient), NOTE))
