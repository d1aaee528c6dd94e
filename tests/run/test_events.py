"""events.jsonl: any event comes back; what is no event is none."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.run.events import LAST_STEP, Event, decode_event, encode_event

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


# larger ones come back as floats, as JSON's other readers have them
whole = st.integers(-LAST_STEP, LAST_STEP)


@given(
    step=st.integers(0, 10**9),
    kind=st.text(min_size=1),
    text=st.text(),
    fields=st.dictionaries(
        st.text().filter(lambda name: name not in ("time", "step", "kind", "text")),
        st.none()
        | st.booleans()
        | whole
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
        | st.lists(whole),
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


@pytest.mark.parametrize("step", ["-1", "1e18", str(10**18), "9" * 400, "1e999"])
def test_the_number_of_a_step_that_cannot_be_is_not_believed(step: str) -> None:
    assert decode_event(f'{{"time": "2026-01-31T12:00:00Z", "step": {step}, "kind": "a"}}') is None


def test_a_time_without_a_zone_is_utc_and_one_beyond_the_calendar_is_none() -> None:
    event = decode_event('{"time": "2026-01-31T12:00:00.25", "step": 1, "kind": "a"}')
    assert event is not None and event.time == NOON
    assert decode_event('{"time": "0001-01-01T00:00:00+23:59", "step": 1, "kind": "a"}') is None
