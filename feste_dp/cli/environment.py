"""What the user's environment may do to this program, settled before numpy and Numba read its variables.

Workers have one thread whatever is set (runtime/worker_process.py); this is about the process that the user
starts, and about what its compiled code depends on.
"""

import contextlib
import resource
from collections.abc import MutableMapping

_NUMBA = "NUMBA_"
_NUMBA_THREADS = "NUMBA_NUM_THREADS"
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
_SAVING_CPU_S = 60
"""More CPU time than any save and end takes."""


def settle_environment(environ: MutableMapping[str, str]) -> list[str]:
    """Change `environ` for this process and all it starts; the variables that were dropped.

    Numba's own variables go: with some of them it compiles slower code, or none. A number of threads that the
    user set stays; where none is set, numpy's library starts no threads, for nothing here computes with them.
    """
    threads = environ.get(_NUMBA_THREADS, "1").strip()
    kept = {_NUMBA_THREADS} if threads.isdecimal() and int(threads) > 0 else set()
    dropped = sorted(name for name in environ if name.startswith(_NUMBA) and name not in kept)
    for name in dropped:
        del environ[name]
    if not any(environ.get(name) for name in _BLAS_THREADS):
        environ[_BLAS_THREADS[0]] = "1"
    return dropped


def settle_cpu_limit() -> None:
    """Have SIGXCPU come before the kernel kills, for this process and all it starts, so that a run can be
    saved: `ulimit -t` sets the limit that warns and the one that kills to the same second."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY:
        return
    warned = max(1, hard - max(1, min(hard // 5, _SAVING_CPU_S)))
    if soft == resource.RLIM_INFINITY or soft > warned:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CPU, (warned, hard))
