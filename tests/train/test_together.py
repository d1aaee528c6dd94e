"""Trainers of several nodes in one process: the same steps, bits and decisions as of one machine.

Each node is a thread with a Trainer, a Link and a NodeExchange; its workers are arithmetic that knows
weights, step and shard. A signal "arrives" where the test says, as its handler would run there.
"""

import contextlib
import shutil
import signal
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from feste_dp.checkpoint.background import BackgroundWriter
from feste_dp.checkpoint.format import step_directory_name
from feste_dp.checkpoint.joint_saving import DivergedError
from feste_dp.checkpoint.listing import newest_whole, step_directories
from feste_dp.checkpoint.loading import load_checkpoint
from feste_dp.checkpoint.part_writer import PartWriter
from feste_dp.data.preparation import prepare_for_run
from feste_dp.data.tokenizer import load_tokenizer
from feste_dp.errors import RunError
from feste_dp.kernels.reduction import NORM_CHUNK, chunk_count, make_tree, reduce_slots
from feste_dp.model.parameters import initial_params, parameter_count
from feste_dp.nodes import array_sum
from feste_dp.nodes.link import Link, NodeLostError
from feste_dp.run.metrics import MetricsWriter, read_metrics
from feste_dp.run.record import Record
from feste_dp.runtime.results import Gradient, mean_loss
from feste_dp.runtime.slots import ShardBlock
from feste_dp.train.follower import Silent, _NoRows, _NoWriter, share_state
from feste_dp.train.joining import Nodes
from feste_dp.train.nonfinite import NonFiniteError
from feste_dp.train.observers import Observers
from feste_dp.train.shared_saving import LinkWire, helpers
from feste_dp.train.signals import Abandoned, StopSignals
from feste_dp.train.together import LOSSES_AT_ONCE, NodeExchange
from feste_dp.train.trainer import Outlets, Trainer
from tests.nodes.wires import Wires, linked, on_nodes

SHARDS, STEPS = 8, 9
ALL = ShardBlock(0, SHARDS)


class Signals(StopSignals):
    """Of a node that is a thread: what another node passes on arrives where its workers next look."""

    def __init__(self):
        super().__init__(lambda text: None)
        self.passed = []
        self.defer()

    def pass_on(self, signum):
        self.passed.append(signum)

    def arrive(self, signum):
        self._stop(signum)

    def look(self):
        while self.passed:
            signum = self.passed.pop()
            if self.stop_signal is None:
                self.arrive(signum)


@dataclass
class Script:
    """What happens on one node: where(place, step) may raise, or have a signal arrive."""

    node: int = 0
    happens: object = lambda workers, place, step: None
    wanted_workers: object = lambda: None


class Workers:
    """A Workforce without processes."""

    shards_per_slot = 1

    def __init__(self, config, block, signals, happens):
        self._config, self.block, self.signals, self._happens = config, block, signals, happens
        parameters = parameter_count(config.model)
        self.arena = SimpleNamespace(
            params=np.zeros(parameters, np.float32),
            grad=np.zeros(parameters, np.float32),
            norms=np.zeros(chunk_count(parameters)),
            slots=np.zeros((block.count, parameters), np.float32),
        )
        self.workers, self.step, self.resized = 1, 0, []
        self.closed = False

    def _at(self, place):
        self._happens(self, place, self.step)
        self.signals.look()

    def gradient(self, step):
        self.step, arena, losses = step, self.arena, []
        for slot in range(self.block.count):
            rng = np.random.default_rng([step, self.block.first + slot])
            arena.slots[slot] = rng.standard_normal(len(arena.grad), np.float32) + arena.params
            losses.append(float(np.sum(arena.slots[slot][:100], dtype=np.float64)))
            self._at("compute")
        reduce_slots(arena.grad, arena.norms, arena.slots, 0, len(arena.norms), make_tree(SHARDS))
        return Gradient(losses, [0.1], [0.0], [self.block.count])

    def validation_loss(self, step, count, spacing):
        units = range(count // self._config.train.sequences_per_shard)
        return mean_loss(self.unit_losses(step, units, spacing), count * self._config.model.block_size)

    def unit_losses(self, step, units, spacing):
        weight = float(np.sum(self.arena.params, dtype=np.float64))
        losses = []
        for unit in units:
            losses.append(weight * (unit + 1) / 7)
            self._at("validate")
        return losses

    def resize(self, workers):
        self.resized.append((self.step, workers))
        self.workers = workers

    def tend(self):
        self._at("sample or rest")

    def close(self, *, at_once):
        self.closed = True


@pytest.fixture(scope="module")
def prepared(runs):
    config = runs.config(
        model__vocab_size=256,
        train__steps=STEPS,
        eval__every=3,
        sample__every=4,
        sample__tokens=3,
        checkpoint__every=0,
    )
    data = config.data
    tokens = prepare_for_run(data.corpus, 256, data.val_fraction, config.model.block_size, runs.cache)
    return config, tokens, load_tokenizer(tokens.tokenizer_path)


@dataclass
class Ended:
    """How a node ended."""

    step: int
    signal: int | None
    workers: Workers
    error: BaseException | None
    told: list[str] = field(default_factory=list)


def train(
    prepared, folder, nodes=1, script=None, *, goes_on=False, saves_together=True, held=None, **changes
):
    """Train on so many nodes, from the start or from what is saved, until it ends."""
    config, data, tokenizer = prepared
    for key, value in changes.items():
        section, name = key.split("__")
        part = getattr(config, section).model_copy(update={name: value})
        config = config.model_copy(update={section: part})
    script = script or Script()
    folder.mkdir(exist_ok=True)
    (folder / "checkpoints").mkdir(exist_ok=True)
    parameters = parameter_count(config.model)

    def one(link=None, end=None):
        rank = 0 if link is None else link.rank
        signals, exchange, block = Signals(), None, ALL
        if link is not None:
            link.names = [f"node {node} (host{node})" for node in range(nodes)]
            link.own_stop, link.pass_on = lambda: signals.stop_signal, signals.pass_on
            joined = Nodes(link, end, 1, ())
            block = joined.block(SHARDS)
            exchange = NodeExchange(joined, SHARDS, parameters, signals, script.wanted_workers)
        happens = script.happens if rank == script.node else lambda workers, place, step: None
        workers = Workers(config, block, signals, happens)
        record = Record(Silent())
        told = []
        record.tell = lambda kind, text, *args, **fields: told.append(text)
        with contextlib.ExitStack() as stack:
            rows, writer = _NoRows(), _NoWriter()
            if rank == 0:
                rows = stack.enter_context(MetricsWriter(folder / "metrics.csv"))
                tensors = ("params", "m", "v")
                writer = BackgroundWriter(folder / "checkpoints", parameters, tensors, keep=9)
                if link is not None and saves_together:
                    writer.helpers = helpers(link, lambda: folder / "checkpoints")
                stack.enter_context(contextlib.closing(writer))
            elif saves_together:
                writer = PartWriter(LinkWire(link), rank, parameters, ("params", "m", "v"))
            held_here = held if rank == 0 else None
            outlets = Outlets(Observers(record), rows, writer, signals, held=held_here, exchange=exchange)
            trainer = Trainer(config, data, tokenizer, workers, outlets)
            stack.enter_context(contextlib.closing(trainer))
            manifest = None
            if rank == 0 and goes_on:
                newest, _ = newest_whole(folder / "checkpoints")
                manifest, _ = load_checkpoint(newest, out=trainer.restore_into())
                trainer.restore(manifest, read_metrics(folder / "metrics.csv"))
            elif rank == 0:
                trainer.start_from(initial_params(config.model, 1))
            if link is not None:
                share_state(link, trainer, manifest)
            error = None
            try:
                trainer.run()
            except RunError as failure:
                error = failure
                if link is not None:
                    reason = None if isinstance(failure, NodeLostError) else str(failure)
                    link.close(1, reason, timeout_s=10.0)
            return Ended(trainer.step, signals.stop_signal, workers, error, told)

    if nodes == 1:
        return [one()]
    ends = Wires(nodes).ends()
    return linked(ends, lambda link: one(link, ends[link.rank]))


def rows_of(folder):
    """metrics.csv without the times."""
    rows = read_metrics(folder / "metrics.csv")
    return [
        (row.step, row.learning_rate, row.train_loss, row.grad_norm, row.val_loss, row.sample) for row in rows
    ]


def state_of(folder):
    newest, _ = newest_whole(folder / "checkpoints")
    manifest, arrays = load_checkpoint(newest)
    return manifest.step, {name: values.tobytes() for name, values in arrays.items()}


@pytest.fixture(scope="module")
def alone(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(prepared, folder)
    return rows_of(folder), state_of(folder)


@pytest.fixture(params=["small", "large"])
def in_one_message_or_in_chunks(request, monkeypatch):
    """The model has three chunks then."""
    if request.param == "large":
        monkeypatch.setattr(array_sum, "is_small", lambda parameters: False)
        monkeypatch.setattr(array_sum, "CHUNK_FLOATS", NORM_CHUNK)


@pytest.mark.usefixtures("in_one_message_or_in_chunks")
@pytest.mark.parametrize("nodes", [2, 3, 8])
def test_nodes_have_the_rows_and_the_state_of_one_machine(prepared, alone, tmp_path, nodes):
    ended = train(prepared, tmp_path / "run", nodes)
    assert (rows_of(tmp_path / "run"), state_of(tmp_path / "run")) == alone
    params = {node.workers.arena.params.tobytes() for node in ended}
    assert [node.step for node in ended] == [STEPS] * nodes and len(params) == 1
    assert not [line for line in ended[0].told if "wrote the files of" in line]  # each node wrote its own


def test_nodes_that_do_not_save_together_end_as_well(prepared, alone, tmp_path):
    train(prepared, tmp_path / "run", 3, saves_together=False)
    assert (rows_of(tmp_path / "run"), state_of(tmp_path / "run")) == alone


@pytest.mark.parametrize("node", [0, 1])
@pytest.mark.parametrize(("place", "step"), [("compute", 5), ("validate", 6), ("sample or rest", 8)])
def test_a_save_that_is_asked_of_any_node_is_made_and_waits_for_nobody(
    prepared, alone, tmp_path, node, place, step
):
    folder, times = tmp_path / "run", []

    def happens(workers, where, at):
        if (where, at) == (place, step) and not times:
            times.append(at)
            workers.signals._save(signal.SIGUSR1, None)

    began = time.monotonic()
    ended = train(prepared, folder, 3, Script(node, happens), eval__patience=0)
    assert times and time.monotonic() - began < 15
    assert (rows_of(folder), state_of(folder)) == alone
    saved = {step for step, _ in step_directories(folder / "checkpoints")}
    assert saved & {step, step + 1}, saved
    assert not [line for line in ended[0].told if "wrote the files of" in line]


def test_nodes_wait_for_no_save_of_a_run_that_was_removed(prepared, alone, tmp_path):
    class Gone:
        is_gone, shown = True, staticmethod(str)

        def look(self, *, at_once):
            return []

        def holds(self, step):
            return False

    began = time.monotonic()
    ended = train(prepared, tmp_path / "run", 3, held=Gone())
    assert [each.step for each in ended] == [STEPS] * 3 and time.monotonic() - began < 15
    assert rows_of(tmp_path / "run") == alone[0] and not list((tmp_path / "run/checkpoints").iterdir())


def test_a_last_save_that_somebody_removed_is_made_again_by_all(prepared, alone, tmp_path):
    """What is on the disk only the first node knows."""
    folder = tmp_path / "run"

    class Held:
        is_gone, shown = False, staticmethod(str)

        def look(self, *, at_once):
            return []

        def holds(self, step):
            shutil.rmtree(folder / "checkpoints" / step_directory_name(step), ignore_errors=True)
            return False

    began = time.monotonic()
    ended = train(prepared, folder, 3, held=Held())
    assert (rows_of(folder), state_of(folder)) == alone and time.monotonic() - began < 15
    assert not [line for line in ended[0].told if "wrote the files of" in line]


PLACES = [("compute", 5), ("compute", 1), ("validate", 6), ("sample or rest", 8), ("sample or rest", 3)]
"""Of steps 1 to 9: 3, 6 and 9 are validated, 4, 8 and 9 have a sample."""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
@pytest.mark.parametrize("node", [0, 1])
@pytest.mark.parametrize(("place", "step"), PLACES)
def test_a_signal_stops_all_nodes_at_one_step_and_they_go_on_as_if_there_was_none(
    prepared, alone, tmp_path, signum, node, place, step
):
    folder, times = tmp_path / "run", []

    def happens(workers, where, at):
        if (where, at) == (place, step) and not times:
            times.append(at)
            workers.signals.arrive(signum)

    ended = train(prepared, folder, 3, Script(node, happens))
    if (place, node, step) == ("sample or rest", 1, 8):  # it draws no samples: a rest, or nothing
        assert times
    assert {each.step for each in ended} <= {step - 1, step, step + 1}, [each.step for each in ended]
    assert len({each.step for each in ended}) == 1
    assert [each.signal for each in ended] == [signum] * 3
    assert all(each.error is None for each in ended)
    if ended[0].step == 0:  # nothing to go on from
        return
    assert [each.step for each in train(prepared, folder, 2, goes_on=True)] == [STEPS] * 2
    rows, state = alone
    assert state_of(folder) == state
    assert list({row[0]: row for row in rows_of(folder)}.values()) == rows  # the last row of a step holds


@pytest.mark.parametrize("nodes", [2, 3])
def test_a_wish_for_other_workers_is_granted_by_all_at_one_step(prepared, alone, tmp_path, nodes):
    wishes = [None, None, 3, None]

    def wanted():
        return wishes.pop(0) if wishes else None

    ended = train(prepared, tmp_path / "run", nodes, Script(wanted_workers=wanted))
    assert {tuple(step for step, _ in each.workers.resized) for each in ended} == {(3,)}
    for each in ended:
        assert each.workers.resized == [(3, min(3, each.workers.block.count))]
    assert (rows_of(tmp_path / "run"), state_of(tmp_path / "run")) == alone


@pytest.mark.usefixtures("in_one_message_or_in_chunks")
@pytest.mark.parametrize("place", ["compute", "validate"])
@pytest.mark.parametrize("node", [0, 2])
def test_what_fails_on_one_node_ends_all_and_the_last_whole_step_is_saved(prepared, tmp_path, node, place):
    def happens(workers, where, step):
        if (where, step) == (place, 6):
            raise RunError("no worker is left")

    ended = train(prepared, tmp_path / "run", 3, Script(node, happens))
    for rank, each in enumerate(ended):
        expected = "no worker is left" if rank == node else f"node {node} (host{node}): no worker is left"
        assert str(each.error) == expected
    assert state_of(tmp_path / "run")[0] == (5 if place == "compute" else 6)


def nan_in_the_last_shard(workers, place, step):
    if place == "compute" and step in (4, 5):
        workers.arena.slots[-1, 7] = np.nan


@pytest.mark.usefixtures("in_one_message_or_in_chunks")
def test_a_gradient_with_a_nan_ends_all_nodes_and_names_the_one_that_has_it(prepared, tmp_path):
    ended = train(prepared, tmp_path / "run", 3, Script(1, nan_in_the_last_shard))
    shard = ended[1].workers.block.first + ended[1].workers.block.count - 1
    for each in ended:
        assert isinstance(each.error, NonFiniteError)
        assert str(each.error).startswith(
            f"step 4: node 1 (host1): shard {shard} has a NaN or infinity in the gradient of wte, "
        )
    assert state_of(tmp_path / "run")[0] == 3


def test_a_step_is_skipped_by_all_nodes_or_by_none(prepared, tmp_path):
    folder = tmp_path / "run"
    ended = train(prepared, folder, 2, Script(1, nan_in_the_last_shard), run__on_nonfinite="skip")
    assert [each.step for each in ended] == [STEPS] * 2
    for number, step in enumerate((4, 5), 1):
        line = f"step {step} skipped ({number} so far): node 1 (host1): shard 7 has a NaN or infinity in the "
        for each in ended:
            assert any(text.startswith(line) for text in each.told), each.told
    train(prepared, tmp_path / "alone", 1, Script(0, nan_in_the_last_shard), run__on_nonfinite="skip")
    assert state_of(folder)[1] == state_of(tmp_path / "alone")[1]
    assert len({each.workers.arena.params.tobytes() for each in ended}) == 1


def exchanges(ends, signals):
    def make(end):
        link = Link(end)
        return link, NodeExchange(Nodes(link, end, 1, ()), SHARDS, 10, signals[end.rank])

    return make


@pytest.mark.usefixtures("in_one_message_or_in_chunks")
@pytest.mark.parametrize("node", [0, 2])
def test_a_step_that_one_node_gives_up_is_given_up_by_all(node):
    ends, signals = Wires(3).ends(), [Signals() for _ in range(3)]
    make = exchanges(ends, signals)

    def body(end):
        link, exchange = make(end)
        arena = SimpleNamespace(
            params=np.ones(10, np.float32), grad=np.ones(10, np.float32), norms=np.zeros(1)
        )
        count = exchange.blocks[end.rank].count
        summed = exchange.all_reduce(1, Gradient([1.0] * count, [0.5], [0.0], [count]), arena)
        assert summed.shard_losses == [1.0] * SHARDS and arena.grad.tolist() == [3.0] * 10
        assert arena.norms.tolist() == [90.0] and not exchange.has_abandoned
        with pytest.raises(Abandoned):
            if end.rank == node:
                signals[node].adopt(signal.SIGTERM)
                exchange.give_up(2, arena)
            else:
                exchange.all_reduce(2, Gradient([1.0] * count, [0.5], [0.0], [count]), arena)
        link.close(0, timeout_s=5.0)
        return exchange.has_abandoned, exchange.stop_signal, signals[end.rank].stop_signal

    assert on_nodes(ends, body) == [(True, signal.SIGTERM, signal.SIGTERM)] * 3


def test_losses_of_a_long_validation_are_joined_in_the_order_of_the_nodes():
    ends, signals = Wires(2).ends(), [Signals() for _ in range(2)]
    make = exchanges(ends, signals)

    def body(end):
        link, exchange = make(end)
        own = [float(end.rank)] * (2 * LOSSES_AT_ONCE + 5 if end.rank else 3)
        joined = exchange.join(own)
        assert exchange.join([]) == []
        link.close(0, timeout_s=5.0)
        return joined

    assert on_nodes(ends, body) == [[0.0] * 3 + [1.0] * (2 * LOSSES_AT_ONCE + 5)] * 2


@pytest.mark.parametrize("nodes", [2, 3, 5, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 100])
def test_units_of_validation_are_each_one_nodes(nodes, count):
    ends, signals = Wires(nodes).ends(), [Signals() for _ in range(nodes)]
    make = exchanges(ends, signals)

    def body(end):
        link, exchange = make(end)
        units = exchange.units(count)
        link.close(0, timeout_s=5.0)
        return units

    assert [unit for units in on_nodes(ends, body) for unit in units] == list(range(count))


def test_a_signal_that_comes_while_losses_are_joined_waits_until_all_have_them():
    signals = Signals()
    joined = threading.Event()
    with pytest.raises(Abandoned), signals.measuring(lambda: None), signals.shielded():
        signals.arrive(signal.SIGTERM)
        joined.set()
    assert joined.is_set()


def test_a_node_with_another_weight_ends_the_run_and_nothing_in_doubt_is_saved(prepared, tmp_path):
    def happens(workers, place, step):
        if (place, step) == ("compute", 4):
            params = workers.arena.params
            turn = -(-len(params) // 1000) * 5  # what is looked at before step 5
            params[turn] = 0.5

    ended = train(prepared, tmp_path / "run", 3, Script(1, happens), checkpoint__every=2)
    for node in ended:
        assert isinstance(node.error, DivergedError), node.error
        assert str(node.error).startswith("before step 5 node 1 (host1) has weights of CRC-32 ")
    assert step_directories(tmp_path / "run/checkpoints")[-1][0] == 4
