import errno
import functools
import io
import math
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from feste_dp.checkpoint.background import BackgroundWriter
from feste_dp.checkpoint.filesystem import Filesystem
from feste_dp.checkpoint.listing import step_directories
from feste_dp.checkpoint.loading import load_checkpoint, read_manifest
from feste_dp.config.schema import Config
from feste_dp.data.order import train_offsets
from feste_dp.data.preparation import prepare_for_run
from feste_dp.data.tokenizer import load_tokenizer
from feste_dp.errors import RunError
from feste_dp.model.parameters import initial_params, layout, parameter_count, view_params
from feste_dp.run import initial_weights
from feste_dp.run.log import RunLog
from feste_dp.run.metrics import MetricsWriter, read_metrics
from feste_dp.run.record import Record
from feste_dp.run.screen import Progress
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.runtime.results import Gradient
from feste_dp.runtime.slots import ShardBlock
from feste_dp.runtime.warmup import compile_kernels
from feste_dp.train import open_run as opening
from feste_dp.train.nonfinite import MAX_SKIPPED_IN_A_ROW, NonFiniteError
from feste_dp.train.observers import Observers
from feste_dp.train.signals import StopSignals
from feste_dp.train.trainer import Outlets, Trainer

SHARDS = 8


class FakeCoordinator:
    """Gradients and validation losses of our choice, by step; no processes."""

    block, shards_per_slot = ShardBlock(0, SHARDS), 1

    def __init__(self, parameters, gradients=None, validation=()):
        self.arena = SimpleNamespace(
            params=np.zeros(parameters, np.float32),
            slots=np.zeros((SHARDS, parameters), np.float32),
            grad=np.zeros(parameters, np.float32),
            norms=np.zeros(1),
        )
        self.workers = 2
        self._gradients, self._validation = gradients or {}, iter(validation)
        self.losses = {}
        self.until_saved = lambda: None
        self.positions = 1

    def gradient(self, step):
        self.until_saved()  # a step takes long enough for a save in flight to end meanwhile
        self.arena.slots[:] = self._gradients.get(step, np.float32(0.001 * step))
        self.arena.grad[:] = self.arena.slots.sum(axis=0)
        self.arena.norms[:] = np.sum(self.arena.grad.astype(np.float64) ** 2)
        losses = self.losses.get(step, [4.0] * SHARDS)
        return Gradient([loss * self.positions for loss in losses], [0.0], [0.0], [SHARDS])

    def validation_loss(self, step, count, spacing):
        return next(self._validation)

    def tend(self):
        pass

    def close(self, *, at_once):
        self.closed_at_once = at_once


class Recorder(Progress):
    """Everything that is shown, in order."""

    def __init__(self):
        super().__init__(io.StringIO(), io.StringIO())
        self.events = []

    def step(self, row, total_steps, best=False):
        self.events.append(f"step {row.step}")

    def message(self, text):
        self.events.append(text)

    def warning(self, text):
        self.events.append(f"warning: {text}")

    @property
    def warnings(self):
        return [event for event in self.events if event.startswith("warning")]


class FullDisk(Filesystem):
    """Refuses every new file while `is_full`."""

    is_full = True

    def create(self, path):
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return super().create(path)


class FullMetrics(MetricsWriter):
    def append(self, row):
        if 2 <= row.step <= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().append(row)


@pytest.fixture(scope="module")
def prepared(runs):
    config = runs.config(model__vocab_size=256, model__tie_embeddings=False)
    data = prepare_for_run(
        config.data.corpus, 256, config.data.val_fraction, config.model.block_size, runs.cache
    )
    return config, data, load_tokenizer(data.tokenizer_path)


@pytest.fixture
def make_trainer(prepared, tmp_path):
    """A trainer with its outlets in tmp_path; settings are written optim__lr=0.1."""
    base, data, tokenizer = prepared
    (tmp_path / "checkpoints").mkdir()
    opened = []

    def make(coordinator=None, *, filesystem=None, metrics=MetricsWriter, **settings):
        changes = {"eval__every": 0, "sample__every": 0, "checkpoint__every": 0} | settings
        content = base.model_dump()
        for key, value in changes.items():
            section, name = key.split("__")
            content[section][name] = value
        config = Config.model_validate(content)
        writer = BackgroundWriter(
            tmp_path / "checkpoints",
            parameter_count(config.model),
            ("params", "m", "v"),
            keep=9,
            filesystem=filesystem,
        )
        shown = Recorder()
        outlets = Outlets(
            Observers(Record(shown)),
            metrics(tmp_path / "metrics.csv"),
            writer,
            StopSignals(),
        )
        outlets.observers.record.log_to(RunLog(tmp_path / "log.txt"))
        opened.extend([outlets.metrics, writer])
        coordinator = coordinator or FakeCoordinator(parameter_count(config.model))
        coordinator.until_saved = writer._idle.wait
        coordinator.positions = config.tokens_per_step // SHARDS
        trainer = Trainer(config, data, tokenizer, coordinator, outlets)
        trainer.start_from(initial_params(config.model, 1))
        return trainer, SimpleNamespace(progress=shown, signals=outlets.signals)

    yield make
    for each in opened:
        each.close()


@pytest.fixture(scope="module")
def parameters(prepared):
    return parameter_count(prepared[0].model)


def assert_equal_states(first, second):
    for name in ("params", "m", "v"):
        assert first[name].tobytes() == second[name].tobytes(), name


def tensor_of(config, name):
    return next(tensor for tensor in layout(config.model) if tensor.name == name)


def test_a_nan_weight_stops_a_real_run_with_step_shard_and_tensor(prepared, make_trainer):
    config, data, _ = prepared
    compile_kernels(os.environ, lambda seconds: None)
    block = config.model.block_size
    offsets = train_offsets(config.train.seed, 1, 16, len(data.train), block)
    seen = [set(data.train[o : o + block].tolist()) for o in offsets]
    shards = [seen[2 * shard] | seen[2 * shard + 1] for shard in range(SHARDS)]
    shard, token = next(
        (shard, token)
        for shard in range(1, SHARDS)
        for token in sorted(shards[shard])
        if not any(token in other for other in shards[:shard])
    )
    with Coordinator(config, 2, data.directory, os.environ) as coordinator:
        trainer, _ = make_trainer(coordinator)
        coordinator.start()
        view_params(coordinator.arena.params, config.model).wte[token] = np.nan
        before = coordinator.arena.params.tobytes()
        with pytest.raises(RunError) as caught:
            trainer.train_step(1)
        assert coordinator.arena.params.tobytes() == before
    places = [place for place in range(2 * shard, 2 * shard + 2) if token in seen[place]]
    offset = int(offsets[places[0]])
    first = offset + data.train[offset : offset + block].tolist().index(token)
    assert str(caught.value) == (
        f"step 1: shard {shard} has a NaN or infinity in the gradient of wte, from sequence {places[0]} of "
        f"the batch (token {offset} of the training text): the forward pass has it first in the embeddings, "
        f"at token {first}; the weights are those of "
        "step 0; lower optim.lr, or set run.on_nonfinite to skip such steps"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_bad_tensor_of_the_first_bad_shard_is_named(prepared, make_trainer, parameters, bad):
    gradient = np.zeros((SHARDS, parameters), np.float32)
    gradient[6] = bad
    gradient[3, tensor_of(prepared[0], "mlp_fc_b").start] = bad
    gradient[3, tensor_of(prepared[0], "ln_f_w").start] = bad
    trainer, _ = make_trainer(FakeCoordinator(parameters, {3: gradient}))
    with pytest.raises(
        RunError,
        match=r"^step 3: shard 3 has a NaN or infinity in the gradient of mlp_fc_b, though computed again it "
        r"is finite: suspect this machine's memory or processor; the weights are those of step 2;",
    ):
        trainer.run()


def test_a_loss_that_is_not_finite_stops_the_run_too(make_trainer, parameters):
    coordinator = FakeCoordinator(parameters)
    coordinator.losses[2] = [4.0] * 5 + [math.inf] + [4.0] * 2
    trainer, _ = make_trainer(coordinator)
    with pytest.raises(
        RunError, match=r"^step 2: shard 5 has the loss inf, .*; the weights are those of step 1"
    ):
        trainer.run()


def test_a_sum_that_overflows_is_told_from_a_bad_shard(make_trainer, parameters):
    gradient = np.zeros((SHARDS, parameters), np.float32)
    gradient[:, 7] = 3e38
    trainer, _ = make_trainer(FakeCoordinator(parameters, {1: gradient}))
    with (
        np.errstate(over="ignore"),
        pytest.raises(RunError, match="overflows, though every shard's is finite"),
    ):
        trainer.run()


def test_a_skipped_step_is_counted_and_leaves_no_trace_in_the_weights(make_trainer, parameters, tmp_path):
    plain = {"optim__schedule": "constant", "optim__warmup_steps": 0}
    good, later = np.float32(0.01), np.float32(-0.02)
    skipping = FakeCoordinator(parameters, {1: good, 2: np.float32(math.nan), 3: later})
    trainer, outlets = make_trainer(skipping, train__steps=3, run__on_nonfinite="skip", **plain)
    trainer.run()
    manifest, arrays = load_checkpoint(tmp_path / "checkpoints/step-00000003")
    assert manifest.train.skipped_steps == 1
    (warning,) = outlets.progress.warnings
    assert warning.startswith(
        "warning: step 2 skipped (1 so far): shard 0 has a NaN or infinity in the gradient of wte, "
    )
    assert [math.isnan(row.grad_norm) for row in read_metrics(tmp_path / "metrics.csv")] == [
        False,
        True,
        False,
    ]
    without, _ = make_trainer(FakeCoordinator(parameters, {1: good, 2: later}), train__steps=2, **plain)
    without.train_step(1)
    without.train_step(2)
    assert_equal_states(arrays, without.restore_into())
    assert np.isfinite(arrays["params"]).all()


def test_a_resumed_trainer_goes_on_counting_skipped_steps(make_trainer, parameters, tmp_path):
    bad = {2: np.float32(math.nan), 4: np.float32(math.nan)}
    settings = {"run__on_nonfinite": "skip", "train__steps": 5, "checkpoint__every": 3}
    first, _ = make_trainer(FakeCoordinator(parameters, bad), **settings)
    first.run()
    resumed, outlets = make_trainer(FakeCoordinator(parameters, bad), **settings)
    manifest, _ = load_checkpoint(tmp_path / "checkpoints/step-00000003", out=resumed.restore_into())
    resumed.restore(manifest)
    resumed.run()
    assert "skipped (2 so far)" in outlets.progress.warnings[0]
    assert_equal_states(resumed.restore_into(), first.restore_into())


def test_too_many_skipped_steps_in_succession_end_the_run_with_its_last_state_saved(
    make_trainer, parameters, tmp_path
):
    bad = {step: np.float32(math.nan) for step in range(3, 40) if step != 5}
    settings = {"run__on_nonfinite": "skip", "checkpoint__every": 10}
    trainer, _ = make_trainer(FakeCoordinator(parameters, bad), **settings)
    with pytest.raises(NonFiniteError) as caught:
        trainer.run()
    last = 5 + MAX_SKIPPED_IN_A_ROW - 1
    assert caught.value.step == last + 1
    assert "the weights are those of step 5, for this is the 20th step in succession" in str(caught.value)
    manifest, arrays = load_checkpoint(tmp_path / f"checkpoints/step-{last:08d}")
    assert manifest.train.skipped_steps == 2 + MAX_SKIPPED_IN_A_ROW - 1
    assert np.isfinite(arrays["params"]).all()

    resumed, _ = make_trainer(FakeCoordinator(parameters, bad), **settings)
    manifest, _ = load_checkpoint(tmp_path / "checkpoints/step-00000010", out=resumed.restore_into())
    resumed.restore(manifest, read_metrics(tmp_path / "metrics.csv")[:10])
    with pytest.raises(NonFiniteError) as again:
        resumed.run()
    assert str(again.value) == str(caught.value)


def test_a_step_that_ends_the_run_leaves_the_step_before_saved(make_trainer, parameters, tmp_path):
    trainer, _ = make_trainer(FakeCoordinator(parameters, {4: np.float32(math.nan)}))
    with pytest.raises(NonFiniteError):
        trainer.run()
    assert [step for step, _ in step_directories(tmp_path / "checkpoints")] == [3]
    assert "saved step 3" in (tmp_path / "log.txt").read_text()


class Failing(FakeCoordinator):
    """Its workers, or the memory, fail at a step, in the gradient or in the validation."""

    def __init__(self, parameters, error, step, in_validation=False):
        super().__init__(parameters, validation=[4.0] * 20)
        self._error, self._at, self._in_validation = error, step, in_validation

    def gradient(self, step):
        if step == self._at and not self._in_validation:
            raise self._error
        return super().gradient(step)

    def validation_loss(self, step, count, spacing):
        if step == self._at:
            raise self._error
        return super().validation_loss(step, count, spacing)


@pytest.mark.parametrize(
    "error", [RunError("no worker is left"), MemoryError(), OSError(5, "Input/output error"), KeyError("bug")]
)
def test_whatever_ends_the_run_the_last_finished_step_is_saved_first(
    make_trainer, parameters, tmp_path, error
):
    trainer, _ = make_trainer(Failing(parameters, error, 4))
    with pytest.raises(type(error)) as caught:
        trainer.run()
    assert caught.value is error
    assert [step for step, _ in step_directories(tmp_path / "checkpoints")] == [3]
    assert trainer.saved_step == 3


def test_a_validation_that_ends_the_run_is_measured_again_after_it(make_trainer, parameters, tmp_path):
    trainer, _ = make_trainer(Failing(parameters, RunError("gone"), 2, in_validation=True), eval__every=1)
    with pytest.raises(RunError):
        trainer.run()
    saved = read_manifest(tmp_path / "checkpoints/step-00000002")
    assert saved.train.unmeasured is not None
    assert [row.val_loss for row in read_metrics(tmp_path / "metrics.csv")] == [4.0, None]


def test_weights_in_the_midst_of_an_update_are_not_saved(make_trainer, parameters, tmp_path, monkeypatch):
    trainer, _ = make_trainer(checkpoint__every=2)

    def torn(self, params, grad, updates, lr, clip):
        params[: len(params) // 2] += 1
        if updates == 4:
            raise MemoryError
        return True

    monkeypatch.setattr("feste_dp.optim.adamw.AdamW.update", torn)
    with pytest.raises(MemoryError):
        trainer.run()
    assert [step for step, _ in step_directories(tmp_path / "checkpoints")] == [2]


def test_a_save_that_fails_at_the_end_is_told_beside_what_ended_the_run(make_trainer, parameters):
    trainer, outlets = make_trainer(Failing(parameters, RunError("gone"), 4), filesystem=FullDisk())
    with pytest.raises(RunError, match=r"^gone$"):
        trainer.run()
    assert "step-00000003 was not saved: No space left" in outlets.progress.warnings[-1]
    assert trainer.saved_step is None


def test_a_sample_that_fails_is_a_warning(make_trainer, monkeypatch):
    def draw(*arguments, **options):
        raise ValueError("probabilities contain NaN")
        yield

    trainer, outlets = make_trainer(sample__every=1, train__steps=2)
    monkeypatch.setattr("feste_dp.model.sampling.Sampler.draw", draw)
    trainer.run()
    assert outlets.progress.warnings == [
        f"warning: step {step}: no sample: probabilities contain NaN" for step in (1, 2)
    ]


def test_more_workers_that_cannot_be_started_are_a_warning(make_trainer, parameters):
    coordinator = FakeCoordinator(parameters)

    def resize(workers):
        raise RunError("worker 2 could not be started: Too many open files")

    coordinator.resize = resize
    trainer, outlets = make_trainer(coordinator, train__steps=1)
    trainer._out = replace(trainer._out, requested_workers=lambda: 4)
    trainer.run()
    assert outlets.progress.warnings == [
        "warning: still 2 workers: worker 2 could not be started: Too many open files"
    ]


def test_a_gradient_whose_squares_overflow_is_not_taken_unless_clipped(make_trainer, parameters):
    huge = {1: np.float32(1e18)}  # the sum of the eight shards has the norm 8e18 sqrt(P)
    unclipped, _ = make_trainer(FakeCoordinator(parameters, huge), optim__clip_norm=0)
    with pytest.raises(
        NonFiniteError, match="the gradient is finite, but so large that its squares overflow"
    ):
        unclipped.train_step(1)
    clipped, _ = make_trainer(FakeCoordinator(parameters, huge))
    clipped.train_step(1)
    assert np.isfinite(clipped.restore_into()["v"]).all()


def test_weights_that_an_update_spoils_end_the_run_unsaved_even_where_steps_may_be_skipped(
    make_trainer, parameters, tmp_path
):
    coordinator = FakeCoordinator(parameters)
    trainer, _ = make_trainer(
        coordinator,
        optim__lr=10,
        optim__weight_decay=10,
        optim__schedule="constant",
        run__on_nonfinite="skip",
        checkpoint__every=1,
    )
    coordinator.arena.params[5] = 1e36  # decays to 1e36 (1 - 100)^n
    with pytest.raises(NonFiniteError, match=r"^step 2: the update leaves a NaN or infinity in .* of wte"):
        trainer.run()
    assert [step for step, _ in step_directories(tmp_path / "checkpoints")] == [1]


@pytest.mark.parametrize("name", ["m", "v", "params"])
def test_a_state_that_is_not_finite_is_never_saved(name, make_trainer, parameters, tmp_path):
    trainer, outlets = make_trainer(checkpoint__every=2)
    state = trainer.restore_into()
    shown = outlets.progress.step

    def damage(row, total_steps, best=False):
        state[name][7] = math.inf
        shown(row, total_steps, best)

    outlets.progress.step = damage
    with pytest.raises(NonFiniteError):
        trainer.run()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_loss_spike_is_told_once_the_same_after_a_resume_and_changes_nothing(
    make_trainer, parameters, tmp_path
):
    losses = {step: [4.0 + 0.01 * (step % 3)] * SHARDS for step in range(1, 41)}
    losses |= {30: [9.0] * SHARDS, 31: [9.5] * SHARDS}

    def coordinator():
        made = FakeCoordinator(parameters)
        made.losses = losses
        return made

    trainer, outlets = make_trainer(coordinator(), checkpoint__every=13)
    trainer.run()
    told = [event for event in outlets.progress.events if "spike" in event]
    assert len(told) == 1 and told[0].startswith("loss spike at step 30: 9.0000 is 4.9900 above the median")
    assert told[0] in (tmp_path / "log.txt").read_text()

    for start in (13, 26):
        resumed, again = make_trainer(coordinator())
        path = tmp_path / f"checkpoints/step-{start:08d}"
        manifest, _ = load_checkpoint(path, out=resumed.restore_into())
        resumed.restore(manifest, read_metrics(tmp_path / "metrics.csv")[:start])
        resumed.run()
        assert [event for event in again.progress.events if "spike" in event] == told
        assert_equal_states(resumed.restore_into(), trainer.restore_into())


def test_training_stops_when_validation_no_longer_improves(make_trainer, parameters, tmp_path):
    coordinator = FakeCoordinator(parameters, validation=[5.0, 4.0, 4.0, math.nan, 4.5, 1.0])
    trainer, outlets = make_trainer(coordinator, eval__every=2, eval__patience=3)
    trainer.run()
    assert trainer.step == 10 and trainer.finished and not trainer.degraded
    told = "early stop: no better validation loss in 3 evaluations; best 4.0000 (perplexity 54.6) at step 4"
    assert told in outlets.progress.events and told in (tmp_path / "log.txt").read_text()
    assert [step for step, _ in step_directories(tmp_path / "checkpoints")] == [2, 4, 10]
    assert (tmp_path / "checkpoints/best").readlink().name == "step-00000004"
    manifest = read_manifest(tmp_path / "checkpoints/step-00000010")
    assert (manifest.train.best_step, manifest.train.evals_since_best) == (4, 3)


def test_without_patience_all_steps_are_done(make_trainer, parameters):
    coordinator = FakeCoordinator(parameters, validation=[4.0] * 20)
    trainer, _ = make_trainer(coordinator, eval__every=2, eval__patience=0)
    trainer.run()
    assert trainer.step == 40


def test_the_last_step_is_validated_sampled_and_saved_at_any_pace(make_trainer, parameters, tmp_path):
    coordinator = FakeCoordinator(parameters, validation=[4.0, 3.0, 2.0])
    trainer, _ = make_trainer(
        coordinator, train__steps=7, eval__every=3, sample__every=5, checkpoint__every=4, sample__tokens=2
    )
    trainer.run()
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row.step for row in rows if row.val_loss is not None] == [3, 6, 7]
    assert [row.step for row in rows if row.sample] == [5, 7]
    assert all(row.sample.startswith("KING.") for row in rows if row.sample)
    # best after 3, 6 and 7, periodic after 4
    assert [step for step, _ in step_directories(tmp_path / "checkpoints")] == [3, 4, 6, 7]


def test_a_request_to_save_is_served_once_and_training_goes_on(make_trainer, tmp_path):
    trainer, outlets = make_trainer(train__steps=5)
    outlets.signals.save_requested = True
    trainer.run()
    assert [step for step, _ in step_directories(tmp_path / "checkpoints")] == [1, 5]


def test_a_failed_save_is_reported_within_a_step_and_training_goes_on(make_trainer, tmp_path):
    trainer, outlets = make_trainer(filesystem=FullDisk(), train__steps=8, checkpoint__every=4)
    trainer.run()
    assert trainer.step == 8 and trainer.degraded
    events = outlets.progress.events
    first, last = (events.index(warning) for warning in outlets.progress.warnings)
    assert events.index("step 4") < first <= events.index("step 5") + 1 and last == len(events) - 1
    assert "step-00000004 was not saved: No space left on device" in events[first]
    assert "step-00000004 was not saved" in (tmp_path / "log.txt").read_text()
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert len(read_metrics(tmp_path / "metrics.csv")) == 8


def test_saves_work_again_once_the_disk_has_room(make_trainer, tmp_path):
    disk = FullDisk()
    trainer, outlets = make_trainer(filesystem=disk, train__steps=6, checkpoint__every=2)
    outlets.progress.warning = lambda text: setattr(disk, "is_full", False)
    trainer.run()
    assert [step for step, _ in step_directories(tmp_path / "checkpoints")] == [4, 6]
    assert trainer.degraded


def test_a_metrics_row_that_cannot_be_written_is_reported_once_and_training_goes_on(make_trainer, tmp_path):
    trainer, outlets = make_trainer(metrics=FullMetrics, train__steps=6)
    trainer.run()
    assert trainer.step == 6 and trainer.degraded
    assert outlets.progress.warnings == ["warning: step 2: metrics row not written: No space left on device"]
    assert [row.step for row in read_metrics(tmp_path / "metrics.csv")] == [1, 5, 6]


@pytest.mark.parametrize("broken", ["checkpoints", "metrics"])
def test_a_run_that_could_not_save_all_exits_with_status_one_and_says_so(runs, monkeypatch, broken):
    if broken == "checkpoints":
        full = functools.partial(BackgroundWriter, filesystem=FullDisk())
        monkeypatch.setattr(opening, "BackgroundWriter", full)
    else:
        monkeypatch.setattr(opening, "MetricsWriter", FullMetrics)
    outcome = runs.launch(runs.config(run__workers=1, train__steps=6))
    assert outcome.status == 1
    assert "finished after step 6" in outcome.result and "could not be saved" in outcome.result
    assert "No space left on device" in outcome.warnings
    assert (outcome.run / "checkpoints/latest").exists() == (broken == "metrics")


def test_a_run_with_a_nan_ends_with_the_way_to_go_on(runs, monkeypatch):
    def broken(cfg, seed):
        params = initial_params(cfg, seed)
        params[-1] = np.nan
        return params

    monkeypatch.setattr(initial_weights, "initial_params", broken)
    config = runs.config(run__workers=1)
    with pytest.raises(RunError) as caught:
        runs.launch(config)
    message = str(caught.value)
    assert message.startswith("step 1: shard 0 has a NaN") and "feste-dp resume" in message
    assert "\n" not in message


def test_a_worker_that_is_slow_for_a_while_is_named_on_screen_and_in_the_log(make_trainer, tmp_path):
    slow, even = ([4.0, 1.0], [4, 4]), ([1.0, 1.0], [4, 4])
    trainer, outlets = make_trainer(train__steps=60)
    fake = trainer._workforce
    gradient = fake.gradient

    def timed(step):
        seconds, shards = slow if 5 <= step < 30 else even
        return replace(gradient(step), worker_seconds=seconds, worker_shards=shards)

    fake.gradient = timed
    trainer.run()
    (warning,) = outlets.progress.warnings
    assert warning.startswith("warning: worker 0 has been slow for 20 steps: 1e+03 ms a shard, 4.0 times")
    assert "worker 0 is as fast as the others again" in outlets.progress.events
    log = (tmp_path / "log.txt").read_text()
    assert log.count("worker 0 has been slow") == log.count("worker 0 is as fast") == 1


def test_the_log_has_the_times_of_every_worker_now_and_then(make_trainer, tmp_path):
    trainer, _ = make_trainer(train__steps=100)
    trainer.run()
    assert (tmp_path / "log.txt").read_text().count("compute, ms a step over 100 steps, by worker: 0: 0") == 1
