"""events.jsonl: what happened to a run, one JSON object a line. Owns its form, not what happens.

A line holds `time` (UTC), `step` (the last finished one), `kind`, `text` (a sentence for people) and the
fields of its kind. Lines are history: a resume cuts none, it adds one. The kind `times` is where the seconds
of the steps go, in batches of about a second; after a resume those of steps done again come a second time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from feste_dp.json_text import json_text

START, RESUME = "start", "resume"
FINISH, STOP, FAIL = "finish", "stop", "fail"
TIMES = "times"
BEGINNINGS = frozenset({START, RESUME})
ENDS = frozenset({FINISH, STOP, FAIL})
LAST_STEP = 2**53
"""Beyond this no number of a step is believed: floats, which charts are made of, cannot tell them apart."""
_OWN = ("time", "step", "kind", "text")


@dataclass(frozen=True)
class Event:
    """Something that happened after `step` steps."""

    time: datetime
    step: int
    kind: str
    text: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)


def encode_event(event: Event) -> str:
    """One line of events.jsonl, without its newline."""
    moment = event.time.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
    content: dict[str, object] = {"time": f"{moment}Z", "step": event.step, "kind": event.kind}
    if event.text:
        content["text"] = event.text
    return json_text(content | dict(event.fields), default=str)


def decode_event(line: str | bytes) -> Event | None:
    """The event of a line; None for one that is none, such as a line that a damaged disk left."""
    try:
        content = json.loads(line, parse_int=_whole)
        if not 0 <= (step := int(content["step"])) <= LAST_STEP:
            return None
        moment = datetime.fromisoformat(content["time"])
        return Event(
            time=moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC),
            step=step,
            kind=str(content["kind"]),
            text=str(content.get("text", "")),
            fields={name: value for name, value in content.items() if name not in _OWN},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _whole(digits: str) -> int | float:
    """A whole number that floats can hold as well; others as JSON's other readers have them, as floats."""
    number = float(digits)
    return int(digits) if abs(number) <= LAST_STEP else number
