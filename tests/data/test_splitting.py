"""Texts that are fed in parts get the ids that the library gives the whole, with any tokenizer it takes."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from feste_dp.data import splitting
from feste_dp.data.corpus import read_shakespeare
from feste_dp.data.splitting import END_OF_TEXT, GPT2_PATTERN, LATER_PATTERNS, LINE_PATTERN, parts_of
from feste_dp.data.tokenizer import ByteTokenizer, load_tokenizer, train_tokenizer
from feste_dp.errors import UsageError

LINES = pre_tokenizers.Split(Regex(LINE_PATTERN), "isolated")
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split_by(pattern: str, *more: object) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), *more, BYTES])


KINDS = {
    "gpt2": WORDS,
    "gpt2 as a pattern": split_by(GPT2_PATTERN),
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), WORDS]),
    "later, then words": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(min(LATER_PATTERNS)), "isolated"), WORDS]
    ),
    **{f"later {number}": split_by(pattern) for number, pattern in enumerate(sorted(LATER_PATTERNS))},
    "lines": pre_tokenizers.Sequence([LINES, WORDS]),
    "one word": BYTES,
    "of its own": split_by(r"\d+(?=[^a]*)|[^\d]+"),
}
ADDED = {
    "none": [],
    "end of text": [AddedToken(END_OF_TEXT, special=True, normalized=False)],
    "many": [
        AddedToken(END_OF_TEXT, special=True, normalized=False),
        AddedToken("<mask>", lstrip=True, special=True, normalized=False),
        AddedToken("<end>", rstrip=True, special=True, normalized=False),
        AddedToken("a b", normalized=False),
        AddedToken("    ", normalized=True),
        AddedToken("or", single_word=True, normalized=True),
    ],
}
# Merges over spaces and line ends too, where the splitting lets them: every place of a cut could matter.
LEARN = "the end.\n\n\n  the  end,\r\n\r\nthe end 12 123\t\tits 'll it's é中中 a b\n \n the\n" * 20


def make(folder, splitter, added, normalizer=None) -> ByteTokenizer:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = BYTES, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=sorted(WORDS.alphabet()), special_tokens=[], show_progress=False
    )
    inner.train_from_iterator(
        [LEARN[at : at + 6] for at in range(0, len(LEARN), 6)] + LEARN.split(" "), trainer
    )
    inner.pre_tokenizer = splitter
    inner.add_tokens(added)
    if normalizer is not None:
        inner.normalizer = normalizer
    (folder / "tokenizer.json").write_text(inner.to_str())
    return load_tokenizer(folder / "tokenizer.json")


def library_ids(tokenizer: ByteTokenizer, text: str) -> list[int]:
    """Of the whole text at once, by the library alone, from the very file."""
    return Tokenizer.from_str(tokenizer.to_json().decode()).encode(text).ids


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    return {
        (kind, added): make(folder, splitter, tokens)
        for kind, splitter in KINDS.items()
        for added, tokens in ADDED.items()
    }


PIECES = st.sampled_from(
    [
        *(" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u2028", "\x85", "\u3000", "\u180e", "\u200b"),
        *(
            "the",
            "end",
            " the",
            "it's",
            "'ll",
            "or",
            "a",
            "b",
            "a b",
            "12",
            "1234",
            ".",
            "...",
            "?!",
            "é",
            "中",
        ),
        *("e\u0301", "😀", "\u0301", "٣", "x" * 30, "<mask>", "<end>", "<|endo", END_OF_TEXT, "    "),
    ]
)


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("kind", KINDS)
def test_parts_have_the_ids_of_the_whole(made, kind, added, monkeypatch):
    """With parts of a few characters, so that cuts fall everywhere they may."""
    tokenizer = made[kind, added]
    whole = Tokenizer.from_str(tokenizer.to_json().decode())
    monkeypatch.setattr(splitting, "PART_CHARACTERS", 3)
    cuts = 0

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.lists(PIECES, max_size=12).map("".join), max_size=5))
    def check(pieces):
        nonlocal cuts
        pieces = [*pieces, "\n" + "x" * 9000] if tokenizer.cutting.into_lines else pieces
        ids = [number for part in tokenizer.encode_pieces(pieces) for number in part.tolist()]
        assert ids == whole.encode("".join(pieces)).ids
        cuts += max(0, len(list(parts_of(pieces, tokenizer.cutting))) - 1)

    check()
    may_be_cut = tokenizer.cutting.place is not None
    assert (cuts > 0) == may_be_cut
    assert may_be_cut == (kind not in ("one word", "of its own") and (kind, added) != ("lines", "many"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["\n", " ", "a", "word ", END_OF_TEXT, "<|endo"]) | st.integers(1, 5000), max_size=20
    )
)
def test_long_lines_are_cut_where_the_file_says(made, parts):
    pieces = ["x" * part if isinstance(part, int) else part for part in parts]
    for added in ("none", "end of text"):
        tokenizer = made["lines", added]
        expected = library_ids(tokenizer, "".join(pieces))
        ids = [number for part in tokenizer.encode_pieces(pieces) for number in part.tolist()]
        assert ids == expected
        if added == "none":
            by_lines = replace(tokenizer, by_lines=True)
            assert [n for part in by_lines.encode_pieces(pieces) for n in part.tolist()] == expected


def test_text_of_lines_blanks_and_long_lines_gets_the_ids_of_the_library():
    text = read_shakespeare()[:60_000]
    text = text.replace("\n", "\r\n") + text.replace(".\n", ".  \n") + "word " * 9000 + "\n" + "y" * 30_000
    own = train_tokenizer([text], 600)
    assert own.encode(text).tolist() == library_ids(own, text)
    assert b"\\\\r" not in own.to_json() and own.cutting.into_lines


def test_compatible_forms_are_the_librarys(tmp_path, monkeypatch):
    tokenizer = make(tmp_path, WORDS, ADDED["end of text"], normalizers.NFC())
    monkeypatch.setattr(splitting, "PART_CHARACTERS", 4)
    text = "e\u0301 the e\u0301\n \u0301a \u1fef b\u2000 c\u2126 the end " * 30
    assert tokenizer.encode(text).tolist() == library_ids(tokenizer, text)
    assert tokenizer.encode("e\u0301").tolist() == tokenizer.encode("é").tolist()


def test_no_character_before_a_cut_is_white_space_to_the_library():
    """Of all there are: what the library holds to be white space would be one word with what follows."""
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    black = splitting.re.compile(splitting._BLACK)
    white = {
        text[0]
        for text, _ in pre_tokenizers.Split(Regex(r"\s"), "removed", invert=True).pre_tokenize_str(everything)
    }
    assert len(white) >= 25 and not any(black.match(character) for character in white)
    letter = splitting.re.compile(splitting._LETTER)
    letters = pre_tokenizers.Split(Regex(r"\p{L}+"), "removed", invert=True).pre_tokenize_str(everything)
    known = {character for run, _ in letters for character in run}
    assert all(character in known for character in everything if letter.match(character))


def test_a_text_without_a_place_to_cut_is_refused_where_it_is_long(made, monkeypatch):
    monkeypatch.setattr(splitting, "MOST_CHARACTERS", 2**14)
    for kind, words in (("gpt2", "put line ends into"), ("one word", "into documents")):
        tokenizer = made[kind, "none"]
        assert len(tokenizer.encode("x" * 2**13)) > 0
        with pytest.raises(UsageError, match=words):
            tokenizer.encode("x" * 2**16)
    assert len(made["lines", "none"].encode("x" * 2**16)) > 0


def test_the_end_of_a_text_is_known_by_its_token(made, tmp_path):
    assert made["gpt2", "none"].end_of_text is None
    found = made["gpt2", "end of text"]
    end = found.end_of_text
    assert end == found.vocab_size - 1
    assert found.encode(f"a{END_OF_TEXT}b").tolist()[1] == end
    own = train_tokenizer([LEARN], 280, end_of_text=True)
    assert (own.vocab_size, own.end_of_text, own.merges) == (280, 279, 23)
    assert own.decode([279]) == END_OF_TEXT
    (tmp_path / "own.json").write_bytes(own.to_json())
    assert load_tokenizer(tmp_path / "own.json").end_of_text == 279
    assert train_tokenizer([LEARN], 279).encode(LEARN).tolist() == own.encode(LEARN).tolist()
    with pytest.raises(UsageError, match="256 is too few: set it to 257"):
        train_tokenizer([LEARN], 256, end_of_text=True)


def test_what_a_file_asks_for_and_nobody_does_here_is_named(made, tmp_path):
    document = json.loads(made["gpt2", "none"].to_json())
    for change, words in (
        ({"normalizer": {"type": "Lowercase"}}, "normalizer Lowercase"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "add_prefix_space"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "pre_tokenizer Metaspace"),
        ({"post_processor": {"type": "BertProcessing"}}, "post_processor BertProcessing adds tokens"),
        ({"model": document["model"] | {"type": "Unigram"}}, "its model is Unigram"),
        ({"model": document["model"] | {"dropout": 0.1}}, "dropout"),
    ):
        (tmp_path / "tokenizer.json").write_text(json.dumps(document | change))
        with pytest.raises(UsageError, match=words):
            load_tokenizer(tmp_path / "tokenizer.json")
