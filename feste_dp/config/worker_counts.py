"""What to say of more workers than a batch has shards, and which shards and batch would do. Pure."""

from typing import Protocol


class Cut(Protocol):
    """How a batch is cut: the section `train` of a config."""

    @property
    def shards(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def micro_batch(self) -> int: ...


def too_many_workers(workers: int, train: Cut) -> str:
    """Why so many workers are refused for a new run, and what to set."""
    return (
        f"{workers} is more than train.shards {train.shards}; use at most {train.shards}, "
        f"or {settings_for(workers, train)}"
    )


def too_many_workers_for_run(workers: int, train: Cut) -> str:
    """The same for a run that exists: its shards decide its bits, so it keeps them."""
    return (
        f"{workers} is more than train.shards {train.shards}, which a run keeps; use at most {train.shards}, "
        f"or start a new run with {settings_for(workers, train)}"
    )


def settings_for(workers: int, train: Cut) -> str:
    """The fewest shards that so many workers can share, and the next batch that divides by them."""
    shards = 1 << (workers - 1).bit_length()
    unit = shards * train.micro_batch
    batch = -(-train.batch_size // unit) * unit
    words = f"--set train.shards={shards}"
    return words if batch == train.batch_size else f"{words} --set train.batch_size={batch}"
