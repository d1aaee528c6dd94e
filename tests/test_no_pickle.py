"""Nothing that turns bytes into code: not in the source, not when a run's files are read.

The one exception is the compiler's own cache (numba pickles its index), which lies in a directory that only
the user can write to (tests/test_cache.py) and is verified before it is used (tests/runtime/test_warmup.py).
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "feste_dp"
MODULES = {
    *("pickle", "_pickle", "cloudpickle", "dill", "joblib", "jsonpickle"),
    *("marshal", "shelve", "yaml", "code"),
}
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
METHODS = {
    *("recv_pyobj", "send_pyobj", "recv_serialized", "read_pickle"),
    *("unsafe_load", "full_load", "load_module", "exec_module"),
}
FLAGS = {"allow_pickle": True, "shell": True, "weights_only": False}


def unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each use of what can run code that a file or a frame brings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in MODULES:
                yield node.lineno, str(node.module)
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if name in CALLS or method in METHODS or (method == "load" and _is_numpy(node.func)):
                yield node.lineno, name or method
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else "an expression"
                if keyword.arg in FLAGS and value is not (not FLAGS[keyword.arg]):
                    yield node.lineno, str(keyword.arg)
                if name == "YAML" and keyword.arg == "typ" and value != "safe":
                    yield node.lineno, "YAML"
            if name == "YAML" and not any(keyword.arg == "typ" for keyword in node.keywords):
                yield node.lineno, "YAML"


def _is_numpy(function: ast.expr) -> bool:
    """numpy.load reads pickles unless told not to; nothing here needs it."""
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id == "np"
    )


def test_no_file_of_the_package_can_read_code_from_bytes() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for _, name in unsafe(ast.parse(path.read_text()))
    ]
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        *(
            "import pickle",
            "from pickle import loads",
            "import yaml",
            "import cloudpickle as c",
            "import marshal",
        ),
        *("np.load(path)", "np.load(path, allow_pickle=True)", "np.fromfile(f, allow_pickle=flag)"),
        *(
            "socket.recv_pyobj()",
            "socket.send_pyobj(x)",
            "eval(text)",
            "exec(text)",
            "compile(text, 'a', 'exec')",
        ),
        *("YAML()", "YAML(typ='unsafe')", "YAML(typ='rt')", "torch.load(path, weights_only=False)"),
        *("subprocess.run(x, shell=True)", "__import__(name)"),
    ],
)
def test_what_could_read_code_from_bytes_is_found(source: str) -> None:
    assert list(unsafe(ast.parse(source)))


@pytest.mark.parametrize(
    "source", ["config.eval.every", "re.compile(x)", "YAML(typ='safe', pure=True)", "json.loads(x)"]
)
def test_what_reads_data_only_passes(source: str) -> None:
    assert not list(unsafe(ast.parse(source)))


READ_ALL = """
import sys
unpickled = []
sys.addaudithook(lambda event, args: unpickled.append(args) if event == "pickle.find_class" else None)
import pickle
pickle.loads(pickle.dumps(sys.exit))
assert unpickled.pop() == ("sys", "exit")  # the hook works
from pathlib import Path
from feste_dp.checkpoint.saving import write_checkpoint
from feste_dp.config.loading import load_config
from feste_dp.data.preparation import prepare_token_data
from feste_dp.data.text_file import text_in_memory
from feste_dp.data.tokens import open_token_data
from feste_dp.checkpoint.loading import load_checkpoint
from feste_dp.runtime import messages as m
from feste_dp.runtime.worker import WorkerSpec
from feste_dp.run.metrics import MetricsRow, MetricsWriter, read_metrics
from tests.checkpoint.conftest import example_arrays, example_fields
folder = Path(sys.argv[1])
checkpoint = write_checkpoint(folder, example_fields(5, 100), example_arrays(1, 100))
load_checkpoint(checkpoint)
prepare_token_data([text_in_memory("a", "to be or not to be\\n" * 30)], 258, 0.1, folder / "tokens")
open_token_data(folder / "tokens", verify=True)
(folder / "c.yaml").write_text("train: {steps: 3}")
load_config(folder / "c.yaml")
m.decode(m.encode(m.Compute(1, 1, 2, 1)))
with MetricsWriter(folder / "m.csv") as writer:
    writer.append(MetricsRow(1, 0.0, 1e-3, 2.0, 1.0, 0.0))
read_metrics(folder / "m.csv")
ours = ("numba", "feste_dp.kernels", "builtins", "types")
of_others = [args for args in unpickled if not args[0].startswith(ours)]
print(of_others)
for path in folder.rglob("*"):
    if path.is_file():
        assert path.suffix in (".json", ".safetensors", ".bin", ".yaml", ".csv"), path
        assert path.read_bytes()[:1] != b"\\x80", path  # how a pickle starts
"""


def test_nothing_is_unpickled_while_the_files_and_frames_of_a_run_are_written_and_read(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", READ_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
