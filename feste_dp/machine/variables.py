"""Variables of the environment that a run reads, or that change how its processes compute."""

from collections.abc import Mapping
from pathlib import Path

# Numbers of threads that people set in the hope of more speed.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_FAMILIES = ("FESTE_DP_", "NUMBA_", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "MALLOC_", "PYTHON", "LD_")
_SINGLE = ("XDG_CACHE_HOME", "TMPDIR", "XDG_RUNTIME_DIR", "GLIBC_TUNABLES")


def threads_in_vain(environ: Mapping[str, str]) -> list[str]:
    """A warning where the user asks for threads that workers do not have."""
    given = [f"{name}={environ[name]}" for name in _THREADS if environ.get(name, "").strip().isdecimal()]
    many = [setting for setting in given if int(setting.partition("=")[2]) > 1]
    if not many:
        return []
    return [f"{', '.join(many)}: a worker has one thread all the same; more cores take more workers"]


def that_matter(environ: Mapping[str, str]) -> dict[str, str]:
    """Those that are set, in the order of their names. None of them holds a secret."""
    return {
        name: value
        for name, value in sorted(environ.items())
        if value and (name.startswith(_FAMILIES) or name in _SINGLE)
    }


def environment_at_start(fallback: Mapping[str, str], root: Path = Path("/")) -> dict[str, str]:
    """As this process was given it, before anything of it was dropped."""
    try:
        content = (root / "proc/self/environ").read_bytes().decode(errors="backslashreplace")
    except OSError:
        return dict(fallback)
    return dict(line.split("=", 1) for line in content.split("\0") if "=" in line)
