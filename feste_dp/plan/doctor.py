"""Whether this machine and this environment will do for a run: what is fine, what could be better, what must
be mended, a line each. Starts nothing, and leaves nothing behind.

What a run needs is needs.py's; here is what else can be wrong, and what somebody who is to help must
know. No line has the name of the machine or of its user.
"""

import errno
import os
import resource
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from feste_dp.cache import locate, wanted_root
from feste_dp.config.schema import Config
from feste_dp.errors import RunError, UsageError
from feste_dp.files.temporary import temporary_places
from feste_dp.kernels.code_cache import code_files, code_place, is_complete
from feste_dp.kernels.vector.target import HAS_BF16
from feste_dp.machine.cgroup import UNLIMITED, cpu_limit, memory_limit
from feste_dp.machine.clocks import read_clocks
from feste_dp.machine.cpus import cpu_features, cpu_name, crowding, default_workers, usable_cores, usable_cpus
from feste_dp.machine.limits import free_disk, measure_limits, soft_limit, total_memory
from feste_dp.machine.load import busy_share, load_average
from feste_dp.machine.oom import KillCount
from feste_dp.machine.topology import caches
from feste_dp.machine.variables import that_matter, threads_in_vain
from feste_dp.machine.versions import unmet_requirements, versions
from feste_dp.plan.needs import checkpoint_bytes, needs
from feste_dp.plan.preflight import check_cpus, shortages
from feste_dp.run.creation import check_can_create, check_can_lock
from feste_dp.runtime.router import check_that_a_thread_may_choose_its_scheduling
from feste_dp.runtime.shared_memory import reserve_shared_memory
from feste_dp.runtime.warmup import cache_warnings
from feste_dp.wording import counted

Verdict = Literal["fine", "note", "MEND"]
FINE: Verdict = "fine"
NOTE: Verdict = "note"
MEND: Verdict = "MEND"

OPTIONAL = ("matplotlib", "tensorboardX", "wandb", "starlette", "uvicorn", "torch", "transformers")
_BUSY, _WATCH_S = 0.1, 0.3
_SLOW_CLOCK_S = 1e-6
_MIB, _GIB = 1 << 20, 1 << 30
_LEAST_CACHE_BYTES = 64 * _MIB  # compiled code and the plays as tokens


@dataclass(frozen=True)
class Finding:
    about: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Patient:
    """Whom the doctor looks at: a run of this config in this environment."""

    config: Config
    environ: Mapping[str, str]
    """As the user set it."""
    root: Path = Path("/")

    @property
    def workers(self) -> int:
        return self.config.run.workers or default_workers(self.config.train.shards)


def examine(patient: Patient) -> list[Finding]:
    """What is to be mended comes last, to be seen. Takes a third of a second to see how busy the CPUs are."""
    found = [finding for look in _LOOKS for finding in look(patient)]
    return sorted(found, key=lambda finding: (FINE, NOTE, MEND).index(finding.verdict))


def _program(patient: Patient) -> Iterator[Finding]:
    unmet = unmet_requirements()
    found = ", ".join(f"{name} {version}" for name, version in versions(also=OPTIONAL).items())
    yield Finding("versions", FINE, found)
    yield from (Finding("versions", MEND, line) for line in unmet)


def _cpu(patient: Patient) -> Iterator[Finding]:
    cpus = sorted(os.sched_getaffinity(0))
    quota = cpu_limit(patient.root)
    allowed = "" if quota is None else f", the control group allows {quota:g}"
    yield Finding(
        "cpu",
        FINE,
        f"{cpu_name(patient.root / 'proc/cpuinfo')}: {counted(usable_cpus(), 'usable CPU')} of "
        f"{os.cpu_count() or 1}{allowed}, {counted(usable_cores(), 'core')}",
    )
    features = cpu_features(patient.root / "proc/cpuinfo")
    products = "" if HAS_BF16 else "no instruction for "
    vectors = f"{' '.join(features) or 'unknown features'}: {products}products of bfloat16"
    sizes = ", ".join(f"L{each.level} {each.kind.lower()} {each.bytes >> 10:,} KiB" for each in caches(cpus))
    yield Finding("cpu", FINE, f"{vectors}; {sizes or 'caches unknown'}")
    if features and "fma" not in features:
        slow = "no fused multiply-add: the C library computes each, many times slower"
        yield Finding("cpu", NOTE, slow)
    try:
        check_cpus(patient.config, patient.workers)
    except UsageError as error:
        yield Finding("cpu", MEND, str(error))
    crowded = crowding(patient.workers)
    if crowded is not None:
        yield Finding("cpu", NOTE, crowded)
    busy = busy_share(cpus, patient.root, _WATCH_S)
    load = f"others take {busy:.0%} of the CPUs now, load average {load_average(patient.root):.1f}"
    yield Finding("load", NOTE if busy > _BUSY else FINE, load)


def _memory(patient: Patient) -> Iterator[Finding]:
    limits, limit = measure_limits(None, patient.root), memory_limit(patient.root)
    capped = "" if limit is None else f", the control group allows {_gib(limit)}"
    yield Finding(
        "memory", FINE, f"{_gib(limits.memory)} available of {_gib(total_memory(patient.root))}{capped}"
    )
    killed = KillCount.now(patient.root).killed
    if killed:
        yield Finding("memory", NOTE, f"the kernel has killed {killed} for memory so far (oom_kill)")


def _shared_memory(patient: Patient) -> Iterator[Finding]:
    try:
        os.close(reserve_shared_memory(1 << 16))
    except OSError as error:
        cure = {errno.EFBIG: "`ulimit -f unlimited`", errno.ENOMEM: "free memory"}
        how = cure.get(error.errno or 0, "allow the system call memfd_create")
        yield Finding("shared memory", MEND, f"none can be had ({error.strerror}): {how}")
        return
    shm = free_disk(patient.root / "dev/shm")
    yield Finding("shared memory", FINE, f"a memfd; /dev/shm has {_gib(shm)} and is not needed")


def _limits(patient: Patient) -> Iterator[Finding]:
    """All that needs.py counts, and the limits of a process that it does not."""
    config, workers = patient.config, patient.workers
    place = Path(config.run.dir)
    limits = measure_limits(place, patient.root)
    need = needs(config, workers)
    yield Finding("open files", FINE, f"{_count(limits.descriptors)} allowed, a run takes {need.descriptors}")
    yield Finding("processes", FINE, f"{_count(limits.processes)} more allowed, a run takes {need.processes}")
    for short in shortages(config, workers, limits):
        yield Finding(short.what, MEND, short.line.partition(": ")[2])
    largest = soft_limit(resource.RLIMIT_FSIZE)
    if largest < checkpoint_bytes(config):
        text = (
            f"files of {_mib(largest)} at most (ulimit -f): a checkpoint has {_mib(checkpoint_bytes(config))}"
        )
        yield Finding("file size", MEND, f"{text}; raise it with `ulimit -f unlimited`")
    seconds = soft_limit(resource.RLIMIT_CPU)
    if seconds != UNLIMITED:
        yield Finding("CPU time", NOTE, f"a process is stopped after {seconds:,} s (ulimit -t)")


def _places(patient: Patient) -> Iterator[Finding]:
    place = Path(patient.config.run.dir)
    try:
        check_can_create(place)
        check_can_lock(place)
    except UsageError as error:
        yield Finding("runs", MEND, f"{error}; the place is {_shown(place, patient)}")
    else:
        yield Finding("runs", FINE, f"{_shown(place, patient)}: {_gib(free_disk(place))} free")
    usable = [each for each in temporary_places() if os.access(each, os.W_OK | os.X_OK)]
    if usable:
        yield Finding("temporary", FINE, ", ".join(_shown(each, patient) for each in usable))
    else:
        places = ", ".join(_shown(each, patient) for each in temporary_places())
        yield Finding(
            "temporary", MEND, f"none of {places} can be written to: set TMPDIR to a folder of yours"
        )


def _cache(patient: Patient) -> Iterator[Finding]:
    wanted, used = wanted_root(patient.environ), locate(patient.environ)
    nearest = next(each for each in (used.path, *used.path.parents) if os.path.lexists(each))
    if wanted is not None and wanted != used.path:
        yield Finding("cache", FINE, f"wanted in {_shown(wanted, patient)}: {_owner(wanted)}")
    where = f"{_shown(used.path, patient)}: {_owner(used.path)}"
    free = free_disk(used.path)
    elsewhere = "FESTE_DP_CACHE names another place"
    if not os.access(nearest, os.W_OK | os.X_OK):
        yield Finding("cache", MEND, f"{where}, cannot be written to: {elsewhere}")
    elif free < _LEAST_CACHE_BYTES:
        yield Finding("cache", MEND, f"{where}, {_mib(free)} free: make room, or {elsewhere}")
    else:
        yield Finding("cache", FINE, f"{where}, {_gib(free)} free")
    yield from (Finding("cache", NOTE, _anonymous(line, patient)) for line in cache_warnings(patient.environ))
    folder = code_place().path
    if is_complete(folder):
        size = sum(file.stat().st_size for file in code_files(folder)) / _MIB
        yield Finding("kernels", FINE, f"compiled, {size:.0f} MiB, every byte as it was written")
    else:
        state = "compiled in part" if code_files(folder) else "not compiled yet"
        yield Finding("kernels", FINE, f"{state}: the first run takes about a minute longer")


def _variables(patient: Patient) -> Iterator[Finding]:
    remarks = {
        "NUMBA_": (NOTE, "is ignored: the kernels are compiled in one way"),
        "FESTE_DP_FAULT": (MEND, "makes workers fail on purpose: unset it"),
        "FESTE_DP_COMPILED": (MEND, "is set by a run for its own processes: unset it"),
        "FESTE_DP_IMPORT_PATH": (MEND, "is set by a run for its own processes: unset it"),
        "LD_PRELOAD": (NOTE, "puts other code into every process"),
    }
    vain = threads_in_vain(patient.environ)
    found = that_matter(patient.environ)
    for name, value in found.items():
        known = [remark for start, remark in remarks.items() if name.startswith(start)]
        if known and name != "NUMBA_NUM_THREADS":
            verdict, why = known[0]
            yield Finding("environment", verdict, f"{name}={_anonymous(value, patient)} {why}")
        elif not any(f"{name}={value}" in line for line in vain):
            yield Finding("environment", FINE, f"{name}={_anonymous(value, patient)}")
    yield from (Finding("environment", NOTE, line) for line in vain)
    if not found:
        yield Finding("environment", FINE, "no variable is set that a run reads")


def _system_calls(patient: Patient) -> Iterator[Finding]:
    def follow() -> None:
        os.close(os.pidfd_open(os.getpid()))

    tried: dict[str, Callable[[], None]] = {
        "sched_setscheduler": check_that_a_thread_may_choose_its_scheduling,
        "pidfd_open": follow,
    }
    fine = []
    for name, call in tried.items():
        try:
            call()
        except UsageError as error:
            yield Finding("system calls", MEND, str(error))
        except (OSError, RunError) as error:
            yield Finding("system calls", NOTE, f"{name} is refused ({error}): another way is taken")
        else:
            fine.append(name)
    yield Finding("system calls", FINE, f"{', '.join(fine)} work")


def _clocks(patient: Patient) -> Iterator[Finding]:
    clocks = read_clocks(patient.root)
    speed = "" if clocks.mhz is None else f", {clocks.mhz:,.0f} MHz now"
    governor = f", governor {clocks.governor}" if clocks.governor else ""
    slow = clocks.reading_s > _SLOW_CLOCK_S
    text = (
        f"{clocks.source or 'unknown source'}, a look takes {1e9 * clocks.reading_s:,.0f} ns{speed}{governor}"
    )
    yield Finding("clocks", NOTE if slow else FINE, text)
    written = Path(__file__).stat().st_mtime
    if clocks.now < written:
        text = "the date lies before that of this program's files: names and ages of runs will be wrong"
        yield Finding("clocks", NOTE, text)


_LOOKS: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    *(_program, _cpu, _memory, _shared_memory, _limits, _places, _cache, _variables, _system_calls, _clocks),
)


def _owner(path: Path) -> str:
    """Whose it is, and who else may write to it; not who that is."""
    try:
        status = path.stat()
    except OSError:
        return "not there yet"
    whose = ({0: "root's"} | {os.geteuid(): "yours"}).get(status.st_uid, "another user's")
    return f"{whose}, mode {stat.S_IMODE(status.st_mode):o}"


def _shown(path: Path, patient: Patient) -> str:
    return _anonymous(str(path), patient)


def _anonymous(text: str, patient: Patient) -> str:
    """Without the home folder, which has the user's name in it."""
    home = patient.environ.get("HOME", "").rstrip("/")
    return text.replace(home, "~") if home.count("/") > 0 and home != "" else text


def _count(number: int) -> str:
    return "any number" if number >= UNLIMITED else f"{number:,}"


def _gib(count: int) -> str:
    return "an unknown amount" if count >= UNLIMITED else f"{count / _GIB:,.1f} GiB"


def _mib(count: int) -> str:
    return f"{count / _MIB:,.1f} MiB"
