"""A run on every node but the first: the same steps with the same bits, without a directory, log or screen.

The first node says what to train (a Job) and with which state to begin. From there on this node needs no
orders: it takes part in the exchange of each step, and what it has to tell is told by the first.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import msgpack

from feste_dp.checkpoint.background import SaveResult
from feste_dp.checkpoint.format import (
    PARAMS,
    Arrays,
    Manifest,
    ManifestFields,
    decode_manifest,
    encode_manifest,
)
from feste_dp.config.dumping import dump_config, flat_values
from feste_dp.config.loading import config_from_text
from feste_dp.config.schema import RANDOM, Config
from feste_dp.data.preparation import prepare_for_run
from feste_dp.data.tokenizer import load_tokenizer, tokenizer_of
from feste_dp.data.tokens import TokenData
from feste_dp.data.whereabouts import cached_tokens
from feste_dp.errors import UsageError
from feste_dp.machine.limits import available_memory
from feste_dp.model.parameters import parameter_count
from feste_dp.nodes.introduction import check_alike, differing
from feste_dp.nodes.link import SILENT_S, Link
from feste_dp.run.metrics import MetricsRow
from feste_dp.run.record import Level, Record
from feste_dp.run.screen import Progress
from feste_dp.run.token_data import with_absolute_paths, with_corpus
from feste_dp.run.trace import RunTrace
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.train.joining import Nodes
from feste_dp.train.observers import Observers
from feste_dp.train.shared_saving import part_writer, share_saving
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings, check_machine, compile_for
from feste_dp.train.together import NodeExchange
from feste_dp.train.trainer import Outlets, Trainer

_OF_A_NODE = ("run.workers", "run.pin", "run.dir", "run.name", "data.corpus", "model.init", "sample.prompt")
"""Keys that each node has by itself; paths, which may differ; and what follows from the text."""
_TOLD = ("warning", "worker_")


@dataclass(frozen=True)
class Job:
    """What the first node says of the run before any node starts its workers."""

    config: str
    tokenizer: bytes
    data_sha256: str
    tokenizer_sha256: str
    is_new: bool
    trace: tuple[int, int] | None


def share_job(
    link: Link, config: Config, data: TokenData, trace: tuple[int, int] | None, *, is_new: bool
) -> None:
    """Tell the other nodes what to train; returns when all know."""
    job = Job(
        dump_config(config),
        data.tokenizer_path.read_bytes(),
        data.fingerprint,
        data.tokenizer_sha256,
        is_new,
        trace,
    )
    link.from_first(msgpack.packb(asdict(job)))
    set_deadline(link, config)
    check_data(link, data)


def check_data(link: Link, data: TokenData) -> None:
    """All nodes compare what they read. Raises UsageError that names the one that differs."""
    said = link.gather([data.tokenizer_sha256, data.fingerprint])
    for at, what in enumerate(("a tokenizer", "tokens")):
        check_alike(
            link.names,
            [each[at] for each in said],
            f"has {what} with SHA-256",
            "give every node the same text",
        )


def check_config(link: Link, config: Config) -> None:
    """All nodes compare what they were given, where none says what is to be done. Raises UsageError."""
    text = link.from_first(dump_config(config).encode() if link.is_first else None)
    first = config_from_text(text.decode(), "the config of node 0")
    line = differing(flat_values(config), flat_values(first), lambda key: key in _OF_A_NODE)
    if line is not None:
        raise UsageError(line)


def share_state(link: Link, trainer: Trainer, manifest: Manifest | None) -> None:
    """Have all nodes begin with the state of the first: the weights, and after a checkpoint, given as its
    manifest, what the optimizer and the training loop remember. All nodes call it."""
    content = link.from_first(None if not link.is_first else _encoded(manifest))
    arrays = trainer.restore_into()
    link.copy_from_first(arrays[PARAMS])
    if not content:
        return
    for name, values in arrays.items():
        if name != PARAMS:
            link.copy_from_first(values)
    if not link.is_first:
        trainer.restore(decode_manifest(content, "the state of node 0"))


def set_deadline(link: Link, config: Config) -> None:
    link.silent_after_s = min(SILENT_S, config.run.step_timeout_s / 2)


def surroundings_of(
    nodes: Nodes, environ: Mapping[str, str], cache_root: Path, signals: StopSignals
) -> Surroundings:
    """Of a node that shows nothing and has the first tell what is worth telling."""
    return Surroundings(environ, cache_root, Silent(), signals, nodes=nodes, voice=Relayed(nodes.link))


def follow(own: Config | None, workers: int | None, around: Surroundings, nodes: Nodes) -> int:
    """Train what the first node trains; returns the exit status. `own` is the config that this node was
    given, None for a run that goes on; workers what it was asked for. Raises UsageError, RunError."""
    link = nodes.link
    job = Job(**msgpack.unpackb(link.from_first(None)))
    config = _config_here(job, own, workers)
    set_deadline(link, config)
    count = nodes.workers(config.run.workers, config.train.shards)
    check_machine(config, count, around)
    data = _tokens_here(job, config, around)
    check_data(link, data)
    compile_for(around, data)
    notice = Observers(around.record).notice
    block = nodes.block(config.train.shards)
    with (
        RunTrace(job.trace, around.progress) as trace,
        Coordinator(
            config, count, data.directory, around.environ, notice, trace.request, block
        ) as coordinator,
    ):
        coordinator.start()
        link.wake = coordinator.watch(link.check)
        if not nodes.has_work(True):
            return 0
        nodes.meet(config.run.workers, count, config.train.shards)
        trace.of_nodes(link, nodes.transport)
        writer = part_writer(link, config) if share_saving(link, config).is_shared else _NoWriter()
        exchange = NodeExchange(nodes, config.train.shards, parameter_count(config.model), around.signals)
        outlets = Outlets(
            Observers(around.record),
            _NoRows(),
            writer,
            around.signals,
            faults=coordinator.faults,
            recorder=coordinator.recorder,
            exchange=exchange,
        )
        tokenizer = load_tokenizer(data.tokenizer_path)
        trainer = Trainer(config, data, tokenizer, coordinator, outlets)
        with contextlib.closing(trainer):
            share_state(link, trainer, None)
            around.signals.defer()
            trainer.run()
        return 0 if trainer.finished else around.signals.exit_status


def _config_here(job: Job, own: Config | None, workers: int | None) -> Config:
    """The job's config with what is this node's own. Raises UsageError where they do not fit together."""
    config = config_from_text(job.config, "the config of node 0")
    if own is not None and job.is_new:
        starts_from = config.model.init != RANDOM  # then the model's shape is that of the weights

        def may_differ(key: str) -> bool:
            return key in _OF_A_NODE or (starts_from and key.startswith("model."))

        line = differing(flat_values(own), flat_values(config), may_differ)
        if line is not None:
            raise UsageError(line)
        config = with_corpus(config, with_absolute_paths(own).data.corpus)
    run = own.run if own is not None else config.run
    mine = {"workers": workers if own is None else run.workers, "pin": run.pin}
    return config.model_copy(update={"run": config.run.model_copy(update=mine)})


def _tokens_here(job: Job, config: Config, around: Surroundings) -> TokenData:
    """The run's tokens, from the cache or from the text as it lies here. Raises UsageError."""
    found = cached_tokens(around.cache_root, job.data_sha256, job.tokenizer_sha256)
    if found is not None:
        return found
    tokenizer = None
    if config.model.init != RANDOM:
        tokenizer = tokenizer_of(job.tokenizer, "the tokenizer of node 0")
    data = config.data
    return prepare_for_run(
        data.corpus,
        config.model.vocab_size,
        data.val_fraction,
        config.model.block_size,
        around.cache_root,
        available_memory(),
        tokenizer=tokenizer,
    )


def _encoded(manifest: Manifest | None) -> bytes:
    return b"" if manifest is None else encode_manifest(manifest)


class Relayed(Record):
    """What happens to this node's workers is told by the first node; all else happens there too."""

    def __init__(self, link: Link) -> None:
        super().__init__(Silent())
        self._link = link

    def tell(
        self,
        kind: str,
        text: str,
        level: Level = "message",
        *,
        step: int | None = None,
        trace: str = "",
        **fields: object,
    ) -> None:
        if level != "routine" and kind.startswith(_TOLD):
            self._link.tell(kind, text, level)


class Silent(Progress):
    """Shows nothing."""

    def __init__(self) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def warning(self, text: str) -> None:
        pass

    def finish(self, summary: str) -> None:
        pass

    def troubles(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class _NoRows:
    def append(self, row: MetricsRow) -> None:
        pass

    def sync(self) -> None:
        pass


class _NoWriter:
    def submit(self, manifest_fields: ManifestFields, arrays: Arrays, *, together: bool = False) -> None:
        pass

    def forgo(self, step: int) -> None:
        pass

    def wait(self) -> list[SaveResult]:
        return []

    def poll(self) -> list[SaveResult]:
        return []
