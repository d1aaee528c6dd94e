"""Models of transformers become runs, runs what transformers loads: same logits, same ids, no warnings."""

import json
import random
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from feste_dp.checkpoint.format import PARAMS
from feste_dp.data.corpus import read_shakespeare
from feste_dp.data.splitting import END_OF_TEXT
from feste_dp.data.tokenizer import train_tokenizer
from feste_dp.data.tokenizer_folder import load_tokenizer_at
from feste_dp.errors import UsageError
from feste_dp.run.exporting import export_to_hugging_face, model_card
from feste_dp.run.importing import import_hugging_face
from feste_dp.run.trained_model import evaluation_data, load_trained_model
from tests.model.hugging_face import LOGITS_TOLERANCE, logits_of, make_model, own_logits

PIECES = [
    *(
        " ",
        "  ",
        "    ",
        "\n",
        "\n\n",
        "\n\n\n",
        "\r\n",
        "\r\n\r\n",
        "\t",
        "\u00a0",
        "\u2028",
        "\x85",
        "\x0b",
    ),
    *(
        "the",
        " the",
        "it's",
        "I'LL",
        "12",
        "3.1415",
        "...",
        "?!",
        "é",
        "e\u0301",
        "ß",
        "Ω",
        "д",
        "中文",
        "日本語。",
    ),
    *("한국어", "العربية", "हिन्दी", "😀", "👩‍👩‍👧", "🇩🇪", "\u200d", "\ufeff", "\x00", "\x7f", "\U0010ffff"),
    *(END_OF_TEXT, "<|endo", "<|im_start|>", "a b", "HAMLET.\n", "x" * 300, "word " * 20, "<s>", "[MASK]"),
]
STRINGS = 2_000


def strings() -> list[str]:
    source = random.Random(1)
    text = read_shakespeare()
    made = ["", " ", "\n", "\r\n", END_OF_TEXT]
    while len(made) < STRINGS:
        start = source.randrange(len(text) - 300)
        made.append("".join(source.choices(PIECES, k=source.randrange(1, 20))))
        made.append(
            text[start : start + source.randrange(300)].replace("\n", source.choice(["\n", "\r\n", " \n"]))
        )
    return made[:STRINGS]


def gpt2_tokenizer() -> Tokenizer:
    """As GPT-2's: its regex, merges over line ends, an end of text, and some added tokens."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    text = read_shakespeare()[:40_000].replace("\n\n", "\n\n\n") + "中文日本語。😀 \r\n\r\n" * 300
    inner.train_from_iterator([text[at : at + 2_000] for at in range(0, len(text), 2_000)], trainer)
    inner.add_special_tokens([END_OF_TEXT, "<|im_start|>"])
    inner.add_tokens([AddedToken("    ", normalized=False), AddedToken("a b", lstrip=True, normalized=False)])
    return inner


@pytest.fixture(scope="module", params=["own, untied", "own, end of text, tied", "gpt2, tied"])
def exported(request, tmp_path_factory):
    """A model of transformers, the run it became, and what that was exported to."""
    root = tmp_path_factory.mktemp("exported")
    folder = root / "model"
    folder.mkdir()
    if request.param.startswith("own"):
        text = read_shakespeare()[:60_000].replace("ing\n", "ing \r\n")
        tokenizer = train_tokenizer([text], 500, end_of_text="end of text" in request.param)
        (folder / "tokenizer.json").write_bytes(tokenizer.to_json())
    else:
        (folder / "tokenizer.json").write_text(gpt2_tokenizer().to_str())
    tokenizer = load_tokenizer_at(folder)
    model = make_model(
        vocab_size=tokenizer.vocab_size,
        tie_word_embeddings="untied" not in request.param,
        n_inner=70 if "gpt2" in request.param else None,
    )
    model.save_pretrained(folder)
    import_hugging_face(folder, tokenizer, root / "run")
    run = load_trained_model(root / "run", None)
    export_to_hugging_face(run, root / "out")
    return SimpleNamespace(
        root=root, folder=folder, model=model, tokenizer=tokenizer, run=run, out=root / "out"
    )


@pytest.fixture(autouse=True, scope="module")
def quiet():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


def test_transformers_loads_it_without_a_warning_to_the_same_logits(exported, rng, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = [each.from_pretrained(exported.out) for each in (AutoModelForCausalLM, GPT2LMHeadModel)]
        tokenizer = AutoTokenizer.from_pretrained(exported.out)
        prompt = tokenizer("To be", return_tensors="pt")
        loaded[0].generate(**prompt, max_new_tokens=3)
    assert capfd.readouterr() == ("", "")
    assert tokenizer.eos_token_id == exported.tokenizer.end_of_text
    cfg = exported.run.config.model
    tokens = rng.integers(0, cfg.vocab_size, (3, cfg.block_size))
    own = own_logits(exported.run.arrays[PARAMS], cfg, tokens)
    for model in (*loaded, exported.model):
        assert np.abs(own - logits_of(model.eval(), tokens)).max() < LOGITS_TOLERANCE
    assert loaded[0].config.tie_word_embeddings == cfg.tie_embeddings


def test_two_thousand_strings_have_the_same_ids_and_text(exported):
    theirs, own = AutoTokenizer.from_pretrained(exported.out), exported.run.tokenizer
    texts = strings()
    ids = theirs(texts)["input_ids"]
    for text, expected in zip(texts, ids, strict=True):
        assert own.encode(text).tolist() == expected
        assert own.decode(expected) == theirs.decode(expected)
    assert sum(map(len, ids)) > 50_000
    assert (exported.out / "tokenizer.json").read_bytes() == (exported.folder / "tokenizer.json").read_bytes()


def test_the_card_says_what_was_trained_and_nothing_of_where(exported):
    card = (exported.out / "README.md").read_text()
    assert f"vocabulary {exported.tokenizer.vocab_size}" in card and "Imported and exported with" in card
    assert "## Training" not in card and "Shakespeare" not in card
    trained = replace(
        exported.run, manifest=exported.run.manifest.model_copy(update={"data_sha256": "0" * 64})
    )
    config = trained.config.model_copy(
        update={"data": trained.config.data.model_copy(update={"corpus": [f"{exported.root}/plays.txt"]})}
    )
    card = model_card(replace(trained, config=config), exported.out)
    assert "- text: `plays.txt`" in card and "- checkpoint: step 0 of 1,000, 0 tokens seen" in card
    assert "corpus: [plays.txt]" in card and "feste-dp launch --config config.yaml" in card
    assert str(exported.root) not in card


def test_nothing_is_written_over_or_left_half_made(exported, monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="exists and is not empty"):
        export_to_hugging_face(exported.run, exported.out)
    with pytest.raises(UsageError, match="exists and is not empty"):
        import_hugging_face(exported.folder, exported.tokenizer, exported.out)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("feste_dp.run.exporting.write_weights", full)
    monkeypatch.setattr("feste_dp.run.importing.write_whole", full)
    with pytest.raises(UsageError, match="No space left"):
        export_to_hugging_face(exported.run, tmp_path / "new")
    with pytest.raises(UsageError, match="No space left"):
        import_hugging_face(exported.folder, exported.tokenizer, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(exported, tmp_path):
    tokenizer = train_tokenizer([read_shakespeare()[:400_000]], exported.tokenizer.vocab_size + 1)
    with pytest.raises(UsageError, match="do not belong together"):
        import_hugging_face(exported.folder, tokenizer, tmp_path / "run")


def test_an_imported_run_says_that_it_has_no_text(exported, tmp_path):
    with pytest.raises(UsageError, match="was imported and has no text of its own"):
        evaluation_data(exported.run, None, tmp_path)


def test_vocabulary_and_merges_in_two_files_are_the_tokenizer_of_transformers(tmp_path):
    inner = gpt2_tokenizer()
    model = json.loads(inner.to_str())["model"]
    vocab = model["vocab"] | {END_OF_TEXT: len(model["vocab"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])) + "\n")
    theirs = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    own = load_tokenizer_at(tmp_path)
    assert own.end_of_text == len(vocab) - 1
    texts = strings()
    assert [own.encode(text).tolist() for text in texts] == theirs(texts)["input_ids"]


def test_settings_that_change_what_a_tokenizer_does_are_refused(exported, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(exported.tokenizer.to_json())
    for settings, words in (
        ({"add_prefix_space": True}, "add_prefix_space is not supported"),
        ({"add_bos_token": True}, "add_bos_token"),
        ({"added_tokens_decoder": {"900": {"content": "<|new|>"}}}, r"adds the token '<\|new\|>'"),
    ):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        with pytest.raises(UsageError, match=words):
            load_tokenizer_at(tmp_path)
    with pytest.raises(UsageError, match=r"has no tokenizer.json, nor vocab.json and merges.txt"):
        load_tokenizer_at(tmp_path.parent)
