"""The live page while a real run trains, ends or is lost."""

import signal
import subprocess
from pathlib import Path

from tests.browser.conftest import COMMAND, CONFIG, Browser, serve

STEP = "return Number(document.querySelector('#runs dd').textContent.split(' ')[0].replaceAll(',', ''))"
STATE = "return document.querySelector('.chip').textContent"


def train(path: Path, steps: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "launch", "--config", str(CONFIG), "--workers", "1", "--out", str(path), "--quiet",
         "--set", f"train.steps={steps}", "--set", "sample.every=200"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_page_advances_while_a_run_trains_and_survives_its_end(
    browser: Browser, dashboard: str, runs: Path
) -> None:
    browser.open(dashboard)
    process = train(runs / "live", 100_000)
    # it appears by itself on the page of all runs
    browser.wait_for("return !!document.querySelector('a[href=\"/runs/live\"]')")
    browser.open(f"{dashboard}runs/live")
    browser.wait_for("return document.querySelectorAll('#chart-loss svg path').length > 0")
    assert browser.run(STATE) == "training"
    first = browser.run(STEP)
    drawn = browser.run("return document.querySelector('#chart-loss path').getAttribute('d')")
    # what the reader has done to the page outlasts its updates
    browser.run("document.querySelector('[data-key=\"table-loss\"]').open = true")
    browser.run("document.querySelectorAll('#chart-loss .key')[0].click()")
    browser.wait_for(f"return Number(document.querySelector('#runs dd').textContent.split(' ')[0]"
                     f".replaceAll(',', '')) > {first}")  # fmt: skip
    second = browser.run(STEP)
    assert second > first
    browser.wait_for("return document.querySelector('#chart-loss path').getAttribute('d').length !== "
                     f"{len(drawn)}")  # fmt: skip
    assert browser.run("return document.querySelector('[data-key=\"table-loss\"]').open")
    assert (
        browser.run("return document.querySelector('#chart-loss .key').getAttribute('aria-pressed')")
        == "false"
    )
    process.send_signal(signal.SIGTERM)
    process.wait()
    browser.wait_for("return document.querySelector('.chip').textContent === 'stopped'")
    assert "stopped after step" in browser.run("return document.querySelector('.state').textContent")
    assert browser.complaints() == []


def test_a_run_that_is_killed_is_shown_as_lost(browser: Browser, dashboard: str, runs: Path) -> None:
    process = train(runs / "killed", 100_000)
    browser.open(dashboard)
    browser.wait_for("return !!document.querySelector('a[href=\"/runs/killed\"]')")
    browser.open(f"{dashboard}runs/killed")
    browser.wait_for(f"return (() => {{ {STEP} }})() > 0")
    process.kill()
    process.wait()
    browser.wait_for("return document.querySelector('.chip').textContent === 'interrupted'")
    assert "feste-dp resume" in browser.run("return document.querySelector('.state').textContent")
    assert browser.complaints() == []


def test_runs_are_chosen_and_compared(browser: Browser, dashboard: str) -> None:
    browser.open(dashboard)
    for name in ("first", "second"):
        browser.run('document.querySelector(`input[value="${arguments[0]}"]`).click()', name)
    browser.run("document.querySelector('form button').click()")
    browser.wait_for("return location.pathname === '/compare'")
    assert browser.run("return document.querySelector('h1').textContent") == "2 runs side by side"
    assert browser.run("return document.querySelector('#config tbody code').textContent") == "optim.lr"
    browser.run("document.querySelector('.brand').click()")
    browser.wait_for("return location.pathname === '/'")
    assert browser.complaints() == []


def test_a_dashboard_that_is_gone_is_said_so_and_the_page_stays(browser: Browser, runs: Path) -> None:
    with serve(runs) as (process, address):
        browser.open(f"{address}runs/first")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    browser.wait_for("return document.getElementById('live').textContent === 'no answer from the dashboard'")
    assert browser.run("return document.querySelectorAll('figure.chart').length") == 7
    browser.complaints()  # the refused requests
