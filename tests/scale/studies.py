"""A small scaling study, made up: two counts of a model that scales to 90 %."""

from feste_dp.scale.study import (
    FORMAT,
    Bandwidth,
    Baseline,
    Cache,
    Count,
    CurvePoint,
    Fit,
    Interval,
    Limit,
    Lost,
    Machine,
    SameBits,
    Study,
)


def made_up_count(workers: int, rate: float, step_ms: float) -> Count:
    return Count(
        workers=workers,
        cores=workers,
        tokens_per_step=1000,
        tokens_per_second=Interval(rate, rate - 10, rate + 10),
        tokens_per_second_each=[rate - 5, rate, rate + 5],
        speedup=Interval(rate / 1000, rate / 1000 - 0.01, rate / 1000 + 0.01),
        efficiency=Interval(rate / 1000 / workers, rate / 1000 / workers - 0.01, 1.0),
        step_ms=step_ms,
        phases_ms={
            "compute": step_ms - 10,
            "wait": 4.0 if workers > 1 else 0.0,
            "reduce": 2.0,
            "update": 2.0,
            "control": 2.0 if workers > 1 else 6.0,
        },
        gflops_per_second_per_core=90.0,
        peak_gflops_per_second_per_core=120.0,
        reduce=Bandwidth(30.0, 0.9),
        update=Bandwidth(20.0, 0.6),
        memory_bytes=(100 + 50 * workers) << 20,
        loss_sha256="ab" * 32,
        above_cores=False,
    )


MACHINE = Machine(
    cpu="a CPU",
    usable_cpus=2,
    physical_cores=2,
    sockets=1,
    threads_per_core=1,
    numa_nodes=1,
    caches=[Cache(1, "Data", 32 << 10, 1, 2), Cache(3, "Unified", 32 << 20, 2, 1)],
    memory_bytes=8 << 30,
    cgroup_cpus=None,
    cgroup_memory_bytes=4 << 30,
    pin="auto",
    pinned_cpus=[0, 1],
    load_before=0.1,
    busy_before=0.01,
    versions={"feste-dp": "0.1.0", "python": "3.11.0"},
)


def made_up_study() -> Study:
    amdahl = Fit(
        law="Amdahl",
        formula="X(N) = X1 N / (1 + s (N - 1))",
        counts=[1, 2],
        parameters={
            "tokens_per_second_of_one": Interval(1000.0, 990.0, 1010.0),
            "serial_fraction": Interval(0.11, 0.1, 0.12),
        },
        largest_residual=None,
        curve=[
            CurvePoint(1, Interval(1000.0, 990.0, 1010.0)),
            CurvePoint(2, Interval(1800.0, 1790.0, 1810.0)),
            CurvePoint(128, Interval(8500.0, 8000.0, 9000.0)),
        ],
        note="as many parameters as counts: the curve goes through them",
    )
    usl = Fit("USL", "...", [1, 2], {}, None, [], "two counts cannot tell contention from coherency")
    return Study(
        format=FORMAT,
        kind="strong",
        created="2026-01-31T12:00:00+00:00",
        config_name="tiny",
        config={"model": {"n_layer": 2}, "train": {"shards": 4}},
        parameters=169_728,
        flops_per_token=1e6,
        flops_formula="6 x 1 = 6",
        warmup_steps=2,
        steps=10,
        repeats=3,
        intervals="Student's t",
        machine=MACHINE,
        counts=[made_up_count(1, 1000.0, 1000.0), made_up_count(2, 1800.0, 555.0)],
        baselines=[
            Baseline(
                "one process", "the same kernels", 1, Interval(1010.0, 1000.0, 1020.0), [1010.0], 1 << 28
            ),
            Baseline("PyTorch", "eager", 2, None, [], None, "PyTorch is not installed"),
        ],
        fits=[amdahl, usl],
        limit=Limit(
            cause="stragglers",
            sentence="At 2 workers 55 ms of a step are lost, most of it to stragglers.",
            rule="the cause that takes most of the time lost",
            at_workers=2,
            lost=[Lost("stragglers", 40.0, 0.07), Lost("control", 15.0, 0.03)],
        ),
        same_bits=SameBits(True, "2 counts, 6 runs of 12 steps: the same losses, bit for bit"),
        warnings=[],
    )
