import os
import subprocess
import sys
import threading

import pytest

from feste_dp.cache import Place
from feste_dp.errors import RunError
from feste_dp.files.writing import beside_name
from feste_dp.kernels.code_cache import CACHE_VARIABLE, KernelCache
from feste_dp.runtime import warmup
from feste_dp.runtime.warmup import compile_kernels, keep_journal, keep_what_is_whole

# What a run calls, with arrays as a run has them: mapped read-only tokens, views of the arena, a pinned seed.
REAL_CALLS = """
import os, sys
from pathlib import Path
import numpy as np
from feste_dp.config.schema import Config, ModelConfig, OptimConfig
from feste_dp.data.order import Spacing
from feste_dp.data.tokens import open_token_data
from feste_dp.kernels.adamw import adamw
from feste_dp.kernels.choice import softmax_weights
from feste_dp.kernels.data_order import fill_offsets
from feste_dp.plan.yardsticks import memory_bytes_per_second, peak_flops_per_second
from feste_dp.kernels.peak import multiply_tiles, triad
from feste_dp.kernels.philox import uniform
from feste_dp.kernels.reduction import reduce_slots
from feste_dp.model.decoding import extend, read
from feste_dp.model.gpt2 import micro_batch
from feste_dp.model.parameters import decayed_count, initial_params, parameter_count, view_params
from feste_dp.model.sampling import Sampler
from feste_dp.optim.adamw import AdamW
from feste_dp.runtime.arena import create_arena
from feste_dp.runtime.rehearsal import rehearse_all
from feste_dp.runtime.shard_computer import ShardComputer, ShardSpec
from feste_dp.runtime.slots import ShardBlock
from feste_dp.plan.step_time import micro_batch_seconds

entries = [fill_offsets, adamw, uniform, reduce_slots]
entries += [multiply_tiles, triad, read, extend, softmax_weights, micro_batch]
rehearse_all()
warmed = [set(entry.signatures) for entry in entries]

tied = len(sys.argv) > 2
cfg = ModelConfig(vocab_size=256, block_size=16, n_layer=2, n_head=4, n_embd=32, tie_embeddings=tied)
arena = create_arena(parameter_count(cfg), 4)
arena.params[:] = initial_params(cfg, 1)
data = open_token_data(Path(sys.argv[1]))
for precision in ["fp32", "bf16"]:
    sizes = {"shards": 4, "block": ShardBlock(0, 4), "sequences_per_shard": 2, "micro_batch": 2}
    spec = ShardSpec(model=cfg, **sizes, seed=2**63 - 1, precision=precision)
    computer = ShardComputer(spec, arena, data)
    for shard in range(4):
        computer.shard(3, shard, per_slot=4)
    computer.validation_unit(3, 1, Spacing(5, 1))
computer.stripe(0, len(arena.norms), 1)
AdamW(len(arena.params), decayed_count(cfg), OptimConfig(), 1).update(arena.params, arena.grad, 3, 0.1, 0.5)
for threads in (1, 2):
    sampler = Sampler(cfg, view_params(arena.params, cfg), threads)
    for length in (1, 3, 40):
        list(sampler.draw([1] * length, 20, temperature=0.5, seed=5, step=9, top_k=3))
micro_batch_seconds(Config.model_validate({"model": cfg.model_dump()}), 1, 0.01)
peak_flops_per_second("fp32", 2)
memory_bytes_per_second(2, 1 << 16)

for entry, before in zip(entries, warmed, strict=True):
    assert len(before) >= 1, entry
    assert set(entry.signatures) == before, (entry, set(entry.signatures) - before)
print("nothing new")
"""


def test_a_run_calls_nothing_that_the_warm_up_has_not_compiled(token_data, compiled):
    for tied in ([], ["tied"]):
        done = subprocess.run(
            [sys.executable, "-c", REAL_CALLS, str(token_data.directory), *tied],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "nothing new\n", "")


def no_process(*arguments, **options):
    raise AssertionError("a process was started")


def test_compiled_kernels_are_not_compiled_again(compiled, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", no_process)
    compile_kernels(os.environ, lambda seconds: None)


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "add"])
def test_a_cache_that_is_not_as_it_was_written_is_made_anew(empty_cache, monkeypatch, damage):
    (empty_cache / "feste_dp").mkdir()
    code = empty_cache / "feste_dp" / "code.nbc"
    with monkeypatch.context() as context:
        stand_in(WRITE_CODE, context)
        compile_kernels(os.environ, lambda seconds: None)
    assert code.read_bytes() == b"machine code"
    with monkeypatch.context() as context:
        context.setattr(subprocess, "Popen", no_process)
        compile_kernels(os.environ, lambda seconds: None)
    match damage:
        case "flip":
            code.write_bytes(b"machine kode")
        case "cut":
            code.write_bytes(b"machine")
        case "delete":
            code.unlink()
        case "add":
            code.with_name("foreign.nbc").write_bytes(b"x")
    stand_in(WRITE_CODE, monkeypatch)
    compile_kernels(os.environ, lambda seconds: None)
    assert [path.name for path in (empty_cache / "feste_dp").iterdir()] == ["code.nbc"]
    assert code.read_bytes() == b"machine code"


def test_making_a_cache_anew_leaves_what_is_not_compiled_code(empty_cache, monkeypatch):
    (empty_cache / "letters").mkdir()
    (empty_cache / "letters" / "to_my_mother.txt").write_text("dear")
    stand_in(WRITE_CODE, monkeypatch)
    compile_kernels(os.environ, lambda seconds: None)
    assert (empty_cache / "letters" / "to_my_mother.txt").read_text() == "dear"


def test_two_runs_that_start_at_once_compile_once(empty_cache, monkeypatch):
    stand_in(WRITE_CODE.replace("import", "import time; time.sleep(0.5); import", 1), monkeypatch)
    starts = []
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: starts.append(1) or start(*a, **k))
    both = [threading.Thread(target=compile_kernels, args=(os.environ, lambda s: None)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert len(starts) == 1


# Stands in for the warm-up: writes one file of code, then the mark.
WRITE_CODE = """
import os
from pathlib import Path
from feste_dp.runtime import warmup
folder = Path(os.environ["STAND_IN_CACHE"])
(folder / "feste_dp").mkdir(exist_ok=True)
(folder / "feste_dp" / "code.nbc").write_bytes(b"machine code")
warmup.write_mark(folder)
"""


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(warmup, "code_place", lambda: Place(tmp_path / "cache"))
    monkeypatch.setenv("STAND_IN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def stand_in(program, monkeypatch):
    """Lets another program run in the place of the warm-up."""
    original = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: original([sys.executable, "-c", program], **options)
    )


def test_waiting_for_the_compiler_is_reported(empty_cache, monkeypatch):
    stand_in("import time; time.sleep(0.3)", monkeypatch)
    waits = []
    compile_kernels(os.environ, waits.append)
    assert len(waits) >= 2 and waits == sorted(waits)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise OSError('disk full')", "OSError: disk full"),
        ("raise OSError(28, 'No space left on device')", "OSError: [Errno 28] No space left on device"),
        ("import os; os._exit(3)", "the compiler ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "the compiler ended with status -9"),
    ],
)
def test_a_compiler_that_fails_is_one_line(empty_cache, monkeypatch, program, reason):
    stand_in(program, monkeypatch)
    with pytest.raises(RunError) as caught:
        compile_kernels(os.environ, lambda seconds: None)
    words = str(caught.value)
    assert words.startswith(f"the kernels could not be compiled: {reason} (into {empty_cache}, ")
    assert "FESTE_DP_CACHE moves it" in words and "\n" not in words


# Stands in for a warm-up that is killed in the middle: a file of code cut short, and no mark.
KILLED = """
import os
from pathlib import Path
folder = Path(os.environ["STAND_IN_CACHE"]) / "feste_dp"
folder.mkdir(exist_ok=True)
(folder / "half.nbc").write_bytes(b"mach")
os.kill(os.getpid(), 9)
"""


def test_half_a_file_that_a_kill_left_is_made_anew(empty_cache, monkeypatch):
    with monkeypatch.context() as context:
        stand_in(KILLED, context)
        with pytest.raises(RunError):
            compile_kernels(os.environ, lambda seconds: None)
    assert (empty_cache / "feste_dp" / "half.nbc").exists()
    stand_in(WRITE_CODE, monkeypatch)
    compile_kernels(os.environ, lambda seconds: None)
    assert [path.name for path in (empty_cache / "feste_dp").iterdir()] == ["code.nbc"]


def test_what_was_compiled_before_a_kill_is_kept_as_far_as_it_is_whole(tmp_path, monkeypatch):
    files = [tmp_path / "feste_dp" / f"{name}.nbc" for name in ("whole", "torn", "rewritten", "unfinished")]
    files[0].parent.mkdir()
    for file in files:
        file.write_bytes(b"machine code")
    monkeypatch.setattr(KernelCache, "saved", None)
    keep_journal(tmp_path)
    KernelCache.saved(files[:3])
    files[2].write_bytes(b"better code")
    KernelCache.saved(files[2:3])
    files[1].write_bytes(b"mach")
    with (tmp_path / "finished").open("ab") as journal:
        journal.write(b"0123 half a li")
    (files[0].parent / "whole.nbc.tmp.0123456789abcdef").touch()  # as Numba writes
    beside_name(tmp_path / "complete").touch()
    keep_what_is_whole(tmp_path)
    assert sorted(path.name for path in files[0].parent.iterdir()) == ["rewritten.nbc", "whole.nbc"]
    assert not list(tmp_path.glob(".*"))
    keep_what_is_whole(tmp_path)
    assert len(list(files[0].parent.iterdir())) == 2


def test_each_kernel_that_is_compiled_is_written_down_once_its_files_are_whole(tmp_path):
    program = f"""
import os
os.environ["{CACHE_VARIABLE}"] = {str(tmp_path / "cache")!r}
from pathlib import Path
from feste_dp.cache import make_private
from feste_dp.kernels.handover import listen
from feste_dp.runtime.warmup import keep_journal
import numpy as np
folder = Path(os.environ["{CACHE_VARIABLE}"])
make_private(folder)
keep_journal(folder)
listen(np.zeros(1, np.int64))
"""
    command = [sys.executable, "-c", program]
    subprocess.run(command, check=True, timeout=100)
    keep_what_is_whole(tmp_path / "cache")
    names = [path.name for path in (tmp_path / "cache").glob("kernels_*/handover.listen-*")]
    assert len(names) == 2


def test_complete_code_is_used_without_a_lock_and_without_writing(empty_cache, monkeypatch):
    stand_in(WRITE_CODE, monkeypatch)
    compile_kernels(os.environ, lambda seconds: None)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in empty_cache.rglob("*"))
    monkeypatch.setattr(subprocess, "Popen", no_process)
    monkeypatch.setattr(warmup, "make_private", no_process)
    monkeypatch.setattr(warmup, "lock_if_possible", no_process)
    compile_kernels(os.environ, lambda seconds: None)
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in empty_cache.rglob("*"))


@pytest.mark.parametrize("in_the_way", ["complete", "feste_dp/code.nbc"])
def test_a_cache_that_cannot_be_mended_is_one_line(empty_cache, monkeypatch, in_the_way):
    (empty_cache / in_the_way).mkdir(parents=True)
    stand_in(WRITE_CODE, monkeypatch)
    with pytest.raises(RunError) as caught:
        compile_kernels(os.environ, lambda seconds: None)
    words = str(caught.value)
    assert str(empty_cache) in words and "FESTE_DP_CACHE" in words and "\n" not in words


def test_a_place_for_the_lock_that_cannot_be_written_is_no_reason_to_stop(empty_cache, monkeypatch):
    (empty_cache / "lock").mkdir()
    stand_in(WRITE_CODE, monkeypatch)
    compile_kernels(os.environ, lambda seconds: None)
    assert (empty_cache / "feste_dp" / "code.nbc").exists()


def test_a_stop_while_compiling_ends_the_compiler_too(empty_cache, monkeypatch):
    stand_in("import time; time.sleep(60)", monkeypatch)
    started = []
    start = subprocess.Popen

    def recorded(*arguments, **options):
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", recorded)

    def stop(seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_kernels(os.environ, stop)
    assert started[0].returncode == -9


def test_the_compiler_runs_with_one_thread_and_the_environment_of_the_run(empty_cache, monkeypatch):
    program = (
        "import os; assert os.environ['OMP_NUM_THREADS'] == '1' and os.environ['MARK'] == 'x', os.environ"
    )
    stand_in(program, monkeypatch)
    compile_kernels(os.environ | {"OMP_NUM_THREADS": "8", "MARK": "x"}, lambda seconds: None)
