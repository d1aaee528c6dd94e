"""Intel's MKL, inside PyTorch, takes a slow path on CPUs of another make: it asks mkl_serv_intel_cpu_true()
for the vendor. A library of one function, preloaded, answers yes: that is the "tuned" PyTorch.
"""

import shutil
import subprocess
from pathlib import Path

NOTE = (
    "note: on this AMD CPU the MKL inside PyTorch takes a slow path; the tuned peers run with its vendor "
    "check overridden by a preloaded library, which nobody gets by installing PyTorch"
)
_SOURCE = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"


def is_amd(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        return "AuthenticAMD" in cpuinfo.read_text()
    except OSError:
        return False


def build_override(folder: Path) -> Path | None:
    """The library, compiled into `folder`; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source, library = folder / "vendor.c", folder / "vendor.so"
    source.write_text(_SOURCE)
    done = subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], capture_output=True)
    return library if done.returncode == 0 else None
