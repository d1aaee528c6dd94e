"""How much memory processes hold, on made-up ones."""

from feste_dp.machine import memory


def test_the_arena_counts_once_and_each_process_without_it(monkeypatch):
    kib = {
        "/proc/1/status": "VmHWM:\t300 kB\nRssShmem:\t100 kB\nName:\tpython",
        "/proc/2/status": "VmHWM:\t500 kB\nRssShmem:\t100 kB",
        "/proc/1/smaps_rollup": "Pss:\t 250 kB",
        "/proc/2/smaps_rollup": "Pss:\t 350 kB",
    }
    monkeypatch.setattr(memory.Path, "read_text", lambda path: kib[str(path)])
    measured = memory.measure(1, [2], 100 * 1024)
    assert (measured.coordinator_bytes, measured.worker_bytes) == (200 * 1024, [400 * 1024])
    assert measured.total_bytes == 700 * 1024 and measured.final_pss_bytes == 600 * 1024
