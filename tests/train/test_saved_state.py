"""A run's checkpoints, crafted or changed under a reader's hands: refused by name, or read again."""

import hashlib
import json
import shutil

import pytest

from feste_dp.checkpoint.loading import load_checkpoint
from feste_dp.data.tokenizer import load_tokenizer, train_tokenizer
from feste_dp.errors import UsageError
from feste_dp.run import saved_state, trained_model
from feste_dp.run.trained_model import load_trained_model
from tests.checkpoint.conftest import seal_manifest


@pytest.fixture
def copy(straight, tmp_path):
    """A copy of a finished run of 40 steps, to be tampered with."""
    return shutil.copytree(straight.run, tmp_path / "run", symlinks=True)


def reseal(checkpoint, change):
    """Changes the manifest and gives it a right hash of its own again."""
    path = checkpoint / "manifest.json"
    content = json.loads(path.read_text())
    del content["manifest_sha256"]
    change(content)
    path.write_bytes(seal_manifest(json.dumps(content, indent=1).removesuffix("\n}")))


def refusal(run, which="latest"):
    with pytest.raises(UsageError) as caught:
        load_trained_model(run, which)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(config={}), "its tensors are not those of its config's model"),
        (lambda c: c.update(config={"model": 3}), "its config is not one of this program: model: "),
        (
            lambda c: c["config"]["model"].update(n_layer="2\n\x1b[31m"),
            "not one of this program: model.n_layer",
        ),
        (lambda c: c["config"]["model"].update(n_embd=33), "is not divisible by model.n_head 2"),
        (lambda c: c["config"].update({"x" * 70: {}}), "its config is not one of this program: xxx"),
        (lambda c: c["config"]["model"].update(n_head=4), None),
        (
            lambda c: c["config"]["model"].update(n_layer=1024, n_embd=65536, n_head=1),
            "its tensors are not those",
        ),
        (lambda c: c["layout"][0].update(name="etw"), "its tensors are not those of its config's model"),
    ],
)
def test_a_checkpoint_whose_config_and_tensors_disagree_is_refused(copy, change, words):
    reseal(copy / "checkpoints/step-00000040", change)
    if words is None:  # the same tensors: another model, but one that the program can run
        assert load_trained_model(copy, "latest").config.model.n_head == 4
    else:
        assert words in refusal(copy, "40")


def test_a_forged_config_is_passed_over_by_no_resume(runs, copy):
    reseal(copy / "checkpoints/step-00000040", lambda c: c.update(config={"model": []}))
    with pytest.raises(UsageError, match="its config is not one of this program"):
        runs.resume(copy)


def test_a_checkpoint_larger_than_the_memory_is_refused_before_memory_is_taken(copy, monkeypatch):
    monkeypatch.setattr(saved_state, "available_memory", lambda: 1000)
    monkeypatch.setattr(trained_model, "load_checkpoint", None)
    assert "MiB of memory, 0 MiB are available" in refusal(copy, "40")


def test_another_tokenizer_than_the_checkpoints_is_refused_by_name(copy):
    content = (copy / "tokenizer.json").read_bytes()
    for changed in (
        train_tokenizer(["another text, another one, and another\n" * 9], 270).to_json(),
        content.replace(b'"e"', b'"f"'),
        content[:-100],
        b"",
    ):
        (copy / "tokenizer.json").write_bytes(changed)
        assert "tokenizer.json is damaged or another one" in refusal(copy)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused_though_its_hash_is_right(copy):
    other = train_tokenizer([(copy / "config.yaml").read_text() * 3], 320)
    (copy / "tokenizer.json").write_bytes(other.to_json())
    sha256 = hashlib.sha256(other.to_json()).hexdigest()
    reseal(copy / "checkpoints/step-00000040", lambda c: c.update(tokenizer_sha256=sha256))
    assert "has 320 tokens where the checkpoint's model has 300" in refusal(copy, "40")


def test_a_resume_puts_a_damaged_tokenizer_back_and_says_so(runs, copy):
    content = (copy / "tokenizer.json").read_bytes()
    shutil.rmtree(copy / "checkpoints/step-00000040")
    (copy / "tokenizer.json").write_bytes(content[:-7])
    resumed = runs.resume(copy)
    assert resumed.status == 0 and "tokenizer.json was damaged" in resumed.warnings
    assert (copy / "tokenizer.json").read_bytes() == content
    assert load_tokenizer(copy / "tokenizer.json").vocab_size == 300


@pytest.mark.parametrize("lost", [1, 4])
def test_a_checkpoint_that_the_running_training_removes_is_chosen_anew(copy, monkeypatch, lost):
    removed = []

    def late(path, **options):
        if len(removed) < lost:  # retention is faster than this reader
            shutil.rmtree(path)
            removed.append(path.name)
        return load_checkpoint(path, **options)

    monkeypatch.setattr(trained_model, "load_checkpoint", late)
    model = load_trained_model(copy, "latest")
    assert removed[0] == "step-00000040" and model.path.name not in removed


def test_a_checkpoint_that_is_gone_each_time_is_one_line(copy, monkeypatch):
    def never(path, **options):
        shutil.rmtree(path)
        return load_checkpoint(path, **options)

    monkeypatch.setattr(trained_model, "load_checkpoint", never)
    assert "is not a checkpoint directory" in refusal(copy) or "there is no checkpoint" in refusal(copy)
