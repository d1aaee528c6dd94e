"""What a study prints and writes says what is in it, with and without the drawing library."""

import csv
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from feste_dp.errors import UsageError
from feste_dp.scale import files
from feste_dp.scale.files import output_directory, write_study
from feste_dp.scale.plot import HOW_TO_INSTALL
from feste_dp.scale.study import Interval, read_study
from feste_dp.scale.table import study_csv, study_table
from tests.scale.studies import made_up_study


def test_the_table_has_every_count_baseline_fit_and_sentence():
    study = replace(made_up_study(), warnings=["the machine is busy"])
    table = study_table(study)
    for words in (
        "1,800      (1,790 to 1,810)",
        "1.800x",
        "90.0%",
        "one process",
        "PyTorch        skipped: PyTorch is not installed",
        "serial fraction 0.11 (0.1 to 0.12)",
        "128: 8,500 (8,000 to 9,000)",
        "USL            two counts cannot tell contention from coherency",
        "limit          At 2 workers 55 ms of a step are lost",
        "same bits",
        "warning        the machine is busy",
    ):
        assert words in table, words
    assert max(map(len, table.splitlines())) <= 110


def test_losses_that_differ_are_said_loudly():
    study = made_up_study()
    bad = replace(study, same_bits=replace(study.same_bits, agree=False, sentence="step 3 differs"))
    assert "NOT THE SAME   step 3 differs" in study_table(bad)


def test_a_count_above_the_cores_is_marked_and_one_round_has_no_ranges():
    study = made_up_study()
    last = replace(study.counts[1], above_cores=True, tokens_per_second=Interval(1800.0))
    table = study_table(replace(study, counts=[study.counts[0], last]))
    assert "2*" in table and "* more workers than the 2 physical cores" in table
    assert "(1,790" not in table


def test_the_csv_has_a_line_per_count_and_measured_baseline():
    rows = list(csv.DictReader(study_csv(made_up_study()).splitlines()))
    assert [(row["what"], row["workers"]) for row in rows] == [
        ("workers", "1"),
        ("workers", "2"),
        ("one process", ""),
    ]
    assert rows[1]["tokens_per_second"] == "1800.0" and rows[1]["wait_ms"] == "4.000"
    assert rows[2]["memory_mib"] == "256" and rows[2]["compute_ms"] == ""


def test_all_files_are_written_and_the_drawing_is_the_same_each_time(tmp_path: Path):
    pytest.importorskip("matplotlib")
    study = made_up_study()
    written, missing = write_study(study, tmp_path / "a")
    assert missing is None
    assert [path.name for path in written] == ["scaling.json", "scaling.csv", "scaling.svg", "scaling.png"]
    assert read_study(tmp_path / "a") == study
    write_study(study, tmp_path / "b")
    for name in ("scaling.svg", "scaling.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    svg = ElementTree.parse(tmp_path / "a" / "scaling.svg")
    assert svg.getroot().tag.endswith("svg")
    assert (tmp_path / "a" / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_rest_is_written_and_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "can_draw", lambda: False)
    written, missing = write_study(made_up_study(), tmp_path / "out")
    assert [path.name for path in written] == ["scaling.json", "scaling.csv"]
    assert missing == HOW_TO_INSTALL and "pip install 'feste-dp[plot]'" in missing


def test_a_directory_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        output_directory(tmp_path, "tiny", None)
