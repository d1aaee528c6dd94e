"""`latest` and `best`: relative links to checkpoints, replaced in one step so that they never dangle."""

from pathlib import Path

from feste_dp.checkpoint.filesystem import TEMPORARY, Filesystem, saving_errors, unique_path
from feste_dp.checkpoint.format import step_of

LATEST = "latest"
BEST = "best"


def point(checkpoints_dir: Path, name: str, checkpoint: Path, filesystem: Filesystem | None = None) -> None:
    """Lets `name` point at the committed `checkpoint`. SaveError when it cannot; the old link stands then."""
    fs = filesystem or Filesystem()
    with saving_errors(f"checkpoint {checkpoint} is saved, but {name!r} does not point at it"):
        step = step_of(checkpoint.name)
        if step is not None and step == pointed_step(checkpoints_dir, name):
            return
        temporary = unique_path(checkpoints_dir, TEMPORARY, name)
        try:
            fs.symlink(checkpoint.name, temporary)
            fs.rename(temporary, checkpoints_dir / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        fs.sync_directory(checkpoints_dir)


def pointed_step(checkpoints_dir: Path, name: str) -> int | None:
    """The step of the checkpoint that `name` points at; None when there is no such link or checkpoint."""
    try:
        target = (checkpoints_dir / name).readlink()
    except OSError:
        return None
    step = step_of(str(target))
    return step if step is not None and (checkpoints_dir / target).is_dir() else None
