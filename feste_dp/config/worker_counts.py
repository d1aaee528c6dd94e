"""What to say of more workers than a batch has shards, and which shards and batch would do. Pure."""

from typing import Protocol

from feste_dp.errors import UsageError


class Cut(Protocol):
    """How a batch is cut: the section `train` of a config."""

    @property
    def shards(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def micro_batch(self) -> int: ...


def too_many_workers(workers: int, train: Cut) -> str:
    """Why so many workers are refused for a new run, to go before settings_for()."""
    return f"{workers} is more than train.shards {train.shards}; use at most {train.shards}, or more shards"


def refuse_workers_of_run(workers: int, train: Cut, about: str = "workers") -> UsageError:
    """The same for a run that exists: its shards decide its bits, so it keeps them."""
    return UsageError(
        f"{workers} is more than train.shards {train.shards}, which a run keeps; use at most {train.shards}, "
        "or start a new run with more",
        about=about,
        settings=settings_for(workers, train),
    )


def settings_for(workers: int, train: Cut) -> dict[str, object]:
    """The fewest shards that so many workers can share, and the next batch that divides by them."""
    shards = 1 << (workers - 1).bit_length()
    unit = shards * train.micro_batch
    batch = -(-train.batch_size // unit) * unit
    settings: dict[str, object] = {"train.shards": shards}
    if batch != train.batch_size:
        settings["train.batch_size"] = batch
    return settings
