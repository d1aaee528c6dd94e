"""A step report as text. Pure."""

from feste_dp.bench.step_report import Bandwidth, StepReport
from feste_dp.machine.memory import COUNTED
from feste_dp.run.step_times import PHASES
from feste_dp.wording import counted

_MEANING = {
    "compute": "mean of the workers' own forward and backward",
    "wait": "for the slowest worker",
    "reduce": "sum of the gradient slots",
    "update": "norm, clip, AdamW",
    "control": "all the rest: messages, waking up, Python",
}


def step_table(report: StepReport) -> str:
    """Lines of at most 110 characters, the formula and names of CPUs apart."""
    rate, step = report.tokens_per_second, report.step_ms
    lines = [
        f"machine        {report.cpu}, {report.cores} of its cores",
        f"step           {report.tokens_per_step:,} tokens in {counted(report.shards, 'shard')} on "
        f"{counted(report.workers, 'worker')}, {report.precision}, dropout {report.dropout:g}; "
        f"{counted(report.steps, 'step')} after "
        f"{report.warmup_steps} to warm up",
        f"tokens/s       {rate.median:,.0f}   quartiles {rate.lower_quartile:,.0f} to "
        f"{rate.upper_quartile:,.0f}, all {rate.lowest:,.0f} to {rate.highest:,.0f}",
        f"step           {step.median:.3f} ms   quartiles {step.lower_quartile:.3f} to "
        f"{step.upper_quartile:.3f}, all {step.lowest:.3f} to {step.highest:.3f}",
        f"phases         of {report.phases_step_ms:.3f} ms, the mean of the middle half of the steps",
        *[
            f"  {name:<11}{report.phases_ms[name]:11.3f} ms "
            f"{report.phases_ms[name] / report.phases_step_ms:6.1%}   {_MEANING[name]}"
            for name in PHASES
        ],
        f"control        {report.control_us.median:,.0f} us, the median step; quartiles "
        f"{report.control_us.lower_quartile:,.0f} to {report.control_us.upper_quartile:,.0f}",
        f"arithmetic     {report.gflops_per_second_per_core:.1f} GF/s per core, "
        f"{report.share_of_peak:.1%} of the {report.peak_gflops_per_second_per_core:.1f} that the "
        f"{report.precision} micro-kernel reaches on {report.cores} cores at once",
        f"FLOPs a token  {report.flops_formula}",
        f"reduce         {_bandwidth(report.reduce)}",
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


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
