import math
from itertools import pairwise

import numpy as np
import pytest

from feste_dp.config.schema import ModelConfig
from feste_dp.kernels.philox import STREAM_SAMPLE, uniform
from feste_dp.model.gpt2 import forward
from feste_dp.model.parameters import initial_params, view_params
from feste_dp.model.sampling import NonFiniteLogitsError, Sampler, choose
from feste_dp.model.workspace import make_activations, make_scratch

CFG = ModelConfig(
    vocab_size=256, block_size=70, n_layer=2, n_head=2, n_embd=16, dropout=0.3, tie_embeddings=True
)
DRAWS = 4000
# Chi-square with 7 degrees of freedom exceeds this once in ten thousand times; the seeds are fixed.
CHI_SQUARE_7 = 29.9


@pytest.fixture(scope="module")
def weights():
    # larger than at the start of a run, so that the logits of tokens differ
    return 10 * initial_params(CFG, 1)


@pytest.fixture
def sampler(weights):
    return Sampler(CFG, view_params(weights, CFG))


def softmax(logits, temperature):
    scores = np.exp(logits.astype(np.float64) / temperature)
    return scores / scores.sum()


def draw_many(logits, temperature, top_k, seed):
    chosen = [
        choose(logits, uniform(i, 0, 0, STREAM_SAMPLE, np.uint64(seed)), temperature, top_k)
        for i in range(DRAWS)
    ]
    return np.bincount(chosen, minlength=len(logits))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_with_the_probabilities_of_the_softmax(rng, temperature):
    logits = rng.standard_normal(8, dtype=np.float32)
    expected = softmax(logits, temperature) * DRAWS
    found = draw_many(logits, temperature, None, seed=11)
    assert ((found - expected) ** 2 / expected).sum() < CHI_SQUARE_7


def test_only_the_top_k_are_drawn_in_their_proportions(rng):
    logits = rng.standard_normal(40, dtype=np.float32)
    kept = np.sort(np.argsort(-logits)[:8])
    found = draw_many(logits, 1.0, 8, seed=12)
    assert found.sum() == found[kept].sum() == DRAWS
    expected = softmax(logits[kept], 1.0) * DRAWS
    assert ((found[kept] - expected) ** 2 / expected).sum() < CHI_SQUARE_7


def test_a_token_is_chosen_by_the_quantile_of_the_cumulative_distribution():
    logits = np.log(np.array([1, 2, 1], np.float32))
    chosen = [choose(logits, u, 1.0, None) for u in (0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-53)]
    assert chosen == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("top_k", [None, 1, 3])
def test_temperature_zero_takes_the_likeliest_token_and_the_lowest_of_equals(top_k):
    logits = np.array([0, 5, 1, 5], np.float32)
    assert {choose(logits, u, 0, top_k) for u in (0.0, 0.5, 0.999)} == {1}


def test_a_top_k_of_one_is_the_likeliest_token_at_any_temperature():
    logits = np.array([0, 1, 1, -3], np.float32)
    assert {choose(logits, u, 5.0, 1) for u in (0.0, 0.5, 0.999)} == {1}


def test_ties_at_the_edge_of_the_top_k_go_to_the_lower_token():
    logits = np.array([1, 2, 1, 1], np.float32)
    assert {choose(logits, u, 1.0, 2) for u in np.linspace(0, 0.999, 50)} == {0, 1}


def test_a_top_k_above_the_vocabulary_keeps_every_token(rng):
    logits = rng.standard_normal(5, dtype=np.float32)
    for u in np.linspace(0, 0.999, 20):
        assert choose(logits, u, 1.0, 5) == choose(logits, u, 1.0, 99) == choose(logits, u, 1.0, None)


def test_huge_logits_and_a_tiny_temperature_do_not_overflow():
    logits = np.array([-3e38, 3e38, 2e38], np.float32)
    assert choose(logits, 0.99, 1e-6, None) == 1
    assert choose(np.full(4, -3e38, np.float32), 0.6, 1.0, None) == 2


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


def test_rounding_the_length_up_does_not_change_the_logits(sampler, weights, rng):
    tokens = rng.integers(0, CFG.vocab_size, CFG.block_size).tolist()
    for length in (1, 5, 31, 32, 33, 64, 65, 69, 70):
        window = tokens[:length]
        np.testing.assert_array_equal(sampler._logits(window), exact_logits(weights, window))


def test_dropout_is_off_and_only_the_last_block_of_tokens_is_seen(sampler, weights, rng):
    prompt = rng.integers(0, CFG.vocab_size, 3 * CFG.block_size).tolist()
    drawn = list(sampler.draw(prompt, 3, temperature=0, seed=1))
    text = [*prompt, *drawn]
    for place in range(len(prompt), len(text)):
        logits = exact_logits(weights, text[place - CFG.block_size : place])
        assert text[place] == int(np.argmax(logits))


def test_text_grows_past_a_block_without_a_break(sampler):
    drawn = list(sampler.draw([1], CFG.block_size + 40, temperature=1.0, seed=3))
    assert len(drawn) == CFG.block_size + 40
    assert len(set(pairwise(drawn))) > CFG.block_size // 2  # it does not get stuck on a few tokens


def test_likelier_tokens_come_more_often_at_lower_temperature(sampler, weights):
    def mean_logit(temperature):
        logits = exact_logits(weights, [4])
        tokens = [next(sampler.draw([4], 1, temperature=temperature, seed=s)) for s in range(50)]
        return math.fsum(float(logits[token]) for token in tokens) / len(tokens)

    assert mean_logit(1.0) > mean_logit(10.0) > mean_logit(1000.0)


def exact_logits(weights, window):
    """Logits after the last token, from a forward pass of just this length."""
    a, s = make_activations(CFG, 1, len(window)), make_scratch(CFG, 1, len(window))
    draw = (np.uint64(0), 0, np.zeros(1, np.int64))
    forward(a, view_params(weights, CFG), s, np.array([window], np.int32), CFG.n_head, 0.0, draw)
    return a.logits[0, -1]
