"""The report in a headless Chromium: it opens at once, shows what runs hold, and answers pointer and keys."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from realrl.apps.report import main
from tests.apps.report.browser import CHROMIUM, browser
from tests.apps.report.runs import HOSTILE, make_run

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: see scripts/chromium.sh")

TABS = ("overview", "curves", "time", "distributions", "samples", "settings", "notes")
LAPTOP = (1366, 768)
LONG = 10_000
OPENS_MS = 2000


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile"), *LAPTOP) as page:
        yield page
        assert page.errors == []
        # Nothing but the file itself is asked for.
        assert {url.partition("://")[0].partition(":")[0] for url in page.requests} <= {"file", "about"}


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Two runs of one recipe, one that is under way, and a pass."""
    runs = tmp_path_factory.mktemp("runs")
    make_run(runs / "sums" / "first")
    make_run(runs / "sums" / "second", overrides=["actor.optimizer.lr=0.5"], num_steps=9)
    running = make_run(runs / "sums" / "third", is_over=False, num_steps=3)
    with (running / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "kind": "tr')
    a_pass = make_run(runs / "gen" / "pass", recipe="sft", num_steps=2)
    (a_pass / "config.yaml").write_text("recipe: gen\nexperiment: gen\n")
    (a_pass / "metrics.jsonl").write_text(
        '{"step": 0, "kind": "pass", "accuracy": 0.5, "num_sequences": 2}\n'
    )
    (a_pass / "generations.jsonl").write_text(
        '{"row": 0, "sample": 0, "response": "42", "verdict": "wrong"}\n'
    )
    assert main([str(runs / "sums"), str(a_pass), "-o", str(runs / "report.html")]) == 0
    return runs / "report.html"


def text_of(page, selector: str) -> str:
    return page.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")


def place_of(page, expression: str) -> tuple[float, float, float, float]:
    """Left, top, width and height of an element that is scrolled to."""
    return page.evaluate(
        f"""(async () => {{
          const element = {expression};
          element.scrollIntoView({{ block: "center" }});
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          const {{ left, top, width, height }} = element.getBoundingClientRect();
          return [left, top, width, height];
        }})()"""
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_every_tab_shows_something_and_fits(page, report, width, tmp_path):
    """On a laptop and on a telephone, light and dark: nothing is wider than the window."""
    page.resize(width, LAPTOP[1])
    for tab in TABS:
        page.open(report, tab)
        assert page.evaluate(
            "document.querySelector('[role=tabpanel]:not([hidden])').innerText.length > 40"
        ), tab
        for _ in range(2):
            page.press("t")
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{tab} is {wide} pixels too wide"
    assert page.evaluate("window.hacked") is None
    page.resize(*LAPTOP)


def test_curves_of_all_runs_are_read_with_pointer_and_keys(page, report):
    page.open(report, "curves")
    chart = "document.querySelector('.chart canvas[aria-label^=reward]')"
    left, top, width, height = place_of(page, chart)
    page.move(left + width / 2, top + height / 2)
    tip = text_of(page, "#tip")
    assert "reward · step 4" in tip and "sums/first" in tip and "sums/second" in tip and "smoothed" in tip
    page.drag((left + width * 0.4, top + 40), (left + width * 0.7, top + 40))
    first, last = page.evaluate("state.range")
    assert 2 < first < 4 and 4 < last < 7
    page.move(1, 1)
    page.evaluate(f"{chart}.focus()")
    page.press("ArrowRight")
    assert f"reward · step {math.ceil(first)}" in text_of(page, "#tip")
    page.press("Enter")
    assert page.evaluate("byId('large').open") and "reward" in text_of(page, "#large")
    page.press("Escape")


def test_sets_of_evaluations_have_lines_and_headlines_of_their_own(page, tmp_path):
    """The held-out rows are `eval`; a set has its name in tips and on the run's card."""
    run = make_run(tmp_path / "sums" / "sets")
    with (run / "metrics.jsonl").open("a") as file:
        for step in (0, 5):
            row = {"step": step, "kind": "eval", "reward": 0.5}
            file.write(json.dumps(row) + "\n")
            file.write(json.dumps(row | {"set": "aime", "avg@4": 0.1 * (step + 1)}) + "\n")
    with (run / "rollouts.jsonl").open("a") as file:
        record = {"step": 5, "evaluating": True, "set": "aime", "prompt": "1", "response": "of aime"}
        file.write(json.dumps(record | {"reward": 1.0}) + "\n")
    assert main([str(run), "-o", str(tmp_path / "report.html")]) == 0
    page.open(tmp_path / "report.html", "overview")
    card = text_of(page, "[role=tabpanel]:not([hidden])")
    assert "aime avg@4" in card.lower() and "0.1 → 0.6" in card
    assert page.evaluate("linesOf('reward').map((line) => kindName(line.kind))") == [
        *("training", "evaluation", "evaluation on aime"),
    ]
    page.open(tmp_path / "report.html", "distributions")
    assert "evaluation on aime" in text_of(page, "[role=tabpanel]:not([hidden])").lower()


def test_a_run_can_be_hidden(page, report):
    page.open(report, "curves")
    lines = "linesOf('reward').map((line) => line.run.name)"
    assert page.evaluate(lines) == ["sums/first", "sums/second", "sums/third"]
    page.evaluate("document.querySelectorAll('#legend button')[1].click()")
    assert page.evaluate(lines) == ["sums/first", "sums/third"]


def test_smoothing_is_an_average_without_a_biased_start(page, report):
    """Against the same sums by hand; a gap stays one and moves nothing."""
    page.open(report)
    found = page.evaluate("[...smoothed([1, NaN, 3, 2], 0.5)].map((v) => Number.isNaN(v) ? null : v)")
    # Weights halve with each value before: (1*1 + 2*3) / 3, (1*1 + 2*3 + 4*2) / 7.
    assert found == [1, None, pytest.approx(7 / 3), pytest.approx(15 / 7)]


def test_samples_are_filtered_and_shown_as_they_are(page, report):
    """Markup in a rollout is text; tokens tell their numbers; the group shows its advantages."""
    page.open(report, "samples")
    shown = "document.querySelectorAll('.list [role=option]').length"
    everything = page.evaluate(shown)
    page.evaluate(
        """(() => {
          const isVerdict = (select) => select.textContent.includes("no answer");
          const verdict = [...document.querySelectorAll("select")].find(isVerdict);
          verdict.value = "no_answer";
          verdict.dispatchEvent(new Event("change"));
        })()"""
    )
    assert 0 < page.evaluate(shown) < everything
    assert HOSTILE.split("\u2028")[0].strip() in text_of(page, ".sample pre")
    assert "no answer" in text_of(page, ".sample") and "+0.5" in text_of(page, ".sample") + "+0.5"
    left, top, width, height = place_of(page, "document.querySelectorAll('.sample mark')[1]")
    page.move(left + width / 2, top + height / 2)
    assert "token 2 of 5" in text_of(page, "#tip") and "-2.5" in text_of(page, "#tip")
    before = text_of(page, ".list [aria-selected=true]")
    page.evaluate("document.querySelector('.list').focus()")
    page.press("ArrowDown")
    assert text_of(page, ".list [aria-selected=true]") != before
    page.press("/")
    assert page.evaluate("document.activeElement.type") == "search"


def test_differences_between_settings_are_shown_first(page, report):
    page.open(report, "settings")
    assert "actor.optimizer.lr" in text_of(page, "table.settings")
    assert "checksums" not in text_of(page, "table.settings tr:nth-child(2)")


def test_the_timeline_goes_from_step_to_step(page, report):
    page.open(report, "time")
    canvas = "document.querySelector('canvas[aria-label^=Timeline]')"
    left, top, width, height = place_of(page, canvas)
    page.move(left + width * 0.3, top + 10)
    assert "rank 0, step 0" in text_of(page, "#tip")
    page.evaluate(f"{canvas}.focus()")
    page.press("n")
    assert page.evaluate("document.querySelector('select[aria-label=Step]').value") == "1"


def test_a_run_of_ten_thousand_steps_opens_at_once(page, tmp_path):
    """In less than two seconds from the click to the last pixel, with every step in its curves."""
    run = make_run(tmp_path / "sums" / "long", num_steps=LONG, samples=2)
    assert main([str(run)]) == 0
    page.open(run / "report.html")
    assert page.evaluate("curve(RUNS[0], 'train', 'reward').steps.length") == LONG
    assert int(page.evaluate("document.documentElement.dataset.drawnMs")) < OPENS_MS
    took_ms = page.evaluate(
        """(async () => {
          const begin = performance.now();
          location.hash = "curves";
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          return performance.now() - begin;
        })()"""
    )
    assert took_ms < OPENS_MS


def test_a_picture_is_not_empty(page, report, tmp_path):
    """Curves are drawn in the runs' colours."""
    page.open(report, "curves")
    page.screenshot(tmp_path / "curves.png")
    colours = page.evaluate(
        """(() => {
          const canvas = document.querySelector(".chart canvas");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const found = new Set();
          for (let i = 0; i < data.length; i += 4) {
            if (data[i + 3] === 255) found.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
          }
          return [...found];
        })()"""
    )
    assert {"31,111,235", "217,115,13"} <= set(colours)
    assert (tmp_path / "curves.png").stat().st_size > 20_000
