import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from feste_dp.errors import UsageError
from feste_dp.files.untrusted_json import first_problem, parse_object


class Leaf(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    count: int


class Tree(BaseModel):
    leaves: list[Leaf]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"leaves": [{"count": 1}, {}]}, "leaves[1].count: is missing"),
        ({"leaves": [{"count": True}]}, "leaves[0].count: Input should be a valid integer"),
        ({"leaves": [{"count": 1, "a\x1b[2J": 0}]}, r"leaves[0].a\x1b[2J: is not a known field"),
        ({"leaves": [7]}, "leaves[0]: is not an object"),
        ([], "is not an object"),
    ],
)
def test_the_first_violation_is_named_by_its_place_without_the_value(content: object, line: str) -> None:
    with pytest.raises(ValidationError) as error:
        Tree.model_validate(content)
    assert first_problem(error.value) == line


def test_a_field_with_an_endless_name_leaves_room_for_the_reason() -> None:
    with pytest.raises(ValidationError) as error:
        Tree.model_validate({"leaves": [{"count": 1, "a" * 100_000: 0}]})
    assert first_problem(error.value).endswith("aaa: is not a known field")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' is repeated"),
        (b"[]", "is not a JSON object"),
        (b"\xff", "is not valid JSON"),
        (b"[" * 40_000, "nested too deep"),
        (b"[" * 60_000, "has more than 50000 values"),
    ],
)
def test_what_is_no_sound_object_is_refused_before_it_has_a_meaning(data: bytes, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as error:
        parse_object(data, "somewhere.json")
    assert str(error.value).startswith("somewhere.json: ") and str(error.value).isprintable()
