"""A file that is no study is refused in one line."""

import json
from pathlib import Path

import pytest

from feste_dp.errors import UsageError
from feste_dp.report.study_sections import is_study, read_study_part
from tests.report.conftest import study


def test_a_study_is_known_by_its_file_or_directory(study_directory: Path, tmp_path: Path) -> None:
    assert is_study(study_directory) and is_study(study_directory / "scaling.json")
    assert not is_study(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a scaling study"),
        ('{"format": 1}', "kind: is missing"),
        ('{"format": 7}', "not a scaling study of format 1"),
        (json.dumps(study() | {"counts": 3}), "counts: Input should be a valid list"),
        (json.dumps(study() | {"counts": []}), "a scaling study of no worker count"),
    ],
)
def test_what_is_none_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "scaling.json").write_text(content)
    with pytest.raises(UsageError, match=message) as failure:
        read_study_part(tmp_path)
    assert "\n" not in str(failure.value)


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_study_part(tmp_path / "scaling.json")


def test_a_study_of_one_count_has_no_limit(tmp_path: Path) -> None:
    one = study()
    changed = one | {"counts": one["counts"][:1], "limit": None, "fits": [], "baselines": []}  # type: ignore[index]
    (tmp_path / "scaling.json").write_text(json.dumps(changed))
    assert "scaling-speed" in read_study_part(tmp_path)
