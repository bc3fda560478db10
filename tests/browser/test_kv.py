"""The KV-cache view in a real browser: a click answers, rows choose the picture, mistakes are said, files are taken."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from memscope_dashboard import kv_board
from playwright.sync_api import Page, expect

from memscope.serving.managers import MANAGERS
from memscope.serving.simulate import simulate
from memscope.words.kv_cache import cache_finding
from tests.browser.conftest import Site, Watched, click_and_be_answered

pytestmark = pytest.mark.browser

LONG_MS = 240_000
"""The first simulation compiles its kernels."""
N_DEFAULT = len(MANAGERS)
PLAIN = b"arrival_s,prompt_tokens,output_tokens\n0,50,5\n0.5,70,9\n1,20,30\n"


def simulation(site: Site, watched: Watched) -> Page:
    """The part of the view that simulates; it stays open while the session lasts."""
    page = watched.open(site.url("kv", "train"))
    page.locator("#kv-part").get_by_text("Simulate serving").click()
    expect(page.locator("#kv-run")).to_be_visible()
    return page


def set_number(page: Page, name: str, value: str) -> None:
    page.fill(f"#kv-{name}", value)
    page.keyboard.press("Tab")


def resting_box(page: Page, selector: str) -> Any:
    """Where an element is once what stands above it is laid out: several texts there come in answers of their own."""
    last, n_equal = None, 0
    while n_equal < 5:
        page.wait_for_timeout(50)
        now = page.locator(selector).bounding_box()
        last, n_equal = now, n_equal + 1 if now == last else 0
    return last


def run(page: Page) -> None:
    page.click("#kv-run")
    expect(page.locator("#kv-cancel")).to_be_hidden(timeout=LONG_MS)
    expect(page.locator("#kv-run")).to_be_disabled(timeout=LONG_MS)


def cell(page: Page, text: str) -> Any:
    page.locator("#kv-grid-box").scroll_into_view_if_needed()
    return page.locator("#kv-grid .ag-cell", has_text=re.compile(rf"^{re.escape(text)}$"))


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)], ids=lambda size: str(size[0]))
def test_one_click_answers_how_many_requests_are_served(site: Site, watched: Watched, size: tuple[int, int]) -> None:
    watched.page.set_viewport_size({"width": size[0], "height": size[1]})
    page = simulation(site, watched)
    expect(page.locator("#kv-title")).to_contain_text("leaves")
    expect(page.locator("#kv-budget")).to_contain_text("KV cache")
    expect(page.locator("#kv-results")).to_be_hidden()
    set_number(page, "n", str(size[0] % 1000))
    expect(page.locator("#kv-note")).to_contain_text(f"{size[0] % 1000} requests")
    controls = resting_box(page, ".kv-controls")
    run(page)
    expect(page.locator("#kv-title")).to_contain_text("at once")
    expect(page.locator("#kv-shares .barlayer .trace")).to_have_count(4)
    expect(page.locator("#kv-grid .ag-pinned-left-cols-container .ag-row")).to_have_count(N_DEFAULT)
    expect(page.locator("#kv-time-title")).to_contain_text("memory over time")
    expect(page.locator("#kv-time .scatterlayer .trace").first).to_be_attached()
    expect(page.locator("#kv-notes")).to_contain_text("estimates")
    assert resting_box(page, ".kv-controls") == controls, "the controls moved"


def test_a_known_answer_is_there_at_once_and_a_row_chooses_whose_memory_is_drawn(site: Site, watched: Watched) -> None:
    page = simulation(site, watched)
    set_number(page, "n", "63")
    run(page)
    page.reload()
    expect(page.locator("#kv-title")).to_contain_text("at once")
    cell(page, "max-length").first.click()
    expect(page.locator("#kv-time-title")).to_have_text("max-length: memory over time")
    expect(page.locator("#kv-time .main-svg").first).to_be_visible()
    drawn, panel = (page.locator(name).bounding_box() for name in ("#kv-time .main-svg >> nth=0", "#kv-time-picture"))
    assert drawn is not None
    assert panel is not None
    assert drawn["y"] + drawn["height"] <= panel["y"] + panel["height"] + 1, "the picture leaves its panel"


def test_a_run_is_cancelled(site: Site, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Semaphore(0)

    def gated(job: Any, on_done: Any) -> Any:
        assert gate.acquire(timeout=LONG_MS / 1000)
        return simulate(job, on_done)

    monkeypatch.setattr(kv_board, "simulate", gated)
    page = simulation(site, watched)
    set_number(page, "n", "61")
    page.click("#kv-run")
    gate.release(2)
    expect(page.locator("#kv-title")).to_contain_text(f"After 2 of {N_DEFAULT} replays", timeout=LONG_MS)
    click_and_be_answered(page, "kv-cancel")
    gate.release(1)
    expect(page.locator("#kv-progress")).to_have_text(re.compile(rf"Cancelled: \d of {N_DEFAULT} managers done\."))
    expect(page.locator("#kv-run")).to_have_text("Run the rest")
    gate.release(100)
    run(page)
    expect(page.locator("#kv-run")).to_have_text("Run")


def test_a_mistake_is_one_line_at_the_run_button(site: Site, watched: Watched) -> None:
    page = simulation(site, watched)
    set_number(page, "capacity", "20 parsecs")
    expect(page.locator("#kv-refusal")).to_contain_text("GPU memory: '20 parsecs' is not a size")
    expect(page.locator("#kv-run")).to_be_disabled()
    expect(page.locator("#kv-capacity")).to_have_attribute("aria-invalid", "true")
    set_number(page, "capacity", "")
    expect(page.locator("#kv-refusal")).to_be_empty()
    expect(page.locator("#kv-run")).to_be_enabled()


def test_controls_are_kept_while_another_view_is_looked_at(site: Site, watched: Watched) -> None:
    page = simulation(site, watched)
    set_number(page, "n", "62")
    expect(page.locator("#kv-note")).to_contain_text("62 requests")
    page.get_by_role("link", name="Overview").click()
    expect(page.locator("#overview-title")).not_to_be_empty()
    page.get_by_role("link", name="KV cache").click()
    expect(page.locator("#kv-note")).to_contain_text("62 requests")


def test_a_request_trace_that_is_sent_is_served(site: Site, watched: Watched) -> None:
    page = simulation(site, watched)
    page.click("#kv-lengths")
    page.get_by_role("option", name="from a file…").click()
    place = "#kv-requests-upload input[type=file]"
    bad = PLAIN + b"2,x,5\n"
    page.set_input_files(place, files=[{"name": "bad.csv", "mimeType": "text/csv", "buffer": bad}])
    expect(page.locator("#kv-sent-problem")).to_contain_text("bad.csv: row 5: 'x' is not a number of tokens")
    page.set_input_files(place, files=[{"name": "three.csv", "mimeType": "text/csv", "buffer": PLAIN}])
    expect(page.locator("#kv-sent-problem")).to_be_empty()
    expect(page.locator("#kv-note")).to_contain_text("3 requests from three.csv (plain CSV)")
    run(page)
    expect(page.locator("#kv-title")).to_contain_text("at once")


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)], ids=lambda size: str(size[0]))
def test_no_control_is_clipped(site: Site, watched: Watched, size: tuple[int, int]) -> None:
    watched.page.set_viewport_size({"width": size[0], "height": size[1]})
    page = simulation(site, watched)
    page.click(".kv-more summary")
    clipped = page.evaluate(
        """() => [...document.querySelectorAll('.kv-controls label, .kv-controls .kv-label, .kv-controls button')]
             .filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1)
             .map((one) => one.innerText)"""
    )
    assert clipped == []
    outer = page.locator(".kv-controls").bounding_box()
    assert outer is not None
    for box in [one.bounding_box() for one in page.locator(".kv-controls .mantine-Input-input").all()]:
        assert box is None or box["x"] + box["width"] <= outer["x"] + outer["width"]
    assert page.evaluate("document.querySelector('.main').scrollWidth <= document.querySelector('.main').clientWidth")


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)], ids=lambda size: str(size[0]))
def test_the_cache_of_the_trace_is_shown_at_the_moment_that_is_chosen(
    site: Site, watched: Watched, size: tuple[int, int]
) -> None:
    watched.page.set_viewport_size({"width": size[0], "height": size[1]})
    analysis = site.analysis("serving")
    lens = analysis.opinions().kv_lens
    page = watched.open(site.url("kv", "serving"))
    expect(page.locator("#kvlens-title")).to_have_text(cache_finding(lens, analysis.peak().event))
    expect(page.locator("#kvlens-graph .scatterlayer .trace").first).to_be_attached()
    expect(page.locator("#kvlens-growth-title")).to_contain_text("It grows by copying", timeout=LONG_MS)
    expect(page.locator("#kvlens-growth-title")).not_to_contain_text("replaying", timeout=LONG_MS)
    expect(page.locator("#kvlens-growth table tbody tr")).to_have_count(3)
    page.click("#go-end")
    expect(page.locator("#kvlens-title")).to_have_text(cache_finding(lens, analysis.device().lifetimes.last_event))
    page.locator("#kvlens-group").get_by_text("caches").click()
    expect(page.locator("#kvlens-layers-title")).to_have_text("1 cache at this moment")
    plot, panel = (
        page.locator("#kvlens-layers .main-svg").first.bounding_box(),
        page.locator("#kvlens-layers").bounding_box(),
    )
    assert plot is not None
    assert panel is not None
    assert plot["width"] <= panel["width"] + 1


def test_a_picture_that_was_hidden_fits_its_panel_when_it_is_shown(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("kv", "serving"))
    expect(page.locator("#kvlens-graph .scatterlayer .trace").first).to_be_attached()
    page.locator("#kv-part").get_by_text("Simulate serving").click()
    page.set_viewport_size({"width": 1100, "height": 800})
    page.locator("#kv-part").get_by_text("On this trace").click()
    expect(page.locator("#kvlens-graph")).to_be_visible()
    page.wait_for_function(
        """() => {
            const box = (selector) => document.querySelector(selector).getBoundingClientRect();
            return Math.abs(box('#kvlens-graph .main-svg').width - box('#kvlens-graph').width) < 2;
        }"""
    )
