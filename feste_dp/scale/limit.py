"""Names what keeps a study's largest count from perfect scaling, by a stated rule. Pure."""

from collections.abc import Sequence

from feste_dp.run.step_times import EXCHANGE
from feste_dp.scale.study import Cause, Count, Kind, Limit, Lost
from feste_dp.wording import counted

PERFECT = 0.05
"""Share of a step: where less is lost, only more or faster cores help."""

RULE = (
    "time of a step beyond perfect scaling from the smallest count, phase by phase: compute that grew is "
    "arithmetic as far as the bare micro-kernel lost speed on as many cores at once, and memory bandwidth "
    "beyond that; reduce and update, which stream through memory, are memory bandwidth; wait is stragglers; "
    "control is control. The largest is the limit; arithmetic where less than "
    f"{PERFECT:.0%} of the step is lost; more workers than cores where there are more"
)

_RULE_OF_NODES = "; the exchange between nodes is the network"

_MEANING: dict[Cause, str] = {
    "arithmetic": "the cores multiply as fast as they can; more or faster cores would help",
    "memory bandwidth": "workers compute slower side by side, or the sum of the slots and the update do not "
    "get faster with more workers",
    "stragglers": "the slowest worker is waited for: shards that do not divide evenly, or a core that "
    "something else uses",
    "control": "messages and waking up; a larger batch or model would hide them",
    "network": "the sum over nodes takes its time whatever their number; a larger batch or a faster link "
    "would hide it",
    "more workers than cores": "workers take turns on the cores; use no more workers than cores",
}


def find_limit(kind: Kind, counts: Sequence[Count]) -> Limit | None:
    """What limits the largest of the counts; None where there is one alone."""
    if len(counts) < 2:
        return None
    first, last = counts[0], counts[-1]
    lost = lost_time(kind, first, last)
    step = sum(last.phases_ms.values())
    total = sum(part.milliseconds for part in lost)
    if last.above_cores:
        cause: Cause = "more workers than cores"
    elif total < PERFECT * step:
        cause = "arithmetic"
    else:
        cause = lost[0].cause
    rule = RULE + _RULE_OF_NODES if last.nodes is not None else RULE
    return Limit(cause, _sentence(cause, kind, counts, lost, step), rule, last.place, lost)


def lost_time(kind: Kind, first: Count, last: Count) -> list[Lost]:
    """Milliseconds of `last`'s step that perfect scaling from `first` would not take, largest cause first."""
    # work a worker has, against the smallest count: less in strong scaling, as much in weak
    work = first.place / last.place if kind == "strong" else 1.0

    def grown(phase: str) -> float:
        return last.phases_ms.get(phase, 0.0) - work * first.phases_ms.get(phase, 0.0)

    slower = first.peak_gflops_per_second_per_core / last.peak_gflops_per_second_per_core
    clock = max(0.0, min(grown("compute"), work * first.phases_ms["compute"] * (slower - 1)))
    milliseconds: dict[Cause, float] = {
        "arithmetic": clock,
        "memory bandwidth": grown("compute") - clock + grown("reduce") + grown("update"),
        "stragglers": grown("wait"),
        "control": grown("control"),
    }
    if EXCHANGE in last.phases_ms:
        milliseconds["network"] = grown(EXCHANGE)
    step = sum(last.phases_ms.values())
    found = [Lost(cause, max(0.0, ms), max(0.0, ms) / step) for cause, ms in milliseconds.items()]
    return sorted(found, key=lambda part: -part.milliseconds)


def _sentence(cause: Cause, kind: Kind, counts: Sequence[Count], lost: Sequence[Lost], step: float) -> str:
    last = counts[-1]
    total = sum(part.milliseconds for part in lost)
    parts = ", ".join(f"{part.milliseconds:.3g} ms {part.cause}" for part in lost if part.milliseconds > 0)
    text = (
        f"At {counted(last.place, last.unit)} the limit is {cause} ({_MEANING[cause]}): of a step of "
        f"{step:.3g} ms {total:.3g} ms ({total / step:.1%}) are beyond perfect {kind} scaling"
    )
    text += f": {parts}." if parts else "."
    within = [count for count in counts if not count.above_cores]
    if last.above_cores and len(within) > 1:
        inner = find_limit(kind, within)
        assert inner is not None
        text += f" {inner.sentence}"
    return text
