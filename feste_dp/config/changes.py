"""What a resumed run may change. Compares two configs; knows no file and no checkpoint.

Each key of the schema is in one of three sets:

- frozen: the saved state has no meaning under another value, or the run would equal neither the old one nor
  one started with the new value. A change is refused.
- explicit: the run stays valid, but its weights, its early stop or the figures in metrics.csv go another way
  from here on. A change is allowed when the user asks for it by an override, and is logged.
- free: the weights and every figure stay the same. A change is silent.
"""

from collections.abc import Collection

from feste_dp.config.schema import Config, known_keys
from feste_dp.errors import UsageError

FROZEN = frozenset(
    {
        # the layout of the flat buffer, and what each weight means
        "model.vocab_size",
        "model.block_size",
        "model.n_layer",
        "model.n_head",
        "model.n_embd",
        "model.dropout",
        "model.tie_embeddings",
        "model.n_inner",
        # where the first step began
        "model.init_resize",
        # which of the tokens are held out
        "data.val_fraction",
        # the data order, the dropout masks and the bits of every sum
        "train.batch_size",
        "train.shards",
        "train.micro_batch",
        "train.seed",
        "train.precision",
        # the saved m and v are means under these decays, and their bias correction counts from step 1
        "optim.beta1",
        "optim.beta2",
        "optim.eps",
    }
)

EXPLICIT = frozenset(
    {
        # how far and how fast: people lengthen a run, or lower the rate after a spike
        "train.steps",
        "optim.lr",
        "optim.min_lr",
        "optim.warmup_steps",
        "optim.schedule",
        # applied afresh at each step, so no saved state depends on them
        "optim.weight_decay",
        "optim.clip_norm",
        # they decide which val_loss is compared with which, and so the best checkpoint and the early stop
        "eval.every",
        "eval.batches",
        "eval.patience",
        # skipping an update where the run would have stopped changes every weight after it
        "run.on_nonfinite",
    }
)

FREE = frozenset(
    {
        # a place is no identity: the tokens must have the run's fingerprint, wherever the text lies
        "data.corpus",
        # so it is here: what it began with is in the checkpoints, or read anew where there is none yet
        "model.init",
        # samples draw from a generator of their own: only the sample column of metrics.csv differs
        "sample.every",
        "sample.prompt",
        "sample.tokens",
        "sample.temperature",
        "checkpoint.every",
        "checkpoint.keep",
        "run.name",
        "run.dir",
        "run.workers",
        "run.pin",
        "run.step_timeout_s",
        "run.trackers",
        "run.wandb_project",
        "run.wandb_tags",
    }
)


def in_a_resume(key: str) -> str:
    """The set that `section.key` is in, in one word: kept, asked or free."""
    return "kept" if key in FROZEN else "asked" if key in EXPLICIT else "free"


def check_changes(old: Config, new: Config, *, explicit: Collection[str]) -> list[str]:
    """One line for the log per explicit key that changes, as `train.steps: 40 -> 60`.

    `explicit` holds the keys of the overrides, as `section.key`. Raises UsageError that names every frozen
    key that differs, or else every explicit key that differs and was not given by one.
    """
    changes = _changes(old, new)
    frozen = [line for key, line in changes.items() if key in FROZEN]
    if frozen:
        raise UsageError(
            f"a resumed run keeps these keys: {'; '.join(frozen)}; set them back, or start a new run"
        )
    unasked = [key for key in changes if key in EXPLICIT and key not in explicit]
    if unasked:
        raise UsageError(
            f"the config differs from the run's: {'; '.join(changes[key] for key in unasked)}; "
            "if that is meant, say so by overrides of these keys",
            settings={key: _shown(_value(new, key)) for key in unasked},
        )
    return [line for key, line in changes.items() if key in EXPLICIT]


def _changes(old: Config, new: Config) -> dict[str, str]:
    """A line `key: old -> new` for each key that differs, in the order of the schema."""
    return {
        key: f"{key}: {_shown(before)} -> {_shown(after)}"
        for key in known_keys()
        if (before := _value(old, key)) != (after := _value(new, key))
    }


def _value(config: Config, key: str) -> object:
    section, name = key.split(".")
    value: object = getattr(getattr(config, section), name)
    return value


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)  # no class but the free one has free text
