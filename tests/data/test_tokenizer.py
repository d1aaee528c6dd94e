import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feste_dp.data import tokenizer_file
from feste_dp.data.corpus import read_shakespeare
from feste_dp.data.tokenizer import ByteTokenizer, interruptibly, load_tokenizer, train_tokenizer
from feste_dp.errors import UsageError

SAMPLE = read_shakespeare()[1_000_000:1_120_000]


@pytest.fixture(scope="module")
def tokenizer() -> ByteTokenizer:
    return train_tokenizer([SAMPLE], 512)


# One tokenizer for hypothesis, which does not mix with fixtures of a narrower scope.
TRAINED = train_tokenizer([SAMPLE], 400)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_exactly(text):
    ids = TRAINED.encode(text)
    assert TRAINED.decode(ids) == text
    assert ids.dtype == np.uint32 and (ids < TRAINED.vocab_size).all()


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from(" \n\t\r\x0b\u00a0\u2028aé'<|>s"), max_size=60))
def test_text_of_white_space_and_marks_comes_back_exactly(text):
    assert TRAINED.decode(TRAINED.encode(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "\n" * 10_000, "x" * 50_000, "word " * 20_000, "<|endoftext|>", "".join(map(chr, range(0x250)))],
)
def test_unusual_text_comes_back_exactly(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_lines_get_the_ids_of_the_whole_text(tokenizer):
    whole = tokenizer.inner.encode(SAMPLE, add_special_tokens=False).ids
    assert tokenizer.encode(SAMPLE).tolist() == whole


def test_the_vocabulary_has_all_bytes_and_exactly_the_size_asked_for(tokenizer):
    assert tokenizer.vocab_size == 512
    assert sorted(tokenizer.inner.get_vocab().values()) == list(range(512))
    assert train_tokenizer(["no pair"], 256).vocab_size == 256


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(UsageError, match=r"^model.vocab_size: 255 is too few: set it to 256"):
        train_tokenizer([SAMPLE], 255)


@pytest.mark.parametrize("vocab_size", [300, 2**31, 2**62])
def test_a_vocabulary_larger_than_the_text_allows_says_what_was_reached(vocab_size):
    with pytest.raises(
        UsageError, match=r"^model.vocab_size: the text yields 258 tokens, .*: set it to that or"
    ):
        train_tokenizer(["abc abc\n"], vocab_size)


def test_the_merges_depend_on_neither_hash_seed_nor_threads():
    program = (
        "import hashlib\n"
        "from feste_dp.data.corpus import read_shakespeare\n"
        "from feste_dp.data.tokenizer import train_tokenizer\n"
        "text = read_shakespeare()[1_000_000:1_120_000]\n"
        "tokenizer = train_tokenizer([text], 512)\n"
        "print(hashlib.sha256(tokenizer.to_json() + tokenizer.encode(text).tobytes()).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "TOKENIZERS_PARALLELISM": parallel,
                "RAYON_NUM_THREADS": n,
            },
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed, parallel, n in (("0", "false", "1"), ("12345", "true", "3"))
    }
    here = train_tokenizer([SAMPLE], 512)
    assert digests == {hashlib.sha256(here.to_json() + here.encode(SAMPLE).tobytes()).hexdigest()}


class Stop(BaseException):
    """Raised by the handler of a signal."""


@pytest.fixture
def stop_on_sigusr2():
    def stop(signum, frame):
        raise Stop

    old = signal.signal(signal.SIGUSR2, stop)
    yield
    signal.signal(signal.SIGUSR2, old)


def test_a_signal_is_handled_while_compiled_code_works_and_ends_its_input(stop_on_sigusr2):
    taken, ended = [], threading.Event()

    def work(lines):
        for number, line in enumerate(lines):
            taken.append(line)
            if number == 10:
                os.kill(os.getpid(), signal.SIGUSR2)
                time.sleep(0.2)  # the handler has run before the next line is asked for
        ended.set()

    with pytest.raises(Stop):
        interruptibly(["a line\n"] * 100_000, work)
    assert ended.wait(10)
    assert len(taken) < 100_000


def test_what_fails_in_the_work_is_raised():
    def work(lines):
        raise UsageError(next(lines))

    with pytest.raises(UsageError, match="first"):
        interruptibly(["first", "second"], work)


def test_ids_that_are_no_token_decode_to_nothing(tokenizer):
    assert tokenizer.decode([72, 512, 2**31, 73]) == tokenizer.decode([72, 73])
    with pytest.raises(ValueError, match="0 or more"):
        tokenizer.decode([-1])


def test_a_stored_tokenizer_loads_as_the_same_one(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer.to_json())
    loaded = load_tokenizer(path)
    assert loaded.to_json() == tokenizer.to_json()
    assert (loaded.encode(SAMPLE) == tokenizer.encode(SAMPLE)).all()


def test_merges_written_as_strings_load_too(tokenizer, tmp_path):
    document = json.loads(tokenizer.to_json())
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document))
    loaded = load_tokenizer(path)
    assert loaded.to_json() == path.read_bytes()
    assert (loaded.encode(SAMPLE) == tokenizer.encode(SAMPLE)).all()


def damaged_documents():
    def change(*keys, value):
        def apply(document):
            for key in keys[:-1]:
                document = document[key]
            document[keys[-1]] = value

        return apply

    yield "model is not BPE", change("model", "type", value="WordPiece")
    yield "no model", change("model", value=None)
    yield "model a list", change("model", value=[])
    yield "normalizer", change("normalizer", value={"type": "Lowercase"})
    yield "added token", change("added_tokens", value=[{"id": 999999999, "content": "x"}])
    yield "pre-tokenizer", change("pre_tokenizer", value={"type": "Whitespace"})
    yield "prefix space", change("pre_tokenizer", "pretokenizers", 1, "add_prefix_space", value=True)
    yield "no bytes", change("pre_tokenizer", "pretokenizers", value=[])
    yield "bytes first", change("pre_tokenizer", "pretokenizers", 0, value={"type": "ByteLevel"})
    yield "bad pattern", change("pre_tokenizer", "pretokenizers", 0, "pattern", "Regex", value="(a")
    yield "decoder", change("decoder", value=None)
    yield "token in front", change("post_processor", value={"type": "RobertaProcessing"})
    yield "id of another", change("added_tokens", value=[{"id": 5, "content": "<|x|>"}])
    yield "gap before an added token", change("added_tokens", value=[{"id": 600, "content": "<|x|>"}])
    yield "dropout", change("model", "dropout", value=0.5)
    yield "negative id", change("model", "vocab", "a", value=-1)
    yield "huge id", change("model", "vocab", "a", value=2**40)
    yield "id no number", change("model", "vocab", "a", value="1")
    yield "id a truth value", change("model", "vocab", "a", value=True)
    yield "twice the same id", change("model", "vocab", "a", value=0)
    yield "bytes missing", change("model", "vocab", value={"a": 0})
    yield "vocabulary a list", change("model", "vocab", value=["a"])
    yield "merge unknown", change("model", "merges", 0, value=["a", "zzzz"])
    yield "merge of three", change("model", "merges", 0, value=["a", "b", "c"])
    yield "merge a number", change("model", "merges", 0, value=7)
    yield "merges a table", change("model", "merges", value={})


@pytest.mark.parametrize("apply", [pytest.param(apply, id=name) for name, apply in damaged_documents()])
def test_a_damaged_tokenizer_file_is_one_clear_line(tokenizer, tmp_path, apply):
    document = json.loads(tokenizer.to_json())
    apply(document)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="is no byte-level BPE tokenizer") as caught:
        load_tokenizer(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=200)
    | st.sampled_from([b"[" * 100_000, b"null", b"1e999", b"{}", b"\xff", b""])
)
def test_arbitrary_bytes_are_no_tokenizer(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "arbitrary-tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        load_tokenizer(path)


def test_a_tokenizer_file_that_is_missing_a_folder_or_too_large_is_refused(tokenizer, tmp_path, monkeypatch):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match="does not exist"):
            load_tokenizer(path)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer.to_json())
    monkeypatch.setattr(tokenizer_file, "MAX_TOKENIZER_BYTES", 100)
    with pytest.raises(UsageError, match="too large"):
        load_tokenizer(path)
