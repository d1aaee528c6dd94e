"""Which checkpoints stay. Runs only after a commit, so that a whole one is always left."""

from collections.abc import Collection
from pathlib import Path

from feste_dp.checkpoint.filesystem import TRASH, Filesystem, SaveError, saving_errors, unique_path
from feste_dp.checkpoint.listing import step_directories
from feste_dp.checkpoint.pointers import BEST, LATEST, pointed_step
from feste_dp.errors import UsageError


def retain(
    checkpoints_dir: Path,
    keep: int,
    protected_steps: Collection[int] = (),
    *,
    newest: int | None = None,
    filesystem: Filesystem | None = None,
) -> list[int]:
    """Deletes all checkpoints but the newest `keep`, `best` and the protected; their steps.

    One newer than `newest` (where not given, than what `latest` points at) stays and does not count: a run
    that went back over a damaged checkpoint would otherwise lose the whole ones it saves below it. SaveError,
    at the end, when one could not be deleted.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    fs = filesystem or Filesystem()
    latest = pointed_step(checkpoints_dir, LATEST) if newest is None else newest
    try:
        found = [entry for entry in step_directories(checkpoints_dir) if latest is None or entry[0] <= latest]
    except UsageError as error:
        raise SaveError(f"old checkpoints are not deleted: {error}") from error
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
