import math
from dataclasses import replace

import numpy as np
import pytest

from feste_dp.data.tokens import open_token_data
from feste_dp.errors import RunError, UsageError
from feste_dp.model.choosing import Choice
from feste_dp.run.continuation import Continuations, Wanted
from feste_dp.run.metrics import read_metrics
from feste_dp.run.trained_model import evaluate_model, evaluation_data, load_trained_model
from tests.model.plain_path import plain_logits


@pytest.fixture(scope="module")
def model(straight):
    return load_trained_model(straight.run, None)


def test_the_best_checkpoint_is_read_unless_another_is_named(straight):
    rows = [row for row in read_metrics(straight.run / "metrics.csv") if row.val_loss is not None]
    best = min(rows, key=lambda row: row.val_loss).step
    assert load_trained_model(straight.run, None).manifest.step == best
    assert load_trained_model(straight.run, "best").manifest.step == best
    assert load_trained_model(straight.run, "latest").manifest.step == 40
    assert load_trained_model(straight.run, "20").manifest.step == 20


@pytest.mark.parametrize("which", ["newest", "-1", "", "9999999999999", "7"])
def test_a_checkpoint_that_is_not_there_is_refused(straight, which):
    with pytest.raises(UsageError):
        load_trained_model(straight.run, which)


def written(model, prompt, tokens, **choice):
    wanted = Wanted(tokens, Choice(**choice))
    return Continuations(model.config.model, model.arrays["params"], model.tokenizer, [prompt], wanted)


def test_a_trained_model_writes_the_likeliest_tokens_that_it_computes_anew_for_each(model):
    cfg, prompt = model.config.model, model.tokenizer.encode("KING.\n").tolist()
    tokens = list(prompt)
    while len(tokens) < cfg.block_size + 1:
        tokens.append(int(np.argmax(plain_logits(cfg, model.arrays["params"], tokens)[-1])))
    count = len(tokens) - len(prompt)
    assert count > 20
    text = "".join(piece for _, piece in written(model, "KING.\n", count, temperature=0))
    assert text == model.tokenizer.decode(tokens[len(prompt) :])


def test_a_model_of_no_use_neither_writes_nor_is_measured(model, runs):
    params = np.full_like(model.arrays["params"], 1e30)  # finite, but what is computed with them is not
    useless = replace(model, arrays={**model.arrays, "params": params})
    with pytest.raises(RunError, match="cannot write token 1"):
        next(iter(written(useless, "KING.", 5, temperature=0.0)))
    with pytest.raises(RunError, match=r"the loss of step-.* on this text is nan"):
        evaluate_model(useless, evaluation_data(model, None, runs.cache)[0], 1)


def test_the_loss_over_all_held_out_text_does_not_depend_on_the_worker_count(model, runs, straight):
    own, _ = evaluation_data(model, None, runs.cache)
    first, second = (evaluate_model(model, own, workers) for workers in (1, 3))
    assert first == second
    validated = [row.val_loss for row in read_metrics(straight.run / "metrics.csv") if row.val_loss]
    assert first.loss == pytest.approx(min(validated), rel=0.1)  # other sequences of the same text
    assert first.perplexity == pytest.approx(math.exp(first.loss))
    (directory,) = {path.parent for path in (runs.cache / "corpora").glob("*/meta.json") if fits(path, model)}
    data = open_token_data(directory)
    assert first.tokens == (len(data.val) - 1) // 32 // 2 * 2 * 32
    bits = first.loss / math.log(2) * len(data.val) / data.val_bytes
    assert first.bits_per_byte == pytest.approx(bits)


def fits(meta, model):
    return open_token_data(meta.parent).fingerprint == model.manifest.data_sha256
