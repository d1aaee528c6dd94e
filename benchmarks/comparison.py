"""What measured contenders amount to: medians, ratios, a table. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

OURS = "feste-dp"


@dataclass
class Contender:
    """One program in one mode, and its rounds: tokens a second of each round's median step."""

    name: str
    tokens_per_second: list[float] = field(default_factory=list)
    peak_memory_bytes: int = 0
    skipped: str | None = None

    @property
    def is_ours(self) -> bool:
        return self.name == OURS

    @property
    def is_tuned(self) -> bool:
        return "tuned" in self.name

    @property
    def median(self) -> float | None:
        return statistics.median(self.tokens_per_second) if self.tokens_per_second else None


def best(contenders: Sequence[Contender], *, tuned: bool) -> Contender | None:
    """The fastest peer, ours apart, among those that are tuned or those that are not."""
    peers = [c for c in contenders if not c.is_ours and c.is_tuned == tuned and c.median is not None]
    return max(peers, key=lambda c: c.median or 0.0, default=None)


def ratio(contenders: Sequence[Contender], peer: Contender | None) -> float | None:
    """Our median over the peer's; None where one of them is missing."""
    ours = next((c.median for c in contenders if c.is_ours), None)
    return None if ours is None or peer is None or not peer.median else ours / peer.median


def as_json(title: str, contenders: Sequence[Contender]) -> dict[str, object]:
    stock, tuned = best(contenders, tuned=False), best(contenders, tuned=True)
    return {
        "title": title,
        "contenders": [
            {
                "name": c.name,
                "tokens_per_second_median": c.median,
                "tokens_per_second_rounds": c.tokens_per_second,
                "peak_memory_bytes": c.peak_memory_bytes,
                "skipped": c.skipped,
            }
            for c in contenders
        ],
        "best_stock_peer": stock.name if stock else None,
        "ratio_to_best_stock_peer": ratio(contenders, stock),
        "best_tuned_peer": tuned.name if tuned else None,
        "ratio_to_best_tuned_peer": ratio(contenders, tuned),
    }


def table(title: str, contenders: Sequence[Contender]) -> str:
    width = max(len(c.name) for c in contenders)
    lines = [
        title,
        f"  {'':<{width}}  {'tokens/s':>9}  {'rounds':>19}  {'peak memory':>11}  {'feste-dp is':>11}",
    ]
    for c in contenders:
        if c.median is None:
            lines.append(f"  {c.name:<{width}}  skipped: {c.skipped}")
            continue
        rounds = f"{min(c.tokens_per_second):,.0f} to {max(c.tokens_per_second):,.0f}"
        against = ratio(contenders, c)
        faster = f"{against:.2f}x" if against is not None and not c.is_ours else ""
        memory = f"{c.peak_memory_bytes / 2**20:,.0f} MiB"
        lines.append(
            f"  {c.name:<{width}}  {c.median:>9,.0f}  {rounds:>19}  {memory:>11}  {faster:>11}".rstrip()
        )
    for words, tuned in (("stock", False), ("tuned", True)):
        peer = best(contenders, tuned=tuned)
        against = ratio(contenders, peer)
        if peer is not None and against is not None:
            lines.append(f"  feste-dp / best {words} peer ({peer.name}): {against:.2f}")
    return "\n".join(lines)
