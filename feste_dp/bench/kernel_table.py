"""A kernel report as text. Pure."""

from feste_dp.bench.kernel_timing import KernelReport


def kernel_table(report: KernelReport) -> str:
    width = max(len(kernel.name) for kernel in report.kernels)
    lines = [
        f"machine   {report.cpu}",
        f"limits    {report.precision}: {report.peak_gflops_per_second_one_core:.1f} GF/s on one core, "
        f"{report.peak_gflops_per_second_per_core_all_cores:.1f} each on {report.cores} at once; memory "
        f"beyond all caches {report.memory_gb_per_second_one_core:.1f} GB/s, "
        f"{report.memory_gb_per_second_all_cores:.1f} on {report.cores}",
        f"shapes    {report.micro_batch} x {report.block_size} tokens a call, one core; the memory limit is "
        "a triad over as many bytes",
        "",
        f"{'kernel':<{width}}  {'best us':>10} {'calls':>5} {'GF/s':>7} {'GB/s':>7}  {'limit':<10} "
        f"{'share':>6}",
    ]
    lines += [
        f"{kernel.name:<{width}}  {kernel.microseconds:10.1f} {kernel.calls:5} "
        f"{kernel.gflops_per_second:7.1f} {kernel.gb_per_second:7.1f}  {kernel.limit:<10} "
        f"{kernel.share_of_limit:6.1%}"
        for kernel in report.kernels
    ]
    return "\n".join(lines)
