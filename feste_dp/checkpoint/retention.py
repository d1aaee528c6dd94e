"""Which checkpoints stay. Runs only after a commit, so that a whole one is always left."""

from collections.abc import Collection
from pathlib import Path

from feste_dp.checkpoint.filesystem import TRASH, Filesystem, SaveError, saving_errors, unique_path
from feste_dp.checkpoint.listing import step_directories
from feste_dp.checkpoint.pointers import BEST, LATEST, pointed_step


def retain(
    checkpoints_dir: Path,
    keep: int,
    protected_steps: Collection[int] = (),
    *,
    filesystem: Filesystem | None = None,
) -> list[int]:
    """Deletes all checkpoints but the newest `keep`, `best`, `latest` and the protected; their steps.

    One newer than `latest` stays and does not count: a run that went back over a damaged checkpoint would
    otherwise lose the whole ones it saves below it. SaveError when one could not be deleted; the others are.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    fs = filesystem or Filesystem()
    latest = pointed_step(checkpoints_dir, LATEST)
    found = [entry for entry in step_directories(checkpoints_dir) if latest is None or entry[0] <= latest]
    stays = {pointed_step(checkpoints_dir, BEST), *protected_steps}
    deleted = []
    resisting: SaveError | None = None
    for step, path in found[:-keep]:
        if step in stays:
            continue
        try:
            with saving_errors(f"checkpoint {path} is no longer needed but could not be deleted"):
                trash = unique_path(checkpoints_dir, TRASH, path.name)
                fs.rename(path, trash)
                fs.remove(trash)
            deleted.append(step)
        except SaveError as error:
            resisting = resisting or error
    if resisting is not None:
        raise resisting
    return deleted
