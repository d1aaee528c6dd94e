import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feste_dp.data import corpus, held_out, preparation
from feste_dp.data.corpus import read_shakespeare
from feste_dp.data.preparation import prepare_for_run, prepare_token_data
from feste_dp.data.text_file import text_in_memory
from feste_dp.data.tokenizer import load_tokenizer
from feste_dp.data.tokens import open_token_data
from feste_dp.errors import UsageError
from feste_dp.files import whole_folder

TEXT = read_shakespeare()[3_000_000:3_030_000]
TEXTS = [text_in_memory("play.txt", TEXT)]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "play.txt"
    path.write_text(TEXT)
    return str(path)


def names_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock")


def test_prepared_parts_join_to_the_text_and_validation_starts_a_line(tmp_path):
    data = prepare_token_data(TEXTS, 300, 0.1, tmp_path / "out")
    tokenizer = load_tokenizer(data.tokenizer_path)
    train, val = tokenizer.decode(data.train), tokenizer.decode(data.val)
    assert train + val == TEXT if TEXT.endswith("\n") else train + val == TEXT + "\n"
    assert train.endswith("\n") and 0.1 <= len(val) / len(TEXT) < 0.11
    assert (data.train_bytes, data.val_bytes) == (len(train), len(val))
    assert names_below(tmp_path) == ["out", "out/meta.json", "out/tokenizer.json", "out/tokens.bin"]


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(st.text(st.sampled_from("ab \né"), min_size=1, max_size=40), min_size=1, max_size=4),
    fraction=st.floats(0.01, 0.99),
)
def test_every_split_keeps_the_text_and_falls_on_a_line_where_there_is_one(parts, fraction):
    texts = [text_in_memory(str(number), part) for number, part in enumerate(parts)]
    joined = "".join(part if part.endswith("\n") else part + "\n" for part in parts)
    cut = held_out._split_position(texts, fraction)
    position = int(len(joined) * (1 - fraction))
    assert cut == (joined.rfind("\n", 0, position) + 1 or position)
    assert "".join(held_out.Stretch(texts, 0, cut).pieces()) == joined[:cut]
    assert "".join(held_out.Stretch(texts, cut).pieces()) == joined[cut:]


def test_the_tokenizer_never_sees_the_validation_text(tmp_path):
    train = "the cat sat on the mat\n" * 50
    data = prepare_token_data([text_in_memory("a", train + "zqzqzqzq\n" * 20)], 260, 0.13, tmp_path / "out")
    assert not any("zq" in token for token in load_tokenizer(data.tokenizer_path).inner.get_vocab())


def test_texts_are_joined_in_order_with_line_ends_between(tmp_path):
    texts = [text_in_memory("a", TEXT[:20_000] + "end"), text_in_memory("b", TEXT[20_000:])]
    data = prepare_token_data(texts, 300, 0.1, tmp_path / "out")
    tokenizer = load_tokenizer(data.tokenizer_path)
    assert tokenizer.decode(data.train).startswith(TEXT[:20_000] + "end\n" + TEXT[20_000:20_100])


def test_the_meta_file_names_sources_without_their_folders(tmp_path):
    prepare_token_data([text_in_memory("/home/me/a\nb.txt", TEXT)], 300, 0.1, tmp_path / "out")
    sources = json.loads((tmp_path / "out" / "meta.json").read_text())["sources"]
    assert [source["name"] for source in sources] == ["a_b.txt"]
    assert sources[0]["bytes"] == len(TEXT)


def test_the_same_texts_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        prepare_token_data(TEXTS, 300, 0.1, tmp_path / name)
    for file in ("meta.json", "tokens.bin", "tokenizer.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_an_output_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UsageError, match="exists and is not empty"):
            prepare_token_data(TEXTS, 300, 0.1, out)
    assert (tmp_path / "mine").read_text() == "precious"


def test_an_empty_output_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    assert prepare_token_data(TEXTS, 300, 0.1, tmp_path / "out").vocab_size == 300


@pytest.mark.parametrize("moment", [(preparation, "write_token_files"), (whole_folder, "sync_directory")])
def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch, moment):
    def full(*args, **fields):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*moment, full)
    with pytest.raises(UsageError, match="No space left"):
        prepare_token_data(TEXTS, 300, 0.1, tmp_path / "out")
    assert names_below(tmp_path) == []


@pytest.mark.parametrize(
    ("vocab_size", "val_fraction", "message"),
    [
        (100, 0.1, "256"),
        (30_000, 0.1, "set it to that"),
        (300, 0.0, "val_fraction"),
        (300, 1.0, "val_frac"),
    ],
)
def test_settings_that_do_not_fit_create_nothing(tmp_path, vocab_size, val_fraction, message):
    with pytest.raises(UsageError, match=message):
        prepare_token_data(TEXTS, vocab_size, val_fraction, tmp_path / "deep" / "out")
    assert names_below(tmp_path) == []


def test_a_run_makes_its_data_once_and_then_uses_the_cache(tmp_path, text_file, monkeypatch):
    first = prepare_for_run([text_file], 300, 0.1, 64, tmp_path / "cache")
    monkeypatch.setattr(preparation, "_prepare", None)  # would fail if it were called
    second = prepare_for_run([text_file], 300, 0.1, 64, tmp_path / "cache")
    assert first.directory == second.directory and first.fingerprint == second.fingerprint
    assert first.directory.parent == tmp_path / "cache" / "corpora"
    assert first.directory.name.startswith("play-v300-")


def test_the_cache_tells_text_vocabulary_and_split_apart(tmp_path, text_file):
    def folder(vocab_size=300, val_fraction=0.1):
        return prepare_for_run([text_file], vocab_size, val_fraction, 64, tmp_path / "cache").directory

    folders = {folder(), folder(vocab_size=301), folder(val_fraction=0.2)}
    Path(text_file).write_text(TEXT + "One word more.\n")
    folders.add(folder())
    assert len(folders) == 4


def test_the_embedded_plays_are_a_corpus_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "read_shakespeare", lambda: TEXT)
    data = prepare_for_run("shakespeare", 300, 0.1, 64, tmp_path)
    assert data.directory.name.startswith("shakespeare-v300-")


def test_a_folder_of_text_files_is_read_in_the_order_of_names(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "b.txt").write_text(TEXT[15_000:])
    (folder / "a.txt").write_text(TEXT[:15_000])
    (folder / "notes.md").write_text("not a part of it")
    data = prepare_for_run(str(folder), 300, 0.1, 64, tmp_path / "cache")
    assert load_tokenizer(data.tokenizer_path).decode(data.train[:100]) in TEXT[:1000]
    assert data.directory.name.startswith("texts-v300-")


def test_a_folder_is_one_corpus_for_prepare_and_for_a_run(tmp_path):
    for name in ("b/c.txt", "a.txt", "b.txt"):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text(f"{name}\n" + TEXT[:9000])
    said = []
    run = prepare_for_run(str(tmp_path / "texts"), 300, 0.1, 8, tmp_path / "cache", tell=said.append)
    texts = corpus.read_corpus([str(tmp_path / "texts")]).texts
    made = prepare_token_data(texts, 300, 0.1, tmp_path / "out")
    assert run.fingerprint == made.fingerprint and run.tokenizer_sha256 == made.tokenizer_sha256
    assert said == [f"{tmp_path}/texts: 3 .txt files, 27,020 bytes"]


def test_more_files_than_meta_json_lists_are_one_entry(tmp_path):
    texts = [text_in_memory(f"{number}.txt", f"to be {number}\n") for number in range(1500)]
    data = prepare_token_data(texts, 256, 0.1, tmp_path / "out")
    assert [source.name for source in data.sources] == ["1500 files"]


def test_a_single_file_by_its_name_is_a_corpus(tmp_path, text_file):
    by_name = prepare_for_run(text_file, 300, 0.1, 64, tmp_path / "cache")
    assert by_name.fingerprint == prepare_for_run([text_file], 300, 0.1, 64, tmp_path / "cache").fingerprint


def test_a_prepared_folder_is_opened_as_it_is(tmp_path):
    prepare_token_data(TEXTS, 300, 0.1, tmp_path / "mine")
    data = prepare_for_run(str(tmp_path / "mine"), 300, 0.5, 64, tmp_path / "cache")
    assert data.directory == tmp_path / "mine" and not (tmp_path / "cache").exists()
    with pytest.raises(UsageError, match=r"vocabulary of 300, model.vocab_size is 512: set .* to 300"):
        prepare_for_run(str(tmp_path / "mine"), 512, 0.5, 64, tmp_path / "cache")
    (tmp_path / "mine" / "tokens.bin").write_bytes(b"")
    with pytest.raises(UsageError, match="damaged"):
        prepare_for_run(str(tmp_path / "mine"), 300, 0.5, 64, tmp_path / "cache")


@pytest.mark.parametrize("corpus", ["nowhere", ["nowhere.txt"], [], "empty", ["empty"]])
def test_a_corpus_that_is_not_there_is_named(tmp_path, monkeypatch, corpus):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"nowhere|empty|\[\]"):
        prepare_for_run(corpus, 300, 0.1, 64, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_text_shorter_than_a_block_names_the_part_and_the_setting(tmp_path, text_file):
    with pytest.raises(
        UsageError, match=r"training text has \d+ tokens, fewer than .* = 100001: .*block_size"
    ):
        prepare_for_run([text_file], 300, 0.1, 100_000, tmp_path / "cache")
    with pytest.raises(UsageError, match=r"validation text has \d+ tokens, fewer than .* = 4001: raise data"):
        prepare_for_run([text_file], 300, 0.1, 4_000, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    prepare_for_run([text_file], 300, 0.1, 64, tmp_path / "cache")
    with pytest.raises(UsageError, match="validation text"):  # the same from the cache
        prepare_for_run([text_file], 300, 0.1, 4_000, tmp_path / "cache")


@pytest.mark.parametrize("file", ["tokens.bin", "tokenizer.json", "meta.json"])
def test_a_damaged_cache_is_made_again(tmp_path, text_file, file):
    good = prepare_for_run([text_file], 300, 0.1, 64, tmp_path / "cache")
    content = (good.directory / file).read_bytes()
    for damaged in (content[: len(content) // 2], b"\0" + content[1:], None):
        (good.directory / file).unlink()
        if damaged is not None:
            (good.directory / file).write_bytes(damaged)
        again = prepare_for_run([text_file], 300, 0.1, 64, tmp_path / "cache")
        assert (again.directory / file).read_bytes() == content
    assert names_below(tmp_path / "cache" / "corpora")[1:] == [
        f"{good.directory.name}/{name}" for name in ("meta.json", "tokenizer.json", "tokens.bin")
    ]


def test_a_file_in_the_place_of_the_cached_folder_is_replaced(tmp_path, text_file):
    good = prepare_for_run([text_file], 300, 0.1, 64, tmp_path / "cache")
    good.directory.rename(tmp_path / "old")
    good.directory.write_text("in the way")
    assert prepare_for_run([text_file], 300, 0.1, 64, tmp_path / "cache").fingerprint == good.fingerprint


def test_processes_that_prepare_at_once_all_succeed_and_share_one_folder(tmp_path, text_file):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from feste_dp.data.preparation import prepare_for_run\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "data = prepare_for_run([sys.argv[1]], 300, 0.1, 64, Path(sys.argv[2]))\n"
        "print(data.directory.name, data.fingerprint, int(data.train[:].sum()))\n"
    )
    command = [sys.executable, "-c", program, text_file, str(tmp_path / "cache")]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    outputs = {process.communicate("go\n")[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0] and len(outputs) == 1
    assert len([name for name in names_below(tmp_path / "cache" / "corpora") if "/" not in name]) == 1


def test_the_loser_of_a_race_without_locks_uses_the_winners_folder(tmp_path, monkeypatch):
    prepared = preparation._prepare(TEXTS, 300, 0.1, tmp_path / "target")
    write = preparation.write_token_files

    def lose_the_race(folder, **fields):
        write(folder, **fields)
        (tmp_path / "target").mkdir()
        write(tmp_path / "target", **fields)

    monkeypatch.setattr(preparation, "write_token_files", lose_the_race)
    data = preparation._fill_cache(prepared, tmp_path / "target")
    assert data.fingerprint == open_token_data(tmp_path / "target").fingerprint
    assert [name for name in names_below(tmp_path) if "/" not in name] == ["target"]


def test_a_cache_that_cannot_be_written_names_the_variable_to_set(tmp_path, text_file):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="FESTE_DP_CACHE"):
        prepare_for_run([text_file], 300, 0.1, 64, tmp_path / "file" / "cache")


def test_half_a_token_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path):
    dead, alive = (tmp_path / f".books.{pid}-0123abcd.tmp" for pid in (2**22 + 1, os.getpid()))
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "tokens.bin").touch()
    whole_folder._remove_dead_siblings(tmp_path / "books")
    assert list(tmp_path.iterdir()) == [alive]


def test_the_folder_of_caches_is_private_from_its_first_moment(tmp_path, text_file):
    prepare_for_run([text_file], 300, 0.1, 64, tmp_path / "not" / "there")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("not", "not/there")] == [0o700] * 2
