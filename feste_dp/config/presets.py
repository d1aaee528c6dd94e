"""The configs that come with the program, found by name from any folder. Knows where they lie, not what they
say."""

import difflib
import functools
from pathlib import Path

from feste_dp.errors import UsageError

ENDINGS = (".yaml", ".yml")


def preset_folder() -> Path:
    """Inside an installed package, else configs/ of a checkout."""
    here = Path(__file__).resolve()
    candidates = [here.parents[1] / "configs", here.parents[2] / "configs"]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise UsageError(f"the configs of the program are missing ({candidates[0]}): reinstall feste-dp")


@functools.cache
def preset_names() -> tuple[str, ...]:
    """In the order of the alphabet."""
    return tuple(sorted(path.stem for path in preset_folder().glob(f"*{ENDINGS[0]}")))


def preset_path(name: str) -> Path:
    return preset_folder() / f"{name}{ENDINGS[0]}"


def find_config(given: Path) -> Path:
    """The file that is meant: what lies at the path, or the preset of that name. A folder, such as a run that
    is called like its preset, is no config and does not stand in its way."""
    name = str(given)
    if name in preset_names() and (given.is_dir() or not given.exists()):
        return preset_path(name)
    return given


def is_bare_name(given: Path) -> bool:
    """Whether it is written as a preset is: without a folder and an ending."""
    return len(given.parts) == 1 and not given.suffix


def nearest_configs(given: Path) -> list[str]:
    """What may have been meant by a path where nothing is: a file beside it, presets of a similar name."""
    try:
        files = {path.stem: str(path) for path in sorted(given.parent.iterdir()) if path.suffix in ENDINGS}
    except (OSError, ValueError):  # ValueError: a NUL in the name
        files = {}
    near_files = [files[name] for name in difflib.get_close_matches(given.stem, files, n=1)]
    near_presets = difflib.get_close_matches(given.stem, preset_names(), n=3)
    return near_presets + near_files if is_bare_name(given) else near_files or near_presets


def purpose(name: str) -> str:
    """What the preset is for: the comment that it opens with."""
    with preset_path(name).open(encoding="utf-8") as file:
        return file.readline().strip().lstrip("# ")
