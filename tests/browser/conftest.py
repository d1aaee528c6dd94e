"""A real browser on pages of real runs. All tests here carry the mark `browser`: see `make test-browser`."""

import base64
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "feste_dp"]
CONFIG = Path(__file__).parents[2] / "configs/tiny.yaml"
DESKTOP, PHONE, NARROW = (1280, 900), (390, 844), (360, 740)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@dataclass
class Browser:
    """A headless Chromium with one window."""

    driver: Any

    def open(self, address: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> None:
        width, height = size
        self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._command("Emulation.setEmulatedMedia", features=[scheme])
        self.driver.get(address)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, script: str, seconds: float = 90.0) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, 0.2).until(lambda driver: driver.execute_script(script))

    def point_at(self, selector: str, share: float) -> None:
        """Move the pointer over an element, this far across it."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By

        element = self.driver.find_element(By.CSS_SELECTOR, selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        offset = round((share - 0.5) * element.size["width"])
        ActionChains(self.driver).move_to_element_with_offset(element, offset, 0).perform()

    def complaints(self) -> list[str]:
        """What the console says since the last call, and what the page asked the network for."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def picture(self, path: Path, height: int | None = None) -> None:
        """The whole page, or its first `height` lines, as a PNG."""
        width = self.run("return innerWidth")
        whole = self.run("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": min(whole, height or whole), "scale": 1}
        shot = self._command("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _command(self, name: str, **arguments: object) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    selenium = pytest.importorskip("selenium.webdriver")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs chromium and chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(chromedriver))
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two finished runs of tiny."""
    directory = tmp_path_factory.mktemp("runs")
    for name, changes in (("first", []), ("second", ["--set", "optim.lr=5e-3"])):
        subprocess.run(
            [*COMMAND, "launch", "--config", str(CONFIG), "--out", str(directory / name), "--quiet",
             "--set", "train.steps=300", "--set", "sample.every=50", *changes],
            check=True, capture_output=True,
        )  # fmt: skip
    return directory


@pytest.fixture(scope="session")
def write_report(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Writes a report of runs or studies; returns its address as a file."""
    folder = tmp_path_factory.mktemp("reports")

    def write(*paths: Path) -> str:
        file = folder / f"{'-'.join(path.name for path in paths)}.html"
        subprocess.run(
            [*COMMAND, "report", *map(str, paths), "--out", str(file)], check=True, capture_output=True
        )
        return file.as_uri()

    return write


@contextlib.contextmanager
def serve(directory: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A dashboard over a directory, and its address."""
    process = subprocess.Popen(
        [*COMMAND, "dashboard", str(directory), "--port", "0"], stdout=subprocess.PIPE, text=True,
        env=dict(os.environ) | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"http://\S+/", process.stdout.readline())
    assert found
    yield process, found[0]
    process.terminate()
    process.communicate()


@pytest.fixture(scope="session")
def dashboard(runs: Path) -> Iterator[str]:
    """The address of a dashboard over the runs."""
    with serve(runs) as (_, address):
        yield address
