"""What is computed with a cache is what the training listing computes of the whole text."""

import numpy as np
import pytest

from feste_dp.config.schema import ModelConfig
from feste_dp.model.decoder import Decoder, Feed, decoding_bytes
from feste_dp.model.decoding import MOST_ROWS
from feste_dp.model.parameters import initial_params, view_params
from tests.model.plain_path import plain_logits

MODELS = {
    "tied": ModelConfig(vocab_size=300, block_size=70, n_layer=2, n_head=2, n_embd=16),
    "untied, odd widths": ModelConfig(
        vocab_size=1000, block_size=230, n_layer=2, n_head=5, n_embd=70, tie_embeddings=False
    ),
    "an MLP of a width of its own": ModelConfig(
        vocab_size=300, block_size=60, n_layer=1, n_head=2, n_embd=16, n_inner=90
    ),
    "deeper than a block": ModelConfig(vocab_size=260, block_size=50, n_layer=2, n_head=3, n_embd=600),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys(), scope="module")
def model(request):
    """Config, weights, a text, and the logits after each of its tokens by the plain path."""
    cfg = request.param
    weights = 10 * initial_params(cfg, 1)
    tokens = np.random.default_rng(1).integers(0, cfg.vocab_size, cfg.block_size).astype(np.int32)
    return cfg, view_params(weights, cfg), tokens.tolist(), plain_logits(cfg, weights, tokens)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_token_with_a_cache_has_the_logits_of_the_whole_text(model, threads):
    cfg, p, tokens, expected = model
    decoder = Decoder(cfg, p, 3, cfg.block_size, threads)
    np.testing.assert_array_equal(decoder.logits(tokens), expected)
    begun = {0: 1, 1: MOST_ROWS, 2: MOST_ROWS + 5}  # prompts that are streamed, or packed
    feeds = [Feed(slot, 0, tokens[:length]) for slot, length in begun.items()]
    np.testing.assert_array_equal(decoder.feed(feeds), expected[[length - 1 for length in begun.values()]])
    for later in range(cfg.block_size - MOST_ROWS - 5):
        places = [length + later for length in begun.values()]
        feeds = [Feed(slot, place, tokens[place : place + 1]) for slot, place in enumerate(places)]
        np.testing.assert_array_equal(decoder.feed(feeds[::-1]), expected[places[::-1]])


def test_more_texts_than_are_computed_at_once(model):
    cfg, p, tokens, expected = model
    count = MOST_ROWS + 3
    decoder = Decoder(cfg, p, count, cfg.block_size, 2)
    lengths = [1 + slot % 40 for slot in range(count)]
    feeds = [Feed(slot, 0, tokens[:length]) for slot, length in enumerate(lengths)]
    np.testing.assert_array_equal(decoder.feed(feeds), expected[[length - 1 for length in lengths]])
    feeds = [Feed(slot, length, tokens[length : length + 1]) for slot, length in enumerate(lengths)]
    np.testing.assert_array_equal(decoder.feed(feeds), expected[lengths])


def test_a_copied_text_goes_on_like_its_original(model):
    cfg, p, tokens, expected = model
    decoder = Decoder(cfg, p, 4, cfg.block_size, 1)
    decoder.feed([Feed(2, 0, tokens[:9])])
    decoder.copy(2, [0, 3])
    for slot in (0, 2, 3):
        np.testing.assert_array_equal(decoder.feed([Feed(slot, 9, tokens[9:10])])[0], expected[9])


def test_what_a_decoder_takes_is_known_before(model):
    cfg, p, tokens, _ = model
    decoder = Decoder(cfg, p, 2, cfg.block_size, 2)
    decoder.logits(tokens)
    taken = nbytes((decoder._cache, decoder._own, decoder._few, decoder._many))
    assert taken == decoding_bytes(cfg, 2, cfg.block_size, 2)


def nbytes(made):
    return made.nbytes if isinstance(made, np.ndarray) else sum(map(nbytes, filter(is_made, made)))


def is_made(each):
    return isinstance(each, np.ndarray | tuple | list)
