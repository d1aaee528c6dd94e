import pytest

from feste_dp.config.schema import ModelConfig
from feste_dp.data.tokenizer import train_tokenizer
from feste_dp.errors import UsageError
from feste_dp.model.choosing import Choice
from feste_dp.model.parameters import initial_params, view_params
from feste_dp.model.sampling import Sampler
from feste_dp.run import continuation
from feste_dp.run.continuation import Continuations, Wanted, in_order

CFG = ModelConfig(vocab_size=270, block_size=40, n_layer=1, n_head=2, n_embd=16, tie_embeddings=False)
WILD = Choice(temperature=3.0)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["the king and the queen, 日本 the other thing\n" * 9], 270, end_of_text=True)


@pytest.fixture
def weights():
    return initial_params(CFG, 1)


@pytest.fixture
def write(weights, tokenizer):
    def make(prompts, **wanted):
        wanted = Wanted(**{"tokens": 60, "choice": WILD} | wanted)
        return Continuations(CFG, weights, tokenizer, prompts, wanted)

    return make


def all_of(written):
    for _ in written:
        pass
    return written.texts


def test_the_pieces_make_up_the_text_of_the_tokens_that_are_drawn(write, weights, tokenizer):
    prompt = tokenizer.encode("the").tolist()
    drawn = list(Sampler(CFG, view_params(weights, CFG)).draw(prompt, 60, temperature=3.0, seed=1))
    assert tokenizer.end_of_text not in drawn
    written = write(["the"])
    pieces = [piece for number, piece in written]
    assert "".join(pieces) == written.texts[0].text == tokenizer.decode(drawn)
    assert (written.texts[0].tokens, written.texts[0].finish) == (60, "length")
    assert "\ufffd" in written.texts[0].text  # bytes that are no character were among them


def test_a_text_ends_before_a_stop_string_and_shows_no_beginning_of_one(write):
    whole = all_of(write(["the"], samples=2))
    stop = whole[0].text[20:23]
    written = write(["the"], samples=2, stop=("never there", stop))
    shown = ["", ""]
    for number, piece in written:
        shown[number] += piece
        assert shown[number] in whole[number].text.partition(stop)[0] + "\0"
    assert shown == [text.text for text in written.texts]
    assert shown == [text.text.partition(stop)[0] for text in whole]
    assert (written.texts[0].finish, written.texts[0].tokens < 60) == ("stop", True)


def test_what_may_begin_a_stop_string_comes_when_it_does_not(write):
    whole = all_of(write(["the"]))[0].text
    (text,) = all_of(write(["the"], stop=(whole[-1:] + "never there",)))
    assert (text.text, text.finish) == (whole, "length")


def test_the_token_that_ends_a_text_ends_it(write, weights, tokenizer):
    p = view_params(weights, CFG)
    p.ln_f_b[:], p.lm_head_w[tokenizer.end_of_text] = 1, 9
    (ended,) = all_of(write(["the"]))
    assert (ended.text, ended.tokens, ended.finish) == ("", 1, "end_of_text")
    (gone_on,) = all_of(write(["the"], past_end=True))
    assert (gone_on.tokens, gone_on.finish) == (60, "length") and gone_on.text


@pytest.mark.parametrize("stop", [(), ("e", "a")])
def test_texts_in_order_are_whole(write, stop):
    written, shown = write(["the", "a queen"], samples=3, stop=stop), {}
    for number, piece in in_order(written):
        assert number >= max(shown, default=0)
        shown[number] = shown.get(number, "") + piece
    assert list(shown) == list(range(6))
    again = all_of(write(["the", "a queen"], samples=3, stop=stop))
    assert list(shown.values()) == [text.text for text in written.texts] == [text.text for text in again]


def test_bad_wishes_are_refused_before_anything_is_drawn(write, monkeypatch):
    with pytest.raises(UsageError, match=r"^prompt: is empty"):
        write(["the", ""])
    with pytest.raises(UsageError, match=r"^stop: is empty"):
        write(["the"], stop=("",))
    monkeypatch.setattr(continuation, "available_memory", lambda: 1 << 20)
    with pytest.raises(UsageError, match=r"^samples: 100 texts of 40 tokens at once need .* MiB of memory"):
        write(["the"], samples=100)


def test_text_follows_the_seed_and_not_the_company(write):
    texts = [text.text for text in all_of(write(["the", "a"], samples=2, seed=5))]
    assert texts[0] != texts[1]
    assert [text.text for text in all_of(write(["a"], seed=5))] == texts[2:3]
    assert all_of(write(["the"], seed=6))[0].text != texts[0]
    greedy = {text.text for text in all_of(write(["the"], samples=3, choice=Choice(temperature=0)))}
    assert len(greedy) == 1
