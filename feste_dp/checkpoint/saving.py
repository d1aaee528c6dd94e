"""Writes a checkpoint: beside its final name first, each byte forced to disk, then renamed.

A directory with a final name (step-00000250) is therefore whole at every moment, whenever the process or the
machine stops. Knows nothing of training.
"""

import contextlib
import shutil
import time
from pathlib import Path

import feste_dp
from feste_dp.checkpoint.filesystem import (
    REPLACED,
    TEMPORARY,
    TRASH,
    Filesystem,
    SaveError,
    owner_of,
    saving_errors,
    unique_path,
)
from feste_dp.checkpoint.format import (
    FILE_LIMIT,
    MANIFEST_NAME,
    PARAMS,
    Arrays,
    ManifestFields,
    ShardFile,
    check_arrays,
    complete_manifest,
    encode_manifest,
    step_directory_name,
    step_of,
)
from feste_dp.checkpoint.joint_saving import HelpedSave, Helpers
from feste_dp.checkpoint.loading import read_manifest, verify_checkpoint
from feste_dp.checkpoint.shard_files import shard_chunks, shard_digest, write_file
from feste_dp.checkpoint.shards import FILE_COUNT, shard_name, split_evenly
from feste_dp.errors import UsageError

SPARE_BYTES = 4 * 1024 * 1024  # for directories, block rounding and the files that training writes meanwhile


def write_checkpoint(
    checkpoints_dir: Path,
    manifest_fields: ManifestFields,
    arrays: Arrays,
    *,
    file_count: int = FILE_COUNT,
    filesystem: Filesystem | None = None,
    helpers: Helpers | None = None,
) -> Path:
    """The directory of the committed checkpoint; helpers write some of its files, where there are any.

    SaveError when it could not be written: nothing new is left behind then, and every earlier checkpoint
    stands. A whole checkpoint of the same step and content is kept as it is, any other is replaced.
    """
    if not 1 <= file_count <= FILE_LIMIT:
        raise ValueError(f"file_count must be from 1 to {FILE_LIMIT}, not {file_count}")
    fs = filesystem or Filesystem()
    check_arrays(arrays)
    final = checkpoints_dir / step_directory_name(manifest_fields.step)
    with saving_errors(f"checkpoint {final} was not saved"):
        if not checkpoints_dir.is_dir():  # the run's own directory is never made here
            fs.make_directory(checkpoints_dir)
            fs.sync_directory(checkpoints_dir.parent)
        if checkpoints_dir.is_symlink():  # it may name the checkpoints of another run
            raise SaveError(f"checkpoint {final} was not saved: {checkpoints_dir} is a symbolic link")
        with contextlib.suppress(OSError):  # room that is missing shows below
            _remove_leftovers(fs, checkpoints_dir)
        if final.is_dir() and _already_holds(final, manifest_fields, arrays, file_count):
            fs.sync_directory(checkpoints_dir)
            return final
        _check_free_space(fs, final, arrays)
        temporary = unique_path(checkpoints_dir, TEMPORARY, final.name)
        try:
            _write_files(fs, temporary, manifest_fields, arrays, file_count, helpers)
            _commit(fs, temporary, final)
        except BaseException:
            with contextlib.suppress(OSError):  # a temporary directory that resists goes with the next save
                if temporary.exists():
                    shutil.rmtree(temporary)
            raise
    return final


def remove_leftovers(checkpoints_dir: Path, filesystem: Filesystem | None = None) -> None:
    """Clears what dead saves left. Only for the process that holds the run: it would break a running save."""
    with saving_errors(f"leftovers of an earlier save in {checkpoints_dir} could not be removed"):
        if checkpoints_dir.is_dir():
            _remove_leftovers(filesystem or Filesystem(), checkpoints_dir)


def _remove_leftovers(fs: Filesystem, checkpoints_dir: Path) -> None:
    """As many as can be; OSError, at the end, of the first that cannot."""
    failures = []
    for path in sorted(checkpoints_dir.iterdir()):
        try:
            if path.name.startswith(REPLACED):
                original = checkpoints_dir / owner_of(path, REPLACED)
                if step_of(original.name) is None or original.exists():
                    fs.remove(path)
                else:  # stopped between the two renames of a replacement
                    fs.rename(path, original)
            elif path.name.startswith((TEMPORARY, TRASH)):
                fs.remove(path)
        except OSError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _already_holds(final: Path, given: ManifestFields, arrays: Arrays, file_count: int) -> bool:
    """Whether `final` is whole and equals what would be written, but for the time it took to get there."""
    try:
        found = read_manifest(final)
    except UsageError:
        return False
    train = given.train.model_copy(update={"elapsed_seconds": found.train.elapsed_seconds})
    given = given.model_copy(update={"train": train})
    if complete_manifest(given, found.feste_dp_version, found.files, arrays) != found:
        return False
    ranges = split_evenly(arrays[PARAMS].size, file_count)
    if [(file.start, file.stop) for file in found.files] != ranges or verify_checkpoint(final):
        return False
    return all(shard_digest(arrays, file.start, file.stop) == file.sha256 for file in found.files)


def _check_free_space(fs: Filesystem, final: Path, arrays: Arrays) -> None:
    needed = sum(array.nbytes for array in arrays.values()) + SPARE_BYTES
    free = fs.free_bytes(final.parent)
    if free is not None and free < needed:
        raise SaveError(
            f"checkpoint {final} was not saved: it needs {needed / 1e6:.1f} MB of disk space "
            f"and {free / 1e6:.1f} MB are free"
        )


def _write_files(
    fs: Filesystem,
    directory: Path,
    given: ManifestFields,
    arrays: Arrays,
    file_count: int,
    helpers: Helpers | None,
) -> None:
    fs.make_directory(directory)
    ranges = split_evenly(arrays[PARAMS].size, file_count)
    names = [shard_name(i, len(ranges)) for i in range(len(ranges))]

    def write(i: int) -> tuple[int, str]:
        return write_file(fs, directory / names[i], shard_chunks(arrays, *ranges[i]))

    if helpers is None:
        written = {i: write(i) for i in range(len(ranges))}
    else:
        began, folder = (
            time.monotonic(),
            unique_path(directory.parent, TEMPORARY, step_directory_name(given.step)),
        )
        with contextlib.closing(HelpedSave(helpers, fs, folder, given.step, names)) as others:
            written = {i: write(i) for i in range(len(ranges)) if others.is_own(i)}
            seconds = time.monotonic() - began
            written |= others.collect(directory, lambda i: shard_digest(arrays, *ranges[i]), seconds)
        written |= {i: write(i) for i in range(len(ranges)) if i not in written}
    files = tuple(
        ShardFile(name=names[i], start=start, stop=stop, size=written[i][0], sha256=written[i][1])
        for i, (start, stop) in enumerate(ranges)
    )
    manifest = encode_manifest(complete_manifest(given, feste_dp.__version__, files, arrays))
    write_file(fs, directory / MANIFEST_NAME, [memoryview(manifest)])
    fs.sync_directory(directory)


def _commit(fs: Filesystem, temporary: Path, final: Path) -> None:
    replaced = unique_path(final.parent, REPLACED, final.name)
    try:
        if final.exists() or final.is_symlink():
            fs.rename(final, replaced)
        fs.rename(temporary, final)
    except BaseException:
        with contextlib.suppress(OSError):  # what cannot be put back now is put back by the next save
            if replaced.exists() and not final.exists():
                replaced.rename(final)
        raise
    fs.sync_directory(final.parent)
    with contextlib.suppress(OSError):  # what cannot be removed now goes with the next save
        if replaced.exists() or replaced.is_symlink():
            fs.remove(replaced)
