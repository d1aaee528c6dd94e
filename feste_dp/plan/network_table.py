"""Where the network becomes the limit, as text. Pure."""

from collections.abc import Sequence

from feste_dp.plan.network import NetworkPlan
from feste_dp.plan.step_time import Speed

_MEANING = (
    "exchange: of a step, on the most nodes. tokens: a node and step, with which it takes as long as",
    "computing; with ten times as many it takes a tenth of it. limit: nodes at which each has no more than",
    "these, and the network is the limit. Per cent: efficiency against one node, the same batch for all, as",
    "far as there is a shard for each core.",
)


def network_table(plans: Sequence[NetworkPlan], node: Speed, latency_s: float) -> str:
    """A line for each config and link."""
    counts = list(plans[0].step_s)
    head = f"{'config':<12}{'parameters':>14}{'1 node':>10}{'Gbit/s':>8}{'exchange':>10}{'tokens':>8}"
    head += f"{'limit':>8}"
    lines = [
        f"nodes of {node.cores} cores at {node.flops_per_second / 1e9:g} GF/s each and "
        f"{node.bytes_per_second / 1e9:g} GB/s of memory, latency {1e6 * latency_s:g} us; "
        f"{plans[0].tokens_per_step:,} tokens a step",
        "",
        head + "".join(f"{f'{nodes} nodes':>9}" for nodes in counts[1:]),
    ]
    for number, plan in enumerate(plans):
        is_same = number > 0 and plans[number - 1].name == plan.name
        name = (
            f"{'':36}" if is_same else f"{plan.name:<12}{plan.parameters:>14,}{_seconds(plan.step_s[1]):>10}"
        )
        cells = "".join(f"{f'{plan.efficiency(nodes):.0%}':>9}" for nodes in counts[1:])
        lines.append(
            f"{name}{plan.gbit_per_second:>8g}{_seconds(plan.exchange_s):>10}"
            f"{plan.tokens_at_the_limit:>8,.0f}{plan.limit_nodes:>8,.0f}{cells}"
        )
    return "\n".join([*lines, "", *_MEANING])


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"
