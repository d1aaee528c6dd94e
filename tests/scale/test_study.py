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


def test_a_number_that_is_none_is_not_written():
    with pytest.raises(ValueError, match="JSON"):
        study_to_json(replace(made_up_study(), flops_per_token=float("nan")))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.update(format=99), "not a scaling study of format 1 (format: 99)"),
        (lambda content: content.pop("format"), "(format: None)"),
        (lambda content: content.pop("counts"), "counts: Field required"),
        (lambda content: content["counts"][1].update(workers="two"), "counts.1.workers: Input should be"),
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
