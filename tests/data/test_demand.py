"""What preparing takes, estimated on a sample, against what it takes."""

import base64
import random
import subprocess
import sys

import pytest

from feste_dp.data.corpus import read_shakespeare
from feste_dp.data.demand import FIXED_BYTES, different_words, measure_demand
from feste_dp.data.preparation import prepare_for_run, prepare_token_data
from feste_dp.data.text_file import text_in_memory
from feste_dp.errors import UsageError

SIZE = 2**20

PEAK = """
import sys
from pathlib import Path
from feste_dp.data.corpus import read_corpus
from feste_dp.data.demand import measure_demand
from feste_dp.data.preparation import prepare_token_data
def memory(name):
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0]) * 1024
texts = read_corpus(sys.argv[1]).texts
demand = measure_demand(texts, 300, 0.9)
before = memory("VmRSS")
prepare_token_data(texts, 300, 0.1, Path(sys.argv[2]))
print(memory("VmHWM") - before, demand.memory)
"""


def chinese(size):
    draw = random.Random(1)
    characters = [chr(0x4E00 + number) for number in range(3000)]
    weights = [1 / (number + 1) for number in range(3000)]
    lines = ("".join(draw.choices(characters, weights, k=draw.randint(5, 30))) for _ in range(size // 53))
    return "。\n".join(lines)


def base64_text(size):
    return base64.b64encode(random.Random(1).randbytes(size * 3 // 4)).decode()


@pytest.mark.parametrize("make", [chinese, base64_text])
def test_the_estimate_is_above_what_it_takes_and_not_far(tmp_path, make):
    path = tmp_path / "a.txt"
    path.write_text(make(SIZE))
    run = subprocess.run(
        [sys.executable, "-c", PEAK, str(path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    taken, estimated = map(int, run.stdout.split())
    assert taken < estimated < 2.5 * (taken + FIXED_BYTES)


def test_words_of_a_text_without_spaces_grow_with_it_and_those_of_english_do_not():
    half, english = base64_text(2**17), read_shakespeare()
    assert different_words([half[: 2**16], half[2**16 :]], 2**17, 100 * 2**17) > 50 * 2**17
    samples = [english[start : start + 2**14] for start in range(0, len(english) - 2**14, len(english) // 16)]
    estimated = different_words(samples, 2**18, len(english))
    assert 150_000 < estimated < 600_000  # they are 310,000


def test_too_little_memory_is_one_line_before_the_work_and_nothing_is_made(tmp_path):
    texts = [text_in_memory("secrets", base64_text(2**21))]
    least = measure_demand(texts, 512, 0.9).memory
    with pytest.raises(
        UsageError, match=r"^text file secrets: preparing 2 MiB takes about \d+ MiB of memory, "
    ):
        prepare_token_data(texts, 512, 0.1, tmp_path / "out", memory=least // 2)
    path = tmp_path / "a.txt"
    path.write_text("to be or not to be\n" * 1000)
    with pytest.raises(UsageError, match="MiB are available: give less text"):
        prepare_for_run([str(path)], 256, 0.1, 8, tmp_path / "cache", memory=2**20)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    prepare_for_run([str(path)], 256, 0.1, 8, tmp_path / "cache")
    prepare_for_run([str(path)], 256, 0.1, 8, tmp_path / "cache", memory=2**20)  # cached: takes none
