"""events.jsonl: any event comes back; what is no event is none."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.track.events import Event, decode_event, encode_event

NOON = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)


def test_a_line_says_when_in_utc_and_what() -> None:
    event = Event(NOON.astimezone(timezone(timedelta(hours=2))), 7, "save", "saved step 7", {"seconds": 0.5})
    assert json.loads(encode_event(event)) == {
        "time": "2026-01-31T12:00:00.250Z",
        "step": 7,
        "kind": "save",
        "text": "saved step 7",
        "seconds": 0.5,
    }


@given(
    step=st.integers(0, 10**9),
    kind=st.text(min_size=1),
    text=st.text(),
    fields=st.dictionaries(
        st.text().filter(lambda name: name not in ("time", "step", "kind", "text")),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text()
        | st.lists(st.integers()),
    ),
)
def test_any_event_reads_back_from_one_line(
    step: int, kind: str, text: str, fields: dict[str, object]
) -> None:
    event = Event(NOON, step, kind, text, fields)
    line = encode_event(event)
    assert "\n" not in line
    assert decode_event(line) == event


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        '{"step": 1}',
        '{"time": "x", "step": 1, "kind": "a"}',
        b"\xff\xfe{}",
        "[" * 10**5,
        '{"time": 1, "step": 1, "kind": "a"}',
        '{"time": "2026-01-31T12:00:00Z", "step": "x", "kind": "a"}',
    ],
)
def test_a_damaged_line_is_no_event(line: str | bytes) -> None:
    assert decode_event(line) is None
