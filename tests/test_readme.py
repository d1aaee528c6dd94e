"""The README and the docs name only commands, files and keys that exist."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from feste_dp.cli.commands import cli
from feste_dp.config.schema import known_keys

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "ARCHITECTURE.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "launch").glob("*.md"),
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_of_a_page_exists(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_has_help_and_only_known_options(page: Path) -> None:
    for line in re.findall(r"^\s*(?:\$ )?feste-dp (.+?)(?:\s{2,}.*)?$", page.read_text(), re.MULTILINE):
        words = line.split()
        name = words[:2] if words[0] in ("checkpoint", "config") else words[:1]
        result = CliRunner().invoke(cli, [*name, "--help"])
        assert result.exit_code == 0, f"{page.name}: feste-dp {line}"
        for option in re.findall(r"(?<=\s)--[a-z-]+", line):
            assert option in result.output, f"{page.name}: feste-dp {line}: {option}"
        for key in re.findall(r"--set ([\w.]+)=", line):
            assert key in known_keys(), f"{page.name}: {key}"


def test_every_config_the_pages_name_is_there() -> None:
    for page in PAGES:
        for name in re.findall(r"configs/[\w.]+\.yaml", page.read_text()):
            assert name == "configs/NAME.yaml" or (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_python_of_the_readme_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.endswith("(512, 64)\n")


def test_every_file_and_function_that_the_architecture_page_points_at_is_there() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    pointed = re.findall(r"`(\w+/\w+\.py)(?::(\w+))?", page)
    assert len(pointed) > 10
    for file, name in pointed:
        path = ROOT / file if file.startswith("tests/") else ROOT / "feste_dp" / file
        assert path.exists(), file
        assert not name or re.search(
            rf"^\s*(?:def|class) {name}\b|^{name}\b", path.read_text(), re.MULTILINE
        ), name
