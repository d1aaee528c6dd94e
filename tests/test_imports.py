"""Imports point one way; the table is the one that ARCHITECTURE.md prints."""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "feste_dp"

TABLE_LINE = (
    "{cli, api} -> report -> scale -> bench -> verify -> replay -> train -> plan -> run -> nodes -> runtime "
    "-> {model, optim, data, checkpoint} -> {kernels, config, machine} -> files"
)
LAYERS = [layer.strip("{}").split(", ") for layer in TABLE_LINE.split(" -> ")]

# What each part of the package may import, besides itself and what is free for all: the layers below its own.
MAY_IMPORT: dict[str, set[str]] = {
    part: {lower for below in LAYERS[depth + 1 :] for lower in below}
    for depth, layer in enumerate(LAYERS)
    for part in layer
}
FREE_FOR_ALL = {
    "errors",
    "cache",
    "import_path",
    "interruption",
    "json_text",
    "output",
    "wording",
    "__version__",
    "",
}
MAY_IMPORT |= {part: set() for part in FREE_FOR_ALL} | {
    "__init__": {"api"},
    "__main__": {"cli"},
    "cache": {"files"},
}

# Test references and optional extras: never needed to import the program.
NOT_AT_MODULE_LEVEL = {
    "torch",
    "transformers",
    "matplotlib",
    "tensorboardX",
    "wandb",
    "starlette",
    "uvicorn",
    "mpi4py",
}

# A process of its own, started only where PyTorch is installed; no other module imports these.
TORCH_PROCESS = ("feste_dp.scale.baselines.torch_steps", "feste_dp.scale.baselines.torch_gpt2")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{name.name}") for name in node.names)


def module_level(tree: ast.AST) -> ast.Module:
    """The tree without the bodies of its functions and what only type checkers read: what runs at import."""

    class WithoutFunctions(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            is_for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return None if is_for_types else self.generic_visit(node)

    stripped = WithoutFunctions().visit(tree)
    assert isinstance(stripped, ast.Module)
    return stripped


def violations(part: str, file: str, source: str) -> list[str]:
    """One line per import that the table forbids to a file of this part of the package."""
    tree = ast.parse(source)
    if part not in MAY_IMPORT:
        return [f"{file}: {part} is not in the import table; give it a place there and in ARCHITECTURE.md"]
    found = []
    for line, name in imports(tree):
        if name.startswith("."):
            found.append(f"{file}:{line}: relative import {name}; write it as feste_dp...")
        elif name.split(".")[0] == "feste_dp":
            target = [*name.split("."), ""][1]
            if target not in MAY_IMPORT[part] | FREE_FOR_ALL | {part}:
                found.append(f"{file}:{line}: {part} must not import {name}; the order is {TABLE_LINE}")
    inside_torch_process = file.removesuffix(".py").replace("/", ".") in TORCH_PROCESS
    if not inside_torch_process:
        found += [
            f"{file}:{line}: {name} imports PyTorch; start it as a process"
            for line, name in imports(tree)
            if name.startswith(TORCH_PROCESS)
        ]
    for line, name in imports(module_level(tree)):
        if name.split(".")[0] in NOT_AT_MODULE_LEVEL - ({"torch"} if inside_torch_process else set()):
            found.append(f"{file}:{line}: {name} is imported at module level; it is no core dependency")
    return found


def test_every_import_of_the_package_follows_the_table():
    files = sorted(PACKAGE.rglob("*.py"))
    assert files
    found = []
    for file in files:
        inside = file.relative_to(PACKAGE)
        part = inside.parts[0].removesuffix(".py")
        found += violations(part, str(file.relative_to(ROOT)), file.read_text(encoding="utf-8"))
    assert not found, "\n" + "\n".join(found)


def module_imports(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Which of the modules (dotted name, source) each of them imports, inside functions too."""
    graph = {}
    for module, source in sources.items():
        named = {name for _, name in imports(ast.parse(source))}
        named |= {name.rpartition(".")[0] for name in named}
        graph[module] = (named & sources.keys()) - {module}
    return graph


def a_circle(sources: Mapping[str, str]) -> list[str]:
    """The modules of one circle of imports, or none."""
    try:
        TopologicalSorter(module_imports(sources)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def sources_of_the_package() -> dict[str, str]:
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file.read_text(
            encoding="utf-8"
        )
        for file in PACKAGE.rglob("*.py")
    }


def test_no_modules_import_each_other_in_a_circle():
    sources = sources_of_the_package()
    assert len(sources) > 100
    assert not a_circle(sources)


def test_a_circle_inside_a_package_is_found():
    sources = {
        "p.a": "from p import b",
        "p.b": "def f():\n    from p.c import g",
        "p.c": "from p.a import h",
        "p.d": "import p.a",
    }
    assert set(a_circle(sources)) == {"p.a", "p.b", "p.c"}
    assert not a_circle(sources | {"p.c": "import math"})


def test_every_core_dependency_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^\w.-]", needed)[0] for needed in project["dependencies"]}
    modules = {"pyzmq": "zmq", "ruamel.yaml": "ruamel.yaml"}
    imported = {
        name for source in sources_of_the_package().values() for _, name in imports(ast.parse(source))
    }
    unused = {
        name
        for name in names
        if not any(f"{each}.".startswith(f"{modules.get(name, name)}.") for each in imported)
    }
    assert not unused


def test_the_architecture_page_prints_the_table():
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert TABLE_LINE in page, f"ARCHITECTURE.md lacks the line: {TABLE_LINE}"


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("kernels", "import feste_dp.model.parameters"),
        ("config", "from feste_dp.kernels import linear"),
        ("config", "from feste_dp import kernels"),
        ("model", "from feste_dp.optim.adamw import update"),
        ("data", "def f():\n    from feste_dp.checkpoint.format import Manifest"),
        ("runtime", "from feste_dp.train.loop import train"),
        ("train", "if True:\n    import feste_dp.cli.main"),
        ("errors", "from feste_dp.config.schema import Config"),
        ("config", "from . import schema"),
        ("config", "from ..errors import UsageError"),
        ("train", "try:\n    import torch.nn\nexcept ImportError:\n    pass"),
        ("train", "class A:\n    from matplotlib import pyplot"),
        ("scale", "import torch"),
        ("scale", "def f():\n    from feste_dp.scale.baselines.torch_steps import Settings"),
        ("utilities", "import os"),
    ],
)
def test_a_forbidden_import_is_found(part: str, source: str):
    (line,) = violations(part, f"feste_dp/{part}/example.py", source)
    assert line.startswith(f"feste_dp/{part}/example.py:")


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("cli", "from feste_dp.train.loop import train\nfrom feste_dp import __version__"),
        ("train", "from feste_dp.kernels.linear import linear_forward"),
        (
            "model",
            "from feste_dp.model.parameters import Parameters\nfrom feste_dp.config.schema import Config",
        ),
        ("kernels", "from feste_dp.errors import UsageError\nimport numpy, torchlike"),
        ("train", "def plot():\n    from matplotlib import pyplot"),
        ("config", "import feste_dp"),
        ("report", "if TYPE_CHECKING:\n    from starlette.types import Send"),
    ],
)
def test_an_allowed_import_passes(part: str, source: str):
    assert violations(part, "example.py", source) == []
