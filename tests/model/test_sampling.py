import math
from itertools import pairwise

import numpy as np
import pytest

from feste_dp.config.schema import ModelConfig
from feste_dp.model.choosing import Choice
from feste_dp.model.decoder import Decoder
from feste_dp.model.parameters import initial_params, view_params
from feste_dp.model.sampling import Drawing, NonFiniteLogitsError, Sampler, kept_of_window
from tests.model.plain_path import plain_logits

CFG = ModelConfig(
    vocab_size=256, block_size=70, n_layer=2, n_head=2, n_embd=16, dropout=0.3, tie_embeddings=True
)


@pytest.fixture(scope="module")
def weights():
    # larger than at the start of a run, so that the logits of tokens differ
    return 10 * initial_params(CFG, 1)


@pytest.fixture
def sampler(weights):
    return Sampler(CFG, view_params(weights, CFG))


def test_drawing_is_a_pure_function_of_weights_and_arguments(sampler, weights):
    def drawn(by, **changes):
        return list(by.draw([1, 2, 3], 40, **{"temperature": 1.0, "seed": 5, "step": 7} | changes))

    first = drawn(sampler)
    list(sampler.draw(list(range(60)), 3, temperature=1.0, seed=1))
    assert drawn(sampler) == first == drawn(Sampler(CFG, view_params(weights.copy(), CFG)))
    others = [drawn(sampler, **change) for change in ({"seed": 6}, {"step": 8}, {"temperature": 2.0})]
    assert all(other != first for other in others)
    assert len(first) == 40 and all(0 <= token < CFG.vocab_size for token in first)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_nothing_is_drawn_from_scores_that_are_no_numbers(weights, bad, temperature):
    spoiled = weights.copy()
    view_params(spoiled, CFG).ln_f_b[0] = bad
    with pytest.raises(NonFiniteLogitsError, match="cannot write token 1: its scores"):
        next(Sampler(CFG, view_params(spoiled, CFG)).draw([1, 2], 5, temperature=temperature, seed=1))


def test_fewer_tokens_are_the_first_of_more(sampler):
    more = list(sampler.draw([9], 40, temperature=1.0, seed=2))
    assert list(sampler.draw([9], 10, temperature=1.0, seed=2)) == more[:10]


def test_dropout_is_off_and_a_long_prompt_is_seen_from_where_the_rule_says(sampler, weights, rng):
    prompt = rng.integers(0, CFG.vocab_size, 3 * CFG.block_size).tolist()
    kept = kept_of_window(CFG.block_size)
    assert CFG.block_size // 2 < kept < CFG.block_size
    drawn = list(sampler.draw(prompt, 3 * CFG.block_size, temperature=0, seed=1))
    assert drawn == plainly(weights, prompt, 3 * CFG.block_size)
    assert drawn == list(sampler.draw(prompt[-kept:], 3 * CFG.block_size, temperature=0, seed=1))


@pytest.mark.parametrize("block_size", [1, 2, 3, 5])
def test_a_window_of_a_few_tokens_moves_on(block_size):
    cfg = CFG.model_copy(update={"block_size": block_size})
    weights = 10 * initial_params(cfg, 1)
    assert 1 <= kept_of_window(block_size) <= block_size
    for length in (1, 2, 7):
        drawn = list(Sampler(cfg, view_params(weights, cfg)).draw([3] * length, 12, temperature=0, seed=1))
        assert drawn == plainly(weights, [3] * length, 12, cfg)


def test_text_grows_past_a_block_without_a_break(sampler):
    drawn = list(sampler.draw([1], CFG.block_size + 40, temperature=1.0, seed=3))
    assert len(drawn) == CFG.block_size + 40
    assert len(set(pairwise(drawn))) > CFG.block_size // 2  # it does not get stuck on a few tokens


def test_likelier_tokens_come_more_often_at_lower_temperature(sampler, weights):
    def mean_logit(temperature):
        logits = plain_logits(CFG, weights, [4])[-1]
        tokens = [next(sampler.draw([4], 1, temperature=temperature, seed=s)) for s in range(50)]
        return math.fsum(float(logits[token]) for token in tokens) / len(tokens)

    assert mean_logit(1.0) > mean_logit(10.0) > mean_logit(1000.0)


@pytest.mark.parametrize("samples", [1, 3])
def test_texts_that_are_drawn_together_are_those_drawn_alone(weights, samples):
    prompts = [[5], list(range(60)), [7, 8, 9]]
    choice = Choice(temperature=1.0, top_p=0.95, repetition_penalty=1.2)

    def texts(prompts, threads):
        slots = len(prompts) * samples
        decoder = Decoder(CFG, view_params(weights, CFG), slots, CFG.block_size, threads)
        drawing = Drawing(decoder, CFG, prompts, samples, choice, seed=3)
        drawn = [[] for _ in range(slots)]
        for number in range(40):
            if number == 10 and len(drawing.live) > 2:
                drawing.live.remove(1)  # ends early: the others go on as they would
            for text, token in drawing.advance():
                drawn[text].append(token)
        return drawn

    together = texts(prompts, 2)
    alone = [text for prompt in prompts for text in texts([prompt], 1)]
    assert [len(text) for text in together] == [40, 10] + [40] * (3 * samples - 2)
    assert [text[:10] for text in together] == [text[:10] for text in alone]
    assert (
        together[2:]
        == [
            text if len(text) == 40 else text + whole[10:]
            for text, whole in zip(alone, together, strict=True)
        ][2:]
    )


def plainly(weights, prompt, count, cfg=CFG):
    """Likeliest tokens, with all that is seen computed anew for each; past the window by the rule."""
    tokens, start = list(prompt), 0
    if len(tokens) > cfg.block_size:
        start = len(tokens) - kept_of_window(cfg.block_size)
    for _ in range(count):
        if len(tokens) - start > cfg.block_size:
            start = len(tokens) - kept_of_window(cfg.block_size)
        tokens.append(int(np.argmax(plain_logits(cfg, weights, tokens[start:])[-1])))
    return tokens[len(prompt) :]
