import math

import numpy as np
import pytest

import feste_dp
from feste_dp.api.model import Model
from feste_dp.config.schema import ModelConfig
from feste_dp.data.tokenizer import train_tokenizer
from feste_dp.run.exporting import export_to_hugging_face
from feste_dp.run.trained_model import load_trained_model
from tests.model.plain_path import plain_logits

CFG = ModelConfig(vocab_size=270, block_size=12, n_layer=1, n_head=2, n_embd=16, tie_embeddings=False)
TEXT = "the king and the queen and the other thing of the king"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([TEXT + "\n"] * 9, 270)


@pytest.fixture
def model(tokenizer):
    weights = 5 * feste_dp.new({"model": CFG.model_dump()}, {"train.seed": 3}).weights
    return Model(CFG, weights, tokenizer)


def test_logits_are_those_of_training(model, tokenizer):
    tokens = tokenizer.encode(TEXT)[:12]
    assert len(tokens) == 12
    expected = plain_logits(CFG, model.weights, tokens.tolist())
    np.testing.assert_array_equal(model.logits(tokens), expected)
    np.testing.assert_array_equal(model.logits(tokens.tolist()[:5]), expected[:5])
    np.testing.assert_array_equal(model.logits(np.stack([tokens, tokens])), np.stack([expected, expected]))


def test_the_loss_is_the_mean_over_windows_of_the_text(model, tokenizer):
    tokens, block = tokenizer.encode(3 * TEXT).tolist(), CFG.block_size
    assert 2 * block < len(tokens) - 1 and (len(tokens) - 1) % block
    losses = []
    for start in range(0, len(tokens) - 1, block):
        window, targets = tokens[start : start + block], tokens[start + 1 : start + block + 1]
        for scores, target in zip(model.logits(window[: len(targets)]).astype(float), targets, strict=True):
            losses.append(math.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[target])
    assert model.loss(3 * TEXT) == model.loss(tokens) == pytest.approx(np.mean(losses), rel=1e-5)


def test_parameters_are_views_and_the_gradient_is_theirs(model):
    text = TEXT[:30]
    loss, gradient = model.loss_and_gradient(text)
    assert loss == model.loss(text)
    assert gradient.keys() == model.parameters.keys()
    assert sum(view.size for view in model.parameters.values()) == model.weights.size
    for name in ("lm_head_w", "mlp_fc_b", "attn_qkv_w"):
        slope = gradient[name]
        place = np.unravel_index(np.argmax(np.abs(slope)), slope.shape)
        before, step = model.parameters[name][place], np.float32(0.01)
        around = []
        for moved in (before - step, before + step):
            model.parameters[name][place] = moved
            around.append(model.loss(text))
        model.parameters[name][place] = before
        assert (around[1] - around[0]) / (2 * step) == pytest.approx(slope[place], rel=0.02)


def test_text_is_written_whole_in_pieces_and_several_at_once(model):
    options = {"temperature": 1.0, "top_k": 50, "seed": 4}
    text = model.generate("the king", 30, **options)
    assert text == "".join(model.stream("the king", 30, **options)) != model.generate("the king", 30)
    several = model.generate_all(["a", "the king"], 30, samples=2, **options)
    assert [(each.prompt, each.sample) for each in several] == [
        ("a", 0),
        ("a", 1),
        ("the king", 0),
        ("the king", 1),
    ]
    assert (several[2].text, several[2].tokens, several[2].finish) == (text, 30, "length")
    part = text[3:5]
    assert model.generate("the king", 30, stop=part, **options) == text.partition(part)[0]


def test_a_run_its_checkpoints_and_its_export_are_loaded(whole, config, tmp_path):
    run, _ = whole
    best, latest = feste_dp.load(run), feste_dp.load(str(run), "latest")
    assert best.config.n_embd == 16 and best.tokenizer.vocab_size == 300
    again = feste_dp.load(run / "checkpoints" / "step-00000012")
    np.testing.assert_array_equal(again.weights, latest.weights)
    np.testing.assert_array_equal(feste_dp.load(run, 12).weights, latest.weights)
    assert not np.array_equal(latest.weights, feste_dp.new(config).weights)
    assert latest.loss(TEXT) < feste_dp.new(config).loss(latest.tokenizer.encode(TEXT))
    export_to_hugging_face(load_trained_model(run, "latest"), tmp_path / "export")
    exported = feste_dp.load(tmp_path / "export")
    np.testing.assert_array_equal(exported.weights, latest.weights)
    assert exported.generate("KING.", 9) == latest.generate("KING.", 9)
    with pytest.raises(feste_dp.UsageError, match=r"^checkpoint: .*export is no run"):
        feste_dp.load(tmp_path / "export", "best")
    assert "parameters, 1 layer, 2 heads, 16 channels, vocabulary 300, context 16" in repr(latest)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: model.logits([]), "0 tokens: the model takes from 1 to 12 at once"),
        (lambda model: model.logits(range(13)), "13 tokens: the model takes from 1 to 12"),
        (lambda model: model.logits([270]), "tokens are from 0 to 269"),
        (lambda model: model.logits([0.5]), "give a string, or whole numbers"),
        (lambda model: model.loss([1]), "give one text of at least 2 tokens"),
        (
            lambda model: model.loss_and_gradient(list(range(14))),
            "14 tokens: a gradient is of at most 13",
        ),
        (lambda model: model.generate(""), "prompt: is empty"),
        (lambda model: model.generate("a", 0), "tokens: 0: ask for 1 or more"),
        (lambda model: model.generate("a", temperature=-1), "temperature: expected a number from 0"),
        (lambda model: model.generate("a", top_p=0), "top_p: expected a number above 0"),
        (lambda model: model.generate("a", top_k=0), "top_k: expected 1 or more"),
        (lambda model: Model(CFG, model.weights, None).loss("a b"), "this model has no tokenizer"),
        (lambda model: feste_dp.load("/nowhere"), "/nowhere is neither a run, nor a checkpoint"),
    ],
)
def test_bad_arguments_are_one_line(model, call, words):
    with pytest.raises(feste_dp.UsageError) as refused:
        call(model)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_an_unknown_option_is_a_type_error(model):
    with pytest.raises(TypeError, match="unknown option 'topk'; there are temperature, top_k"):
        model.generate("a", topk=3)
