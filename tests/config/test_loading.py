"""Reading a config: each bad file gives one clear line; what is written reads back as the same config."""

import os
import re
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feste_dp.config.dumping import dump_config
from feste_dp.config.loading import (
    MAX_FILE_BYTES,
    config_from_text,
    load_config,
    override_keys,
)
from feste_dp.config.schema import Config, known_keys
from feste_dp.errors import UsageError


def message(text: str, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        config_from_text(text, "c.yaml", overrides)
    line = str(caught.value)
    assert line.isprintable(), "the message is not one printable line"
    return line


SECTIONS = "model, data, train, optim, eval, sample, checkpoint, run"
ANCHORS = "anchors and aliases (& and *) are not taken in a config; write the value out"
BELOW_TRAIN = "expected the keys steps, batch_size, shards, micro_batch, seed, precision below it"
N_LAYER = "model.n_layer: expected a whole number from 1 to 1024, got"
LR = "optim.lr: expected a number above 0 and at most 10, got"
PIN = "run.pin: expected none, auto, or a list of CPU numbers from 0 to 8191, got"
CORPUS = "data.corpus: expected shakespeare, a directory, or a list of at most 1000 text files, got"
NAME = "run.name: expected at most 64 letters, digits, '.', '_' or '-', the first not '.' or '-', got"

BAD_TEXTS = [
    # unknown keys: misspelled, from another trainer, in the wrong place
    ("optim:\n  leraning_rate: 3e-4", "2:3: optim.leraning_rate: unknown key; did you mean optim.lr?"),
    ("optim: {learning_rate: 1}", "1:9: optim.learning_rate: unknown key; did you mean optim.lr?"),
    ("optim: {warmup_step: 1}", "1:9: optim.warmup_step: unknown key; did you mean optim.warmup_steps?"),
    ("model: {n-layer: 1}", "1:9: model.n-layer: unknown key; did you mean model.n_layer?"),
    ("model: {hidden_size: 1}", "1:9: model.hidden_size: unknown key; did you mean model.n_embd?"),
    ("model: {seq_len: 1}", "1:9: model.seq_len: unknown key; did you mean model.block_size?"),
    ("train: {epochs: 1}", "1:9: train.epochs: unknown key; did you mean train.steps?"),
    ("train: {lr: 1}", "1:9: train.lr: unknown key; did you mean optim.lr?"),
    ("train: {dropout: 0}", "1:9: train.dropout: unknown key; did you mean model.dropout?"),
    ("train: {workers: 2}", "1:9: train.workers: unknown key; did you mean run.workers?"),
    (
        "train: {every: 3}",
        "1:9: train.every: unknown key; did you mean eval.every, sample.every or checkpoint.every?",
    ),
    (
        "eval: {zzzzzz: 1}",
        "1:8: eval.zzzzzz: unknown key; known here: every, batches, patience",
    ),
    ("lr: 1", "1:1: lr: unknown key; did you mean optim.lr?"),
    ("optim.lr: 1", "1:1: optim.lr: unknown key; write `lr:` below `optim:`"),
    ("optm.lr: 1", "1:1: optm.lr: unknown key; did you mean optim.lr?"),
    ("trian: {}", "1:1: trian: unknown key; did you mean train?"),
    ("optimizer: {lr: 1}", "1:1: optimizer: unknown key; did you mean optim?"),
    ("Model: {}", "1:1: Model: unknown key; did you mean model?"),
    ("xyzzy: 1", f"1:1: xyzzy: unknown key; known here: {SECTIONS}"),
    ("<<: {a: 1}", f"1:1: <<: unknown key; known here: {SECTIONS}"),
    ("null: 1", f"1:1: null: unknown key; known here: {SECTIONS}"),
    # wrong types
    ("model: {n_layer: '4'}", f"1:18: {N_LAYER} the text '4'"),
    ("model: {n_layer: true}", f"1:18: {N_LAYER} true"),
    ("model: {n_layer: 4.0}", f"1:18: {N_LAYER} 4.0"),
    ("model: {n_layer: ~}", f"1:18: {N_LAYER} nothing"),
    ("model:\n  n_layer:", f"2:11: {N_LAYER} nothing"),
    ("model: {n_layer: [1]}", f"1:18: {N_LAYER} the list [1]"),
    ("model: {n_layer: {a: 1}}", f"1:18: {N_LAYER} a map"),
    ("model: {tie_embeddings: 1}", "1:25: model.tie_embeddings: expected true or false, got 1"),
    (
        "model: {tie_embeddings: yes}",
        "1:25: model.tie_embeddings: expected true or false, got the text 'yes'",
    ),
    (
        "%YAML 1.1\n---\nmodel: {tie_embeddings: yes}",
        "3:25: model.tie_embeddings: expected true or false, got the text 'yes'",
    ),
    ("optim: {lr: abc}", f"1:13: {LR} the text 'abc'"),
    ("optim: {lr: false}", f"1:13: {LR} false"),
    ("data: {corpus: [a, 1]}", f"1:16: {CORPUS} the list ['a', 1]"),
    ("data: {corpus: {a: 1}}", f"1:16: {CORPUS} a map"),
    ("run: {name: 3}", f"1:13: {NAME} 3; write it in quotes"),
    ("train: 3", f"1:8: train: {BELOW_TRAIN}, got '3'"),
    ("train: [steps]", f"1:8: train: {BELOW_TRAIN}, got a list"),
    # out of range
    ("model: {n_layer: 0}", f"1:18: {N_LAYER} 0"),
    ("model: {n_layer: 1025}", f"1:18: {N_LAYER} 1025"),
    (
        "model: {vocab_size: 255}",
        "1:21: model.vocab_size: expected a whole number from 256 to 4294967296, got 255",
    ),
    ("model: {dropout: 1}", "1:18: model.dropout: expected a number from 0 to below 1, got 1"),
    ("optim: {lr: 0}", f"1:13: {LR} 0"),
    ("optim: {lr: -1e-3}", f"1:13: {LR} -0.001"),
    ("optim: {lr: .nan}", f"1:13: {LR} nan"),
    ("optim: {lr: -.inf}", f"1:13: {LR} -inf"),
    ("optim: {beta1: 1.0}", "1:16: optim.beta1: expected a number from 0 to below 1, got 1.0"),
    (
        "optim: {schedule: cosin}",
        "1:19: optim.schedule: expected cosine, linear or constant, got the text 'cosin'",
    ),
    ("train: {precision: fp16}", "1:20: train.precision: expected fp32 or bf16, got the text 'fp16'"),
    ("train: {shards: 512}", "1:17: train.shards: expected a whole number from 1 to 256, got 512"),
    ("data: {corpus: []}", f"1:16: {CORPUS} the list []"),
    ('data: {corpus: "a\\0b"}', f"1:16: {CORPUS} the text 'a\\x00b'"),
    ("run: {name: ../x}", f"1:13: {NAME} the text '../x'"),
    ("run: {pin: [0, -1]}", f"1:12: {PIN} the list [0, -1]"),
    ("run: {pin: fast}", f"1:12: {PIN} the text 'fast'"),
    (
        "sample: {prompt: 7}",
        "1:18: sample.prompt: expected text of at most 4096 characters, got 7; write it in quotes",
    ),
    # numbers that are none
    ("train: {steps: !!int abc}", "1:16: train.steps: abc is not a number that can be read"),
    (
        f"train: {{steps: {'9' * 5000}}}",
        f"1:16: train.steps: {'9' * 37}... is not a number that can be read",
    ),
    (
        f"train: {{steps: 0x{'f' * 5000}}}",
        f"1:16: train.steps: 0x{'f' * 35}... is not a number that can be read",
    ),
    # keys that do not fit together
    (
        "train: {shards: 4}\nmodel:\n  n_head: 3",
        "3:11: model.n_embd: 128 is not divisible by model.n_head 3; use n_embd 126 or 129",
    ),
    ("train: {shards: 3}", "1:17: train.shards: 3 is not a power of two; use 2 or 4"),
    (
        "train: {batch_size: 12}",
        "1:21: train.batch_size: 12 is not divisible by train.shards 8; "
        "use batch_size 8 or 16, or shards 1, 2 or 4",
    ),
    (
        "train: {batch_size: 32, micro_batch: 3}",
        "1:38: train.micro_batch: 3 does not divide train.batch_size / train.shards = 32 / 8 = 4; "
        "use 1, 2 or 4",
    ),
    (
        "run: {workers: 9}",
        "1:16: run.workers: 9 is more than train.shards 8; use at most 8, or more shards: train.shards=16",
    ),
    (
        "run: {workers: 9, trackers: mlflow}",
        "1:29: run.trackers: expected jsonl, tensorboard or wandb, or a list of them, got the text 'mlflow'",
    ),
    (
        "run: {wandb_project: a/b}",
        "1:22: run.wandb_project: expected at most 128 characters, none of them one of / \\ # ? % :, "
        "got the text 'a/b'",
    ),
    (
        "optim: {min_lr: 1}",
        "1:17: optim.min_lr: 1.0 is above optim.lr 0.001; lower one, raise the other",
    ),
    # the shape of the file
    ("train: {steps: 1, steps: 2}", "1:19: train.steps: given twice; the first is on line 1"),
    ("train: {steps: 1}\ntrain: {seed: 2}", "2:1: train: given twice; the first is on line 1"),
    ("- train", "1:1: expected sections such as `model:`, got a list"),
    ("train", "1:1: expected sections such as `model:`, got 'train'"),
    ("? [1]\n: 2", "1:3: expected a key, got a list or a map"),
    ("!!set {train}", "1:1: the tag !!set is not taken in a config"),
    (
        "train: {steps: !!python/object/apply:os.system [ls]}",
        "1:16: train.steps: the tag !!python/object/apply:os.system is not taken in a config",
    ),
    ("train: !mine {steps: 1}", "1:8: train: the tag !mine is not taken in a config"),
    ("train: {steps: &n 1}", f"1:16: train.steps: {ANCHORS}"),
    ("train: &t {steps: 1}", f"1:8: train: {ANCHORS}"),
    ("&all {train: {steps: 1}}", f"1:1: {ANCHORS}"),
    # YAML syntax
    (
        "train: {steps: 1",
        "1:17: YAML syntax: while parsing a flow mapping, expected ',' or '}', but got the end",
    ),
    (
        "train:\n  steps: 1\n seed: 2",
        "3:2: YAML syntax: while parsing a block mapping, expected <block end>, "
        "but found '<block mapping start>'",
    ),
    ("train: steps: 1", "1:13: YAML syntax: mapping values are not allowed here"),
    ("run: {name: 'x}", "1:16: YAML syntax: while scanning a quoted scalar, found unexpected end of stream"),
    (
        "train:\n\tsteps: 1",
        "2:1: YAML syntax: while scanning for the next token, "
        "found character '\\t' that cannot start any token; indent with spaces, not tabs",
    ),
    ("train: {steps: *n}", "1:16: YAML syntax: found undefined alias 'n'"),
    (
        "train: {}\n---\ntrain: {}",
        "2:1: YAML syntax: expected a single document in the stream, but found another document",
    ),
    ("run:\n  name: \x07", "2:9: YAML syntax: control character in the text"),
]


@pytest.mark.parametrize(("text", "line"), BAD_TEXTS)
def test_a_bad_text_gives_one_line_with_its_place(text: str, line: str):
    assert message(text) == f"c.yaml:{line}"


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "~"])
def test_an_empty_text_is_refused(text: str):
    assert message(text) == "c.yaml: is empty; give at least one section, such as `model:`"


def test_several_problems_are_counted_and_the_first_in_the_file_is_told():
    text = "train:\n  steps: 0\n  foo: 1\nmodel:\n  n_layer: x\n"
    assert message(text, "optim.lr=x") == (
        "c.yaml:2:10: train.steps: expected a whole number from 1 to 1000000000, got 0 (and 3 more)"
    )


def test_a_rule_between_keys_is_not_blamed_when_a_key_is_misspelled():
    assert message("train: {shard: 4, batch_size: 4}") == (
        "c.yaml:1:9: train.shard: unknown key; did you mean train.shards?"
    )


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optim.lr=abc", f"{LR} the text 'abc'"),
        ("optim.lr=0", f"{LR} 0"),
        ("optim.lrr=3", "optim.lrr: unknown key; did you mean optim.lr?"),
        ("optim.lr.x=3", "optim.lr.x: unknown key; did you mean optim.lr?"),
        ("optm.lr=3", "optm.lr: unknown key; did you mean optim.lr?"),
        ("lr=3", "lr: unknown key; did you mean optim.lr?"),
        ("eval.=3", "eval.: unknown key; known here: every, batches, patience"),
        ("eval=3", "eval: is a section; set one of eval.every, eval.batches, eval.patience"),
        ("optim.lr", "expected section.key=value, such as optim.lr=3e-4"),
        ("=3", "expected section.key=value, such as optim.lr=3e-4"),
        ("", "expected section.key=value, such as optim.lr=3e-4"),
        ("sample.prompt=", "sample.prompt: no value after ="),
        ("train.shards=3", "train.shards: 3 is not a power of two; use 2 or 4"),
        (
            "run.pin=[1,",
            "YAML syntax: while parsing a flow node, expected the node content, but found the end",
        ),
    ],
)
def test_a_bad_override_gives_one_line_that_quotes_it(override: str, line: str):
    assert message("train:", override) == f"override {override}: {line}"


def test_an_override_with_control_characters_is_still_one_line():
    assert message("train:", "train.steps=\udc80") == (
        "override train.steps=\\udc80: YAML syntax: control character in the text"
    )


def test_overrides_replace_values_and_the_last_one_counts():
    config = config_from_text(
        "train: {steps: 5, batch_size: 12}\nrun: {name: x}",
        "c.yaml",
        ["train.steps=7", "train.steps=8", "train.batch_size=32", "run.pin=[0, 2]", "optim.lr=3e-4"],
    )
    assert (config.train.steps, config.train.batch_size, config.run.name) == (8, 32, "x")
    assert (config.run.pin, config.optim.lr) == ([0, 2], 3e-4)


def test_a_value_of_an_override_may_hold_spaces_and_equals_signs():
    assert config_from_text("train:", "c.yaml", ["sample.prompt=a = b"]).sample.prompt == "a = b"


def test_override_keys_are_the_part_before_the_equals_sign():
    assert override_keys(["train.steps=60", "sample.prompt=a=b"]) == ("train.steps", "sample.prompt")


def test_yaml_1_2_scalars_are_read_as_a_user_expects():
    config = config_from_text(
        "optim: {lr: 3e-4, eps: 1E-8, min_lr: 0}\ntrain: {steps: 1_000, seed: 0x10}\n"
        "model: {tie_embeddings: false, n_layer: 010}\nrun: {name: 2026-01-02, pin: none}\nsample:\n",
        "c.yaml",
    )
    assert (config.optim.lr, config.optim.eps, config.optim.min_lr) == (3e-4, 1e-8, 0.0)
    assert (config.train.steps, config.train.seed, config.model.n_layer) == (1000, 16, 10)
    assert (config.model.tie_embeddings, config.run.name) == (False, "2026-01-02")
    assert config.sample == Config().sample


def test_windows_line_ends_and_a_byte_order_mark_are_taken(tmp_path: Path):
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbftrain:\r\n  steps: 5\r\n")
    assert load_config(file).train.steps == 5


def file_message(path: Path, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_config(path, overrides)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_a_missing_file_names_the_nearest_one(tmp_path: Path):
    (tmp_path / "tiny.yaml").touch()
    (tmp_path / "medium.yaml").touch()
    near = tmp_path / "tiny.yaml"
    assert (
        file_message(tmp_path / "tinny.yaml") == f"{tmp_path}/tinny.yaml: no such file; did you mean {near}?"
    )
    assert file_message(tmp_path / "tiny") == f"{tmp_path}/tiny: no such file; did you mean {near}?"
    assert file_message(tmp_path / "xyzzy.yaml") == f"{tmp_path}/xyzzy.yaml: no such file"
    away = tmp_path / "none" / "tiny.yaml"  # as on a page, in a folder that is no checkout
    assert file_message(away).startswith(f"{away}: no such file; did you mean tiny")


def test_a_directory_is_refused(tmp_path: Path):
    assert file_message(tmp_path) == f"{tmp_path}: is a directory; give a YAML file"


def test_an_empty_file_is_refused(tmp_path: Path):
    file = tmp_path / "c.yaml"
    file.touch()
    assert file_message(file) == f"{file}: is empty; give at least one section, such as `model:`"


def test_bytes_that_are_no_utf8_are_refused_with_their_place(tmp_path: Path):
    file = tmp_path / "c.yaml"
    file.write_bytes(b"run:\n  name: \xff\n")
    assert file_message(file) == f"{file}:2:9: is not UTF-8; save the file as UTF-8 text"


def test_a_large_file_is_refused_unread(tmp_path: Path):
    file = tmp_path / "c.yaml"
    file.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert file_message(file) == f"{file}: is larger than 1 MiB; this is no config"
    assert "is larger than" in file_message(Path("/dev/zero"))


def test_a_name_no_file_can_have_is_refused_in_one_line(tmp_path: Path):
    assert file_message(Path("a\0b")).startswith("a\\x00b: cannot be read: ")
    assert file_message(tmp_path / ("x" * 300)).endswith(": cannot be read: File name too long")
    assert file_message(tmp_path / "a\nb.yaml").endswith("a\\nb.yaml: no such file")


def test_a_refused_file_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("train: {steps: 0}")
    file_message(Path("c.yaml"))
    assert os.listdir(tmp_path) == ["c.yaml"]  # noqa: PTH208


@pytest.mark.parametrize(
    "text", ["[" * 3000, "{a: " * 3000, "- " * 3000, "? " * 3000, "train: " + "[" * 3000]
)
def test_deep_nesting_ends_in_one_line(text: str):
    assert message(text) == "c.yaml: is nested too deep for a config"


def test_deep_nesting_takes_no_quadratic_time():
    for deep in ("data: " + "[" * 5900, "[a, {b: " * 1400, "[" * 199 + "a, " * 5000):
        began = time.process_time()
        message(deep)
        assert time.process_time() - began < 5  # the deep ones took 20 s; now 10 ms, and 0.6 s for the last


def test_an_alias_bomb_is_refused_without_being_expanded():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    assert message("\n".join(lines)).startswith("c.yaml:1:1: a0: unknown key")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [" + "[]," * 300_000, "has more than 6000 lines and values"),
        ("\n".join(f"a{n}: 1" for n in range(90_000)), "has more than 6000 lines and values"),
        ("a: &a [" + "*a, " * 250_000, "has more than 6000 lines and values"),
        ("a: !" + "x" * 1_000_000, "tags (!) are not taken in a config"),
        ("- " * 500_000, "is nested too deep for a config"),
        ("train: {steps: " + "9" * 1_000_000 + "}", "is not a number that can be read"),
        ("train: " + "x " * 200_000, "expected the keys"),
    ],
    ids=["lists", "lines", "aliases", "tag", "nesting", "number", "words"],
)
def test_a_large_text_is_refused_for_less_memory_than_it_asks_for(text: str, words: str):
    tracemalloc.start()
    try:
        told = message(text)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()
    assert words in told and len(told) < 200


def test_a_config_of_a_thousand_corpus_files_is_no_bomb():
    config = Config.model_validate({"data": {"corpus": [f"/texts/number: {n}, a.txt" for n in range(1000)]}})
    assert config_from_text(dump_config(config), "c.yaml") == config


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_a_config_or_one_line(text: str):
    try:
        config_from_text(text, "c.yaml", ["sample.prompt=" + text])
    except UsageError as error:
        assert str(error).isprintable()


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(known_keys()),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=8)
        | st.lists(st.integers(), max_size=3),
        max_size=4,
    )
)
def test_any_values_give_a_config_or_one_line(values: dict[str, object]):
    text = "".join(
        f"{key.split('.')[0]}:\n  {key.split('.')[1]}: {value!r}\n" for key, value in values.items()
    )
    try:
        config_from_text(text, "c.yaml")
    except UsageError as error:
        assert str(error).isprintable()


NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
# a leading ~ is expanded when a config is read, so none is left in a path that a config holds
PATHS = TEXTS.filter(lambda text: "\0" not in text and not text.startswith("~"))


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any valid config: each key over its range, within the rules between keys."""
    n_head = draw(st.integers(1, 64))
    shards = 2 ** draw(st.integers(0, 8))
    micro_batch = draw(st.integers(1, 16))
    steps = draw(st.integers(1, 10**9))
    lr = draw(st.floats(0, 10, exclude_min=True))
    fraction = st.floats(0, 1, exclude_max=True)
    count = st.integers(0, 10**9)
    return Config.model_validate(
        {
            "model": {
                "vocab_size": draw(st.integers(256, 2**32)),
                "block_size": draw(st.integers(1, 65536)),
                "n_layer": draw(st.integers(1, 1024)),
                "n_head": n_head,
                "n_embd": n_head * draw(st.integers(1, 1024)),
                "dropout": draw(fraction),
                "tie_embeddings": draw(st.booleans()),
            },
            "data": {
                "corpus": draw(PATHS | st.lists(PATHS, min_size=1, max_size=3)),
                "val_fraction": draw(st.floats(0, 1, exclude_min=True, exclude_max=True)),
            },
            "train": {
                "steps": steps,
                "batch_size": shards * micro_batch * draw(st.integers(1, 8)),
                "shards": shards,
                "micro_batch": micro_batch,
                "seed": draw(st.integers(0, 2**63 - 1)),
            },
            "optim": {
                "lr": lr,
                "min_lr": draw(st.floats(0, lr)),
                "warmup_steps": draw(st.integers(0, steps)),
                "schedule": draw(st.sampled_from(["cosine", "linear", "constant"])),
                "beta1": draw(fraction),
                "beta2": draw(fraction),
                "eps": draw(st.floats(0, 1, exclude_min=True)),
                "weight_decay": draw(st.floats(0, 10)),
                "clip_norm": draw(st.floats(0, 1e9)),
            },
            "eval": {"every": draw(count), "batches": draw(st.integers(1, 10**6)), "patience": draw(count)},
            "sample": {
                "every": draw(count),
                "prompt": draw(TEXTS),
                "tokens": draw(st.integers(1, 65536)),
                "temperature": draw(st.floats(0, 100)),
            },
            "checkpoint": {"every": draw(count), "keep": draw(st.integers(1, 10**6))},
            "run": {
                "name": draw(NAMES),
                "dir": draw(PATHS),
                "workers": draw(st.integers(0, shards)),
                "pin": draw(
                    st.sampled_from(["none", "auto"]) | st.lists(st.integers(0, 8191), min_size=1, max_size=4)
                ),
                "step_timeout_s": draw(st.floats(0, 1e6, exclude_min=True)),
                "on_nonfinite": draw(st.sampled_from(["stop", "skip"])),
                "trackers": draw(st.lists(st.sampled_from(["jsonl", "tensorboard", "wandb"]), max_size=3)),
            },
        }
    )


@settings(max_examples=60, deadline=None)
@given(configs())
def test_a_written_config_reads_back_as_the_same_config(config: Config):
    text = dump_config(config)
    assert config_from_text(text, "dump") == config
    assert dump_config(config_from_text(text, "dump")) == text


@pytest.mark.parametrize("name", ["yes", "null", "true", "1e3", "12", "0x10", "2026-01-02", "1_0", "on", "_"])
def test_a_name_that_yaml_could_take_for_something_else_is_written_in_quotes(name: str):
    config = config_from_text(f'run: {{name: "{name}"}}', "c.yaml")
    assert f'name: "{name}"\n' in dump_config(config)
    assert config_from_text(dump_config(config), "dump") == config


def test_a_written_config_has_every_key_in_order_below_its_sentence():
    lines = dump_config(Config()).splitlines()
    written, section = [], ""
    for above, line in zip(["", *lines], lines, strict=False):
        if line and not line.startswith(" "):
            section = line.removesuffix(":")
        elif line.startswith("  ") and not line.startswith("  #"):
            written.append(f"{section}.{line.split(':')[0].strip()}")
            assert re.fullmatch(r"  # .+\.", above), line
    assert tuple(written) == known_keys()
    assert max(map(len, lines)) <= 110
