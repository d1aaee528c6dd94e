"""feste-dp export and import: a model goes out and comes back, and writes and measures the same."""

import json

import pytest


@pytest.fixture(scope="module")
def exported(place, tmp_path_factory):
    return tmp_path_factory.mktemp("exported") / "hf"


def test_a_run_goes_out_and_comes_back_the_same(feste, place, exported, tmp_path):
    out = feste("export", place.run, "--to", "hf", exported)
    assert (out.status, out.err) == (0, "")
    assert out.out.startswith(f"{exported}: step 12, ") and "vocabulary 300, context 16" in out.out
    assert sorted(path.name for path in exported.iterdir()) == [
        *("README.md", "config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    card = (exported / "README.md").read_text()
    assert "- validation loss: 5." in card and "- training loss: 5." in card and "- text: `tokens`" in card
    run = tmp_path / "back"
    back = feste("import", exported, "--out", run)
    assert (
        back.status == 0 and f"to train it:   feste-dp launch --config CONFIG --init-from {run}" in back.out
    )
    arguments = ("--prompt", "KING.", "--tokens", "12", "--temperature", "0")
    assert feste("generate", run, *arguments).out == feste("generate", place.run, *arguments).out
    losses = [
        json.loads(feste("evaluate", each, "--data", place.tokens, "--json").out)["loss"]
        for each in (run, place.run)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # shards of other sizes add up in another order
    assert feste("checkpoint", "verify", run).out.split()[:2] == ["step", "0"]
    resumed = feste("resume", run)
    assert resumed.status == 2 and "was imported and has no text of its own" in resumed.err
    assert feste("runs", tmp_path).status == 0


def test_the_checkpoint_that_was_asked_for_is_exported(feste, place, tmp_path):
    result = feste("export", place.run, "--to", "hf", tmp_path / "out", "--checkpoint", "4")
    assert result.status == 0 and "step 4," in result.out


def test_bad_input_creates_nothing(feste, place, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").touch()
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, words in (
        (("export", place.run, "--to", "onnx", tmp_path / "out"), "'onnx' is not"),
        (("export", place.run, "--to", "hf", taken), "exists and is not empty"),
        (
            ("export", place.run, "--to", "hf", tmp_path / "out", "--checkpoint", "5"),
            "no checkpoint of that step",
        ),
        (("export", tmp_path / "none", "--to", "hf", tmp_path / "out"), "there is no such directory"),
        (("import", empty, "--out", tmp_path / "out"), "has no tokenizer.json"),
        (
            ("import", empty, "--tokenizer", place.run, "--out", tmp_path / "out"),
            "config.json does not exist",
        ),
        (("import", tmp_path / "none", "--out", tmp_path / "out"), "does not exist"),
        (("import", place.run, "--out", tmp_path / "out"), "config.json does not exist"),
        (("import", place.run, "--out", taken), "exists and is not empty"),
    ):
        result = feste(*arguments)
        assert result.status == 2 and result.out == ""
        assert words in result.err and result.err.count("\n") == 1
    launch = ("launch", "--config", place.config, "--out", tmp_path / "out", "--init-from")
    for arguments, words in (
        ((tmp_path / "none",), "--init-from: "),
        ((place.tokens,), "is neither a run, nor a checkpoint of one, nor a Hugging Face directory"),
        ((place.run, "--set", "model.n_layer=2"), "model.n_layer is 2, theirs 1: leave these keys out"),
        ((place.run, "--set", "model.block_size=8"), "or set model.init_resize=context"),
    ):
        result = feste(*launch, *arguments)
        assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
        assert words in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "taken"]
