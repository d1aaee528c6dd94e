"""The live page while a real run trains, ends or is lost."""

import signal
import subprocess
from pathlib import Path

from tests.browser.conftest import COMMAND, CONFIG, DESKTOP, PHONE, Browser, serve
from tests.report.conftest import history, row, write_run

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
    browser.wait_for("return !!document.querySelector('.card a[href=\"/runs/live\"]')")
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
    browser.wait_for("return !!document.querySelector('.card a[href=\"/runs/killed\"]')")
    browser.open(f"{dashboard}runs/killed")
    browser.wait_for(f"return (() => {{ {STEP} }})() > 0")
    process.kill()
    process.wait()
    browser.wait_for("return document.querySelector('.chip').textContent === 'interrupted'")
    said = browser.run("return document.querySelector('.state').textContent")
    assert said.endswith(f" resume {runs / 'killed'}")
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


def test_the_table_of_runs_is_sorted_and_filtered_and_stays_so(browser: Browser, tmp_path: Path) -> None:
    for number, loss in enumerate((3.0, 1.0, 2.0)):
        rows = [row(step, val_loss=loss, sample="") for step in range(1, 41)]
        write_run(tmp_path / f"run-{number}", rows, history(40, "finish" if number else "stop"))
    shown = (
        "return [...document.querySelectorAll('table.runs tbody tr')].filter(row => !row.hidden)"
        ".map(row => row.querySelector('a').textContent)"
    )
    press = (
        "[...document.querySelectorAll('table.runs th button')]"
        ".find(button => button.textContent === 'best loss').click()"
    )
    with serve(tmp_path) as (_, address):
        for size in (DESKTOP, PHONE):
            browser.open(address, size)
            assert len(browser.run(shown)) == 3
            browser.run(press)
            assert browser.run(shown) == ["run-0", "run-2", "run-1"]
            browser.run(press)
            assert browser.run(shown) == ["run-1", "run-2", "run-0"]
            browser.run(
                "const state = document.querySelector('.filter select'); state.value = 'finished';"
                "state.dispatchEvent(new Event('change'))"
            )
            assert browser.run(shown) == ["run-1", "run-2"]
            assert browser.run("return document.querySelector('.filter output').textContent") == "2 of 3 runs"
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        # a run that appears leaves order and filter as the reader chose them
        write_run(tmp_path / "run-3", [row(1, val_loss=0.5)], history(1))
        browser.wait_for("return document.querySelectorAll('table.runs tbody tr').length === 4")
        assert browser.run(shown) == ["run-3", "run-1", "run-2"]
        box = "return [...document.querySelectorAll('input[value=\"run-1\"]')].map(input => input.checked)"
        browser.run("document.querySelector('table.runs input[value=\"run-1\"]').click()")
        assert browser.run(box) == [True, True]
        assert browser.complaints() == []
        browser.open("about:blank")  # before the server is gone that it asks
