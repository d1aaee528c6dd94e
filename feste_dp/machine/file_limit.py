"""The file-size limit of a process (`ulimit -f`), where it would hit memory that is called a file."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def file_size_limit_lifted() -> Iterator[None]:
    """Inside, the limit is as high as the process may set it: the kernel counts a memfd as a file.

    The limit that the user set holds again afterwards, for what goes to disk.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):  # not root
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
