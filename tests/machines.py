"""A directory in the place of / with the files by which a kernel says what a process may take."""

from pathlib import Path


def fake_root(
    root: Path, own: str, groups: dict[str, dict[str, str]], available_kib: int | None = None
) -> Path:
    """`own` is the text of /proc/self/cgroup; groups are files by directory below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    line = "" if available_kib is None else f"MemAvailable:   {available_kib} kB\n"
    (root / "proc/meminfo").write_text(f"MemTotal:  999999999 kB\n{line}SwapFree:  5 kB\n")
    (root / "proc/self/cgroup").write_text(own)
    for path, files in groups.items():
        directory = root / "sys/fs/cgroup" / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_text(content)
    return root
