"""What the user's environment variables may do to this program, settled before numpy and Numba read them.

Workers have one thread whatever is set (runtime/worker_process.py); this is about the process that the user
starts, and about what its compiled code depends on.
"""

from collections.abc import MutableMapping

_NUMBA = "NUMBA_"
_NUMBA_THREADS = "NUMBA_NUM_THREADS"
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


def settle_environment(environ: MutableMapping[str, str]) -> list[str]:
    """Change `environ` for this process and all it starts; the variables that were dropped.

    Numba's own variables go: with some of them it compiles other code, or none, and the bits of a run are
    those of its code. A number of threads that the user set stays; where none is set, numpy's library starts
    no threads, for nothing here computes with them.
    """
    threads = environ.get(_NUMBA_THREADS, "1").strip()
    kept = {_NUMBA_THREADS} if threads.isdecimal() and int(threads) > 0 else set()
    dropped = sorted(name for name in environ if name.startswith(_NUMBA) and name not in kept)
    for name in dropped:
        del environ[name]
    if not any(environ.get(name) for name in _BLAS_THREADS):
        environ[_BLAS_THREADS[0]] = "1"
    return dropped
