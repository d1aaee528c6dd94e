"""The report as a person sees it: whole curves, right read-outs, any width, light and dark."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from feste_dp.run.metrics import read_metrics
from tests.browser.conftest import DESKTOP, NARROW, PHONE, Browser
from tests.report.conftest import HOSTILE, row, study, write_run

WriteReport = Callable[..., str]

POINTS = """
const counted = {};
for (const path of document.querySelectorAll(`#chart-${arguments[0]} svg path[data-points]`)) {
  const series = path.parentNode.dataset.series;
  const key = document.querySelectorAll(`#chart-${arguments[0]} .key`)[series].textContent;
  counted[key] = (path.getAttribute('d').match(/[ML]/g) || []).length;
}
return counted;
"""
READ_OUT = "return document.querySelector('.readout')?.innerText"


def test_the_curves_have_as_many_points_as_the_run_has_figures(
    browser: Browser, write_report: WriteReport, runs: Path
) -> None:
    browser.open(write_report(runs / "first"))
    rows = read_metrics(runs / "first/metrics.csv")
    validated = sum(each.val_loss is not None for each in rows)
    assert (len(rows), validated) == (300, 6)
    assert browser.run(POINTS, "loss") == {"train": 300, "train, median of 7": 300, "validation": 6}
    assert browser.run(POINTS, "rate") == {"learning rate": 300}
    assert browser.run(POINTS, "speed") == {"each step": 300, "median of 7": 300}
    assert browser.complaints() == []


def test_every_curve_is_drawn_inside_its_chart(
    browser: Browser, write_report: WriteReport, runs: Path
) -> None:
    browser.open(write_report(runs / "first"))
    outside = browser.run("""
      return [...document.querySelectorAll('.area')].flatMap((area) => {
        const box = area.getBoundingClientRect();
        return [...area.querySelectorAll('svg path')].filter((path) => {
          const drawn = path.getBoundingClientRect();
          return drawn.width < 1 || drawn.left < box.left - 2 || drawn.right > box.right + 2
            || drawn.top < box.top - 2 || drawn.bottom > box.bottom + 2;
        }).map((path) => path.getAttribute('class'));
      });""")
    assert outside == []


def test_the_pointer_reads_out_the_figures_of_the_step_below_it(
    browser: Browser, write_report: WriteReport, runs: Path
) -> None:
    browser.open(write_report(runs / "first"))
    rows = read_metrics(runs / "first/metrics.csv")
    browser.point_at("#chart-loss .area", 0.998)
    shown = browser.run(READ_OUT).split()
    step = int(shown[1])
    assert shown[0] == "step" and step >= 298
    # of validation the nearest figure: that of step 300
    assert f"{rows[step - 1].train_loss:.5g}" in shown and f"{rows[-1].val_loss:.5g}" in shown
    browser.point_at("#chart-rate .area", 0.5)
    step = int(browser.run(READ_OUT).split()[1])
    assert 145 <= step <= 155
    assert f"{rows[step - 1].learning_rate:.5g}" in browser.run(READ_OUT)
    assert browser.run("return document.querySelectorAll('.readout').length") == 1


def test_arrow_keys_read_out_too(browser: Browser, write_report: WriteReport, runs: Path) -> None:
    browser.open(write_report(runs / "first"))
    press = (
        "const area = document.querySelector('#chart-norm .area'); area.focus();"
        "area.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));"
    )
    for step in ("1", "2", "3"):
        browser.run(press)
        assert browser.run(READ_OUT).split()[1] == step


def test_the_legend_hides_a_curve_and_shows_it_again(
    browser: Browser, write_report: WriteReport, runs: Path
) -> None:
    browser.open(write_report(runs / "first"))
    look = "return getComputedStyle(document.querySelector('#chart-loss g[data-series=\"2\"]')).display"
    click = "document.querySelectorAll('#chart-loss .key')[2].click()"
    seen = []
    for _ in range(3):
        seen.append(browser.run(look))
        browser.run(click)
    assert seen == ["inline", "none", "inline"]


def test_samples_are_leafed_through_step_by_step(
    browser: Browser, write_report: WriteReport, runs: Path
) -> None:
    browser.open(write_report(runs / "first"))
    visible = (
        "return [...document.querySelectorAll('.sample')].filter((s) => !s.hidden).map((s) => s.dataset.step)"
    )
    assert browser.run(visible) == ["300"]
    browser.run(
        "const s = document.querySelector('.stepper input'); s.value = 0; s.dispatchEvent(new Event('input'))"
    )
    assert browser.run(visible) == ["50"]
    assert browser.run("return document.querySelector('.stepper').innerText") == "sample 1 of 6"


@pytest.mark.parametrize("size", [DESKTOP, PHONE, NARROW])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_the_screen_and_is_readable_in_both_colour_schemes(
    browser: Browser, write_report: WriteReport, runs: Path, size: tuple[int, int], dark: bool
) -> None:
    browser.open(write_report(runs / "first", runs / "second"), size, dark=dark)
    assert browser.run("return document.documentElement.scrollWidth") == size[0]
    small = browser.run("""
      return [...document.querySelectorAll('.ticks-x span, .ticks-y span, .x-label, .key, td, dd')]
        .filter((e) => e.offsetParent && parseFloat(getComputedStyle(e).fontSize) < 12).length""")
    assert small == 0
    weak = browser.run("""
      const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((c) => (c /= 255) <= .04045 ? c / 12.92
          : ((c + .055) / 1.055) ** 2.4);
        return .2126 * r + .7152 * g + .0722 * b;
      };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      const texts = [...document.querySelectorAll('h1, h2, dt, dd, td, summary, .lead, .key, .x-label')];
      return texts.filter((e) => {
        const ink = light(getComputedStyle(e).color);
        return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05) < 4.5;
      }).map((e) => e.className || e.tagName);""")
    assert weak == []
    assert (
        browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(18, 20, 24)"
    ) is dark
    assert browser.complaints() == []


def test_labels_of_an_axis_do_not_overlap(browser: Browser, write_report: WriteReport, runs: Path) -> None:
    for size in (DESKTOP, NARROW):
        browser.open(write_report(runs / "first"), size)
        overlapping = browser.run("""
          return [...document.querySelectorAll('.ticks-x, .ticks-y')].filter((ticks) => {
            const boxes = [...ticks.children].map((e) => e.getBoundingClientRect());
            return boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right && b.left < a.right
              && a.top < b.bottom && b.top < a.bottom));
          }).length""")
        assert overlapping == 0


def test_the_theme_can_be_chosen(browser: Browser, write_report: WriteReport, runs: Path) -> None:
    browser.open(write_report(runs / "first"))
    seen = []
    for _ in range(4):
        seen.append(browser.run("return [document.getElementById('theme').textContent,"
                                " getComputedStyle(document.body).backgroundColor]"))  # fmt: skip
        browser.run("document.getElementById('theme').click()")
    browser.run("localStorage.clear()")
    light, dark = "rgb(246, 246, 243)", "rgb(18, 20, 24)"
    assert seen == [["auto", light], ["light", light], ["dark", dark], ["auto", light]]


def test_nothing_is_asked_of_the_network(browser: Browser, write_report: WriteReport, runs: Path) -> None:
    browser.open(write_report(runs / "first"))
    assert browser.run("return performance.getEntriesByType('resource').map((e) => e.name)") == []


def test_text_of_a_model_runs_no_script(browser: Browser, write_report: WriteReport, tmp_path: Path) -> None:
    path = write_run(tmp_path / "hostile", [row(1, sample=HOSTILE), row(2)])
    browser.open(write_report(path))
    assert "</pre><script>alert(1)</script>" in browser.run(
        "return document.querySelector('pre').textContent"
    )
    assert browser.run("return document.scripts.length") == 1
    assert browser.complaints() == []


def test_a_study_is_drawn(browser: Browser, write_report: WriteReport, tmp_path: Path) -> None:
    (tmp_path / "scaling.json").write_text(json.dumps(study()))
    browser.open(write_report(tmp_path))
    assert browser.run(POINTS, "scaling-speed") == {
        "measured": 3,
        "perfect": 4,
        "Amdahl": 4,
        "one process": 2,
    }
    drawn = browser.run(
        "return document.querySelector('#chart-scaling-speed path.dots').getBoundingClientRect().width"
    )
    assert drawn > 50
    browser.point_at("#chart-scaling-phases .area", 0.5)
    assert browser.run(READ_OUT).split()[:2] == ["workers", "2"]
    assert browser.complaints() == []


def test_a_long_run_opens_with_its_extremes(
    browser: Browser, write_report: WriteReport, tmp_path: Path
) -> None:
    rows = [
        row(step, train_loss=9.75 if step == 33_333 else 3.0 + step % 13 / 99, sample="")
        for step in range(1, 50_001)
    ]
    path = write_run(tmp_path / "long", rows, train={"steps": 50_000})
    browser.open(write_report(path))
    counted = browser.run(POINTS, "loss")
    assert 200 < counted["train"] <= 602
    browser.run("document.querySelector('#chart-loss').showAt(33332 / 49999)")
    assert browser.run(READ_OUT).split()[:2] == ["step", "33,333"] and "9.75" in browser.run(READ_OUT)


def test_curves_lie_over_steps_tokens_or_time_without_a_server(
    browser: Browser, write_report: Callable[..., str], runs: Path
) -> None:
    browser.open(write_report(runs / "first", runs / "second"), PHONE)
    shown = "return [...document.querySelectorAll('#chart-loss path')].map(path => path.getAttribute('d'))"
    ends = "return [...document.querySelectorAll('#chart-loss .ticks-x span')].map(span => span.textContent)"
    label = "return document.querySelector('#chart-loss .x-label').textContent"
    steps, ticks = browser.run(shown), browser.run(ends)
    browser.run("document.querySelector('[data-axis=tokens]').click()")
    assert browser.run(label) == "tokens"
    # both runs have as many tokens a step: the curves lie as they did, the axis says tokens
    for before, after in zip(steps, browser.run(shown), strict=True):
        numbers = [[float(number) for number in re.findall(r"-?[\d.]+", path)] for path in (before, after)]
        assert max(abs(a - b) for a, b in zip(*numbers, strict=True)) < 0.2
    assert browser.run(ends)[0].endswith("k") and browser.run(ends) != ticks
    browser.run("document.querySelector('[data-axis=time]').click()")
    assert browser.run(label) == "time of training"
    assert all(re.fullmatch(r"[\d.]+s|\d+m\d\ds", tick) for tick in browser.run(ends))
    assert browser.run(shown) != steps
    browser.point_at("#chart-loss .area", 0.5)
    assert re.match(r"time [\d.]+s", browser.run("return document.querySelector('.readout b').textContent"))
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    browser.run("document.querySelector('[data-axis=steps]').click()")
    assert (browser.run(shown), browser.run(ends), browser.run(label)) == (steps, ticks, "step")
    assert browser.complaints() == []
