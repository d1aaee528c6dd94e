"""Suggested commands are what a shell reads back as the same words, however odd the path."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.wording import command, counted, quoted

ODD = ["my run", "it's", 'a "b"', "two\nlines", "tab\there", "$HOME `id` !x", "-dash", "~", "*", "", "é",
       "\\n", "\x1b[31mred", "\u202egnp", os.fsdecode(b"caf\xe9"), "a\n1", "x'\\'\n"]  # fmt: skip


def words(line: str) -> list[bytes]:
    """What bash makes of a line."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    done = subprocess.run([bash, "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    return done.stdout.split(b"\0")[:-1]


def test_a_shell_reads_every_word_back() -> None:
    line = " ".join(map(quoted, ODD))
    assert words(line) == [os.fsencode(text) for text in ODD]
    assert "\n" not in line and "\x1b" not in line and "\u202e" not in line
    line.encode()  # no byte that is not UTF-8


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))), max_size=20))
def test_a_quoted_word_is_printable_and_stays_one_line(texts: list[str]) -> None:
    for text in texts:
        assert "\n" not in quoted(text) and "\r" not in quoted(text)


def test_a_path_that_begins_with_a_dash_is_no_option() -> None:
    assert quoted(Path("-run")) == "./-run"
    assert quoted(Path("-my run")) == "'./-my run'"


@pytest.mark.parametrize(
    ("argv", "orig", "program"),
    [
        (["/bin/feste-dp", "launch"], ["/usr/bin/python3", "/bin/feste-dp", "launch"], "/bin/feste-dp"),
        ([".venv/bin/feste-dp", "x"], ["python", ".venv/bin/feste-dp", "x"], ".venv/bin/feste-dp"),
        (["/my env/feste-dp"], ["python", "/my env/feste-dp"], "'/my env/feste-dp'"),
        (["FOUND", "x"], ["python", "FOUND", "x"], "feste-dp"),
        (["/x/feste_dp/__main__.py", "a"], ["python", "-m", "feste_dp", "a"], "python -m feste_dp"),
        (["/x/feste_dp/__main__.py"], ["a b/python", "-O", "-mfeste_dp"], "'a b/python' -O -mfeste_dp"),
        (["/somewhere/pytest"], ["python", "/somewhere/pytest"], "feste-dp"),
    ],
)
def test_the_program_is_named_as_it_was_typed(
    argv: list[str], orig: list[str], program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = tmp_path / "feste-dp"
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(found) if word == "FOUND" else word for word in argv])
    monkeypatch.setattr(sys, "orig_argv", [str(found) if word == "FOUND" else word for word in orig])
    assert command("resume", Path("a b"), "--set", "x=1") == f"{program} resume 'a b' --set x=1"


def test_an_output_that_knows_ascii_alone_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ascii:
        encoding = "ascii"

    monkeypatch.setattr(sys, "stdout", Ascii())
    assert quoted("café 1") == "$'caf\\303\\251 1'"


def test_one_is_not_many() -> None:
    assert [counted(number, "worker") for number in (0, 1, 2, 1000)] == [
        "0 workers", "1 worker", "2 workers", "1,000 workers"
    ]  # fmt: skip
