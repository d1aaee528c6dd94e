"""A step report as text. Pure."""

from feste_dp.bench.step_report import Bandwidth, ExchangeReport, StepReport
from feste_dp.machine.memory import COUNTED
from feste_dp.nodes.team import node_lines, team_words
from feste_dp.run.step_times import EXCHANGE, shown_phases
from feste_dp.wording import counted

_MEANING = {
    "compute": "mean of the workers' own forward and backward",
    "wait": "for the slowest worker",
    EXCHANGE: "sum over the nodes, once all are there",
    "reduce": "sum of the gradient slots",
    "update": "norm, clip, AdamW",
    "control": "all the rest: messages, waking up, Python",
}


def step_table(report: StepReport) -> str:
    """Lines of at most 110 characters, the formula and names of CPUs apart."""
    rate, step = report.tokens_per_second, report.step_ms
    meaning = _MEANING | ({"wait": "for the slowest worker and the slowest node"} if report.nodes else {})
    lines = [
        f"machine        {report.cpu}, {report.cores} of its cores",
        f"step           {report.tokens_per_step:,} tokens in {counted(report.shards, 'shard')} on "
        f"{team_words(report.nodes, report.workers)}, {report.precision}, dropout {report.dropout:g}; "
        f"{counted(report.steps, 'step')} after "
        f"{report.warmup_steps} to warm up",
        *node_lines(report.nodes, 15),
        f"tokens/s       {rate.median:,.0f}   quartiles {rate.lower_quartile:,.0f} to "
        f"{rate.upper_quartile:,.0f}, all {rate.lowest:,.0f} to {rate.highest:,.0f}",
        f"step           {step.median:.3f} ms   quartiles {step.lower_quartile:.3f} to "
        f"{step.upper_quartile:.3f}, all {step.lowest:.3f} to {step.highest:.3f}",
        f"phases         of {report.phases_step_ms:.3f} ms, the mean of the middle half of the steps",
        *[
            f"  {name:<11}{report.phases_ms[name]:11.3f} ms "
            f"{report.phases_ms[name] / report.phases_step_ms:6.1%}   {meaning[name]}"
            for name in shown_phases([report.phases_ms])
        ],
        f"control        {report.control_us.median:,.0f} us, the median step; quartiles "
        f"{report.control_us.lower_quartile:,.0f} to {report.control_us.upper_quartile:,.0f}",
        f"arithmetic     {report.gflops_per_second_per_core:.1f} GF/s per core, "
        f"{report.share_of_peak:.1%} of the {report.peak_gflops_per_second_per_core:.1f} that the "
        f"{report.precision} micro-kernel reaches on {report.cores} cores at once",
        f"FLOPs a token  {report.flops_formula}",
        f"reduce         {_bandwidth(report.reduce)}",
        *([f"exchange       {_exchange(report.exchange)}"] if report.exchange is not None else []),
        f"update         {_bandwidth(report.update)}",
        f"memory         a triad beyond all caches moves {report.memory_gb_per_second:.1f} GB/s",
        f"peak memory    {_mib(report.memory.total_bytes)}: arena {_mib(report.memory.arena_bytes)}, "
        f"coordinator {_mib(report.memory.coordinator_bytes)}, workers "
        f"{' + '.join(map(_mib, report.memory.worker_bytes))}",
        f"               counted: {COUNTED}",
    ]
    return "\n".join(lines)


def _bandwidth(phase: Bandwidth) -> str:
    return (
        f"{phase.gb_per_second:.1f} GB/s, {phase.share_of_triad:.0%} of the {phase.triad_gb_per_second:.1f} "
        "of a triad over as many bytes"
    )


def _exchange(exchange: ExchangeReport) -> str:
    latency = f"a word to all takes {exchange.link_latency_us:,.0f} us"
    if exchange.is_small:
        return f"{exchange.bytes / 1e6:.2f} MB sent whole, at once and while others are waited for; {latency}"
    return (
        f"{exchange.gb_per_second:.2f} GB/s sent and received, {exchange.share_of_link:.0%} of a plain "
        f"stream's {exchange.link_gb_per_second:.2f}; {latency}"
    )


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
