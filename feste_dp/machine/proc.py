"""Small files of /proc and /sys. What is not there, or says something unexpected, is simply unknown."""

from pathlib import Path


def text_of(path: Path) -> str:
    """What the file says; empty where it is not there."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def number_in(path: Path) -> int | None:
    """The number in the file; None for `max`, for nonsense and where there is no such file."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def counters(path: Path) -> dict[str, int] | None:
    """The lines `name 123` of the file; None where it cannot be read or holds anything else."""
    try:
        words = [line.split() for line in path.read_text().splitlines()]
        return {name: int(number) for name, number in words}
    except (OSError, ValueError):
        return None


def sizes(path: Path) -> dict[str, int]:
    """The lines `Name:  123 kB` of the file, in bytes; empty where the kernel does not tell."""
    words = [line.split() for line in text_of(path).splitlines()]
    return {
        w[0].rstrip(":"): int(w[1]) * 1024 for w in words if len(w) == 3 and w[2] == "kB" and w[1].isdigit()
    }


def numbers_of_list(text: str) -> list[int]:
    """The numbers of `0-2,8`."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            numbers.extend(range(int(first), int(last or first) + 1))
    return numbers
