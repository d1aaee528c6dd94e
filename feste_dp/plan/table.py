"""A plan as text. Pure."""

from collections.abc import Iterator

from feste_dp.machine.cgroup import UNLIMITED
from feste_dp.nodes.link_speed import sent_bytes
from feste_dp.plan.network import GBIT
from feste_dp.plan.plan import RunPlan
from feste_dp.plan.step_time import StepTime
from feste_dp.run.screen import format_duration
from feste_dp.wording import counted


def plan_table(plan: RunPlan, name: str) -> str:
    """Lines of text; what does not fit comes last, to be seen."""
    return "\n".join(
        [*_model(plan, name), *_memory(plan), *_disk(plan), *_links(plan), *_time(plan), *_verdict(plan)]
    )


def _model(plan: RunPlan, name: str) -> Iterator[str]:
    yield f"{name:<13}{plan.parameters:>15,} parameters"
    for group in plan.groups:
        yield f"  {group.name:<38}{group.parameters:>13,}  {group.parameters / plan.parameters:6.1%}"
    yield f"arithmetic   {plan.flops_formula} FLOPs a token"
    shards, workers = counted(plan.shards, "shard"), counted(plan.workers, "worker")
    if plan.nodes > 1:
        workers = f"{plan.nodes} nodes of {plan.workers} {'worker' if plan.workers == 1 else 'workers'}"
    yield f"step         {plan.tokens_per_step:,} tokens in {shards} on {workers}"
    passes = (
        ""
        if plan.passes_over_text is None
        else f", {plan.passes_over_text:.3g} passes over the training text"
    )
    steps = counted(plan.steps, "step")
    yield f"run          {steps}, {plan.tokens:,} tokens{passes}, {plan.run_flops:.3g} FLOPs"


def _memory(plan: RunPlan) -> Iterator[str]:
    each_node = " on each node" if plan.nodes > 1 else ""
    yield f"memory       {_mib(plan.memory.total)} in all{each_node}; {_available(plan.memory_available)}"
    for kind in plan.memory.kinds():
        each = (
            f"  {counted(plan.workers, 'worker')} x {_mib(kind.bytes // plan.workers)}"
            if "workers" in kind.name or kind.name == "worker processes"
            else ""
        )
        yield f"  {kind.name:<38}{_mib(kind.bytes):>13}{each}"


def _disk(plan: RunPlan) -> Iterator[str]:
    yield (
        f"disk         {_mib(plan.disk_bytes)}: at most {counted(plan.checkpoints, 'checkpoint')} of "
        f"{_mib(plan.checkpoint_bytes)}; {_available(plan.disk_available)}"
    )


def _time(plan: RunPlan) -> Iterator[str]:
    if plan.step is None or plan.tokens_per_second is None or plan.run_seconds is None:
        yield "time         not measured: see what is missing below"
        return
    step = plan.step
    yield (
        f"step time    {_milliseconds(step.total)}, {plan.tokens_per_second:,.0f} tokens/s: compute "
        f"{_milliseconds(step.compute)}, reduce {_milliseconds(step.reduce)}, {_exchange(step)}update "
        f"{_milliseconds(step.update)}, control {_milliseconds(step.control)}"
    )
    yield f"run time     about {format_duration(plan.run_seconds)}, samples and saves apart"


def _exchange(step: StepTime) -> str:
    return f"exchange {_milliseconds(step.exchange)}, " if step.exchange else ""


def _links(plan: RunPlan) -> Iterator[str]:
    if plan.links is None:
        return
    links = plan.links
    yield (
        f"links        {links.bytes_per_second / GBIT:.3g} Gbit/s each way and node, latency "
        f"{1e6 * links.latency_s:,.0f} us; {sent_bytes(plan.parameters, plan.nodes) / 1e6:,.3g} MB a step "
        "leave each node"
    )


def _verdict(plan: RunPlan) -> Iterator[str]:
    for line in plan.notes:
        yield f"note         {line}"
    for line in plan.problems:
        yield f"MISSING      {line}"
    if not plan.problems:
        yield "it fits"


def _available(count: int) -> str:
    return "no limit is known" if count >= UNLIMITED else f"{_mib(count)} are available"


def _mib(count: int) -> str:
    mib = count / 2**20
    return f"{mib:,.0f} MiB" if mib >= 10 else f"{mib:,.1f} MiB"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
