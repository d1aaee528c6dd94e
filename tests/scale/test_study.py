import json
from dataclasses import replace
from pathlib import Path

import pytest

from feste_dp.errors import UsageError
from feste_dp.scale.study import read_study, study_from_json, study_to_json
from tests.scale.studies import made_up_study


def test_a_study_comes_back_from_its_json_as_it_was():
    study = made_up_study()
    assert study_from_json(study_to_json(study)) == study


def test_a_number_that_is_none_is_null_and_named_by_the_reader():
    text = study_to_json(replace(made_up_study(), flops_per_token=float("nan")))
    assert json.loads(text)["flops_per_token"] is None
    with pytest.raises(UsageError, match="flops_per_token"):
        study_from_json(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(steps=10**19), "a figure that cannot be"),
        (lambda content: content["counts"][0].update(workers=0), "a number of workers that cannot be"),
        (lambda content: content["counts"][0]["phases_ms"].pop("compute"), "phases_ms lacks a phase"),
        (lambda content: content["counts"][0].update(peak_gflops_per_second_per_core=0), "a peak of nothing"),
        (lambda content: content.update(flops_per_token=float("inf")), "Infinity is no JSON"),
    ],
)
def test_what_no_measurement_gives_is_refused(change, words):
    content = json.loads(study_to_json(made_up_study()))
    change(content)
    with pytest.raises(UsageError, match=words):
        study_from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(format=99), "not a scaling study of format 1 (format: 99)"),
        (lambda content: content.pop("format"), "(format: None)"),
        (lambda content: content.pop("counts"), "counts: is missing"),
        (lambda content: content["counts"][1].update(workers="two"), "counts[1].workers: Input should be"),
        (lambda content: content["limit"].update(cause="the weather"), "limit.cause: Input should be"),
    ],
)
def test_json_that_is_no_study_is_refused_by_the_name_of_what_is_wrong(change, words):
    content = json.loads(study_to_json(made_up_study()))
    change(content)
    with pytest.raises(UsageError) as refused:
        study_from_json(json.dumps(content), "old.json")
    assert str(refused.value).startswith("old.json: ") and words in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "{"])
def test_any_other_text_is_refused(text):
    with pytest.raises(UsageError, match=r"feste-dp scale|not JSON"):
        study_from_json(text)


def test_a_study_is_read_from_its_file_or_its_directory(tmp_path: Path):
    file = tmp_path / "scaling.json"
    file.write_text(study_to_json(made_up_study()))
    assert read_study(file) == read_study(tmp_path) == made_up_study()
    with pytest.raises(UsageError, match="cannot be read"):
        read_study(tmp_path / "missing.json")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text"):
        read_study(tmp_path)
