import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.kernels.philox import STREAM_SAMPLE, uniform
from feste_dp.model.choosing import Choice
from feste_dp.model.choosing import choose as choose_token

DRAWS = 4000
# Chi-square with 7 degrees of freedom exceeds this once in ten thousand times; the seeds are fixed.
CHI_SQUARE_7 = 29.9


def choose(logits, u, temperature, top_k, **others):
    return choose_token(logits, u, Choice(temperature, top_k, **others))


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


def left(logits, **narrowed):
    """The tokens that can come at all: one for each of many quantiles."""
    count = 20 * len(logits)
    return {choose(logits, (i + 0.5) / count, 1.0, **({"top_k": None} | narrowed)) for i in range(count)}


def test_a_nucleus_is_as_few_of_the_likeliest_as_reach_the_share():
    logits = np.log(np.array([2, 4, 1, 1], np.float32))
    assert left(logits, top_p=0.4) == left(logits, top_p=0.5) == {1}
    assert left(logits, top_p=0.51) == left(logits, top_p=0.75) == {0, 1}
    assert left(logits, top_p=0.76) == {0, 1, 2}  # of equals the lower one
    assert left(logits, top_p=1.0) == left(logits, top_p=0.9) == {0, 1, 2, 3}
    assert left(logits, top_k=2, top_p=0.6) == {1}  # the share is of what the top k leave: 4 of 6


def test_a_least_share_of_the_likeliest_is_kept():
    logits = np.log(np.array([2, 4, 1, 0.9], np.float32))
    assert left(logits, min_p=0.6) == {1}
    assert left(logits, min_p=0.4) == {0, 1}
    assert left(logits, min_p=0.24) == {0, 1, 2}
    assert left(logits, min_p=1.0) == {1}


def test_tokens_of_the_text_are_made_less_likely():
    logits, seen = np.array([2, 1.5, -1, -1.5], np.float32), np.array([True, False, True, False])
    assert choose_token(logits, 0.5, Choice(0.0, repetition_penalty=1.0), seen) == 0
    assert choose_token(logits, 0.5, Choice(0.0, repetition_penalty=2.0), seen) == 1
    expected = np.exp([1.0, 1.5, -2.0, -1.5])
    cumulative = np.cumsum(expected) / expected.sum()
    for token, edge in enumerate(cumulative[:3]):
        around = [
            choose_token(logits, edge + d, Choice(1.0, repetition_penalty=2.0), seen) for d in (-1e-6, 1e-6)
        ]
        assert around == [token, token + 1]


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=40),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.integers(1, 40),
)
def test_a_token_is_among_those_that_the_definitions_leave(logits, u, top_p, min_p, top_k):
    logits = np.array(logits, np.float32)
    token = choose(logits, u, 1.0, top_k, top_p=top_p, min_p=min_p)
    order = np.argsort(-logits, kind="stable")[:top_k]
    p = np.exp(logits[order].astype(np.float64))
    p /= p.sum()
    place = order.tolist().index(token)
    assert p[:place].sum() < top_p + 1e-6
    assert p[place] >= min_p * p[0] * (1 - 1e-6)


def test_a_large_vocabulary_is_narrowed_as_by_sorting_all_of_it(rng):
    logits = (3 * rng.standard_normal(50_257)).astype(np.float32)
    order = np.argsort(-logits, kind="stable")
    p = np.exp(logits[order].astype(np.float64) - logits.max())
    nucleus = set(order[: int(np.searchsorted(np.cumsum(p), 0.3 * p.sum())) + 1].tolist())
    drawn = {choose(logits, u, 1.0, None, top_p=0.3) for u in np.linspace(0, 1, 3000, endpoint=False)}
    assert drawn <= nucleus and len(drawn) > len(nucleus) // 3
