"""The dashboard in a real browser: the numbers of the library, one moment for all views, text that stays text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Page, expect

from memscope.analysis import Analysis
from memscope.reports.html import write_html_report
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count
from tests.browser.conftest import Site, Watched, plot_box, wait_for_event_between
from tests.conftest import Outcome
from tests.training_trace import HOSTILE, training_trace

pytestmark = pytest.mark.browser

Run = Callable[..., Outcome]
NAMES = (
    "Overview",
    "Canvas",
    "Timeline",
    "Address map",
    "Flame graph",
    "Allocations",
    "Fragmentation",
    "Replay",
    "KV cache",
    "Device",
)


def event_in_address(page: Page) -> int:
    return int(parse_qs(urlparse(page.url).query)["event"][0])


def test_overview_shows_what_the_command_line_prints(memscope: Run, site: Site, watched: Watched) -> None:
    report = json.loads(memscope("report", site.files["real"], "--json").out)["devices"][0]
    page = watched.open(site.url("overview", "real"))
    expect(page.locator("#overview-title")).to_contain_text(f"Peak {format_bytes(report['peak']['allocated_bytes'])}")
    table = page.locator("#overview-ledger table")
    for row in report["ledger"]["rows"]:
        if row["bytes"]:
            cell = table.locator(f'td[title="{format_count(row["bytes"])} bytes"]')
            expect(cell.first).to_have_text(format_bytes(row["bytes"]))
    expect(table.locator("tr.total")).to_contain_text(format_bytes(report["ledger"]["total_bytes"]))
    expect(page.locator("#overview-bar .main-svg").first).to_be_visible()


def test_the_scrubber_moves_every_view(site: Site, watched: Watched) -> None:
    analysis = site.analysis("real")
    page = watched.open(site.url("overview", "real"))
    expect(page.locator("#moment-words")).to_contain_text(f"event {analysis.peak().event:,}")
    strip = page.locator("#scrubber-graph").bounding_box()
    assert strip is not None
    thumb = page.get_by_role("slider")
    thumb.hover()
    page.mouse.down()
    page.mouse.move(strip["x"] + 0.5 * strip["width"], strip["y"] + 20, steps=6)
    page.mouse.up()
    middle = analysis.trace.n_events / 2
    near = max(0.01 * analysis.trace.n_events, 3)
    wait_for_event_between(page, middle - near, middle + near)
    moment = analysis.device().at(event_in_address(page))
    expect(page.locator("#moment-words")).to_contain_text(f"{format_bytes(moment.allocated_bytes)} allocated")
    expect(page.locator("#overview-title")).to_contain_text(format_bytes(moment.allocated_bytes))
    page.get_by_role("link", name="Allocations").click()
    expect(page.locator("#allocations-title")).to_contain_text(f"{len(moment.rows):,} allocations hold")
    assert event_in_address(page) == moment.event


def test_keys_step_event_by_event(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("overview", "train"))
    before = event_in_address(page)
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(f"event={before + 1}\\b"))
    page.click("#go-back")
    page.wait_for_url(re.compile(f"event={before}\\b"))
    page.keyboard.press("Home")
    page.click("#go-oom")
    (oom,) = site.analysis("train").device(0).oom_events
    page.wait_for_url(re.compile(f"event={oom}\\b"))
    expect(page.locator("#moment-words")).to_contain_text("oom 512.0 MiB")


def test_timeline_zooms_and_chooses_the_moment(site: Site, watched: Watched) -> None:
    analysis = site.analysis("real")
    page = watched.open(site.url("timeline", "real"))
    expect(page.locator("#timeline-title")).to_contain_text(format_bytes(analysis.peak().allocated_bytes))
    box = plot_box(page, "timeline-graph")
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 200, steps=5)
    page.mouse.up()
    expect(page.locator("#timeline-reset")).to_be_visible()
    box = plot_box(page, "timeline-graph")
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    expect(page.locator("#timeline-graph .hoverlayer")).to_contain_text("after event")
    page.mouse.down()
    page.mouse.up()
    n = analysis.trace.n_events
    wait_for_event_between(page, 0.38 * n, 0.42 * n)
    moment = analysis.device().at(event_in_address(page))
    largest = max((row for row in moment.ledger.rows if row.is_category), key=lambda row: row.bytes)
    expect(page.locator("#timeline-chips")).to_contain_text(format_bytes(largest.bytes))
    page.click("#timeline-reset")
    expect(page.locator("#timeline-reset")).to_be_hidden()


def test_a_press_right_after_a_movement_chooses_the_moment_under_it(site: Site, watched: Watched) -> None:
    n = site.analysis("real").trace.n_events
    page = watched.open(site.url("timeline", "real"))
    box = plot_box(page, "timeline-graph")
    page.evaluate(
        """([far, near, y]) => {
            const plot = document.querySelector('#timeline-graph .nsewdrag');
            const act = (kind, x) => {
                const place = {clientX: x, clientY: y, bubbles: true, buttons: kind === 'mousedown' ? 1 : 0};
                plot.dispatchEvent(new MouseEvent(kind, place));
            };
            let isDown = true;
            const release = () => {
                if (isDown) act('mouseup', near);
                isDown = false;
            };
            act('mousemove', far);
            act('mousemove', near);  // too soon to be looked at
            act('mousedown', near);
            // Plotly would look while the button is down, find that it may not, and forget what it had found.
            plot.closest('.js-plotly-plot').once('plotly_unhover', () => setTimeout(release));
            setTimeout(release, 150);
        }""",
        [box["x"] + 0.2 * box["width"], box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"]],
    )
    wait_for_event_between(page, 0.39 * n, 0.41 * n)


def test_timeline_counts_time_where_it_was_recorded(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("timeline", "train"))
    page.get_by_text("time", exact=True).click()
    expect(page.locator("#timeline-graph .xtick text").last).to_contain_text(" s")


def test_the_map_pins_a_block_and_the_inspector_names_it(site: Site, watched: Watched) -> None:
    analysis = site.analysis("train")
    page = watched.open(site.url("map", "train"))
    overall = analysis.peak(0).fragmentation.overall
    expect(page.locator("#map-title")).to_contain_text(format_bytes(overall.reserved_bytes))
    expect(page.locator("#inspector")).to_contain_text("Nothing is pinned")
    first = page.locator("#map-graph .barlayer .trace.bars").nth(1).locator(".point path").first
    box = first.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#inspector")).to_contain_text("weights")
    expect(page.locator("#inspector")).to_contain_text("model.layers.")
    expect(page.locator("#map-graph .shapelayer path").first).to_be_attached()
    address = page.locator("#inspector code").inner_text()
    page.locator("#inspector .neighbour.link").first.click()
    expect(page.locator("#inspector code")).not_to_have_text(address)
    page.click("#unpin")
    expect(page.locator("#inspector")).to_contain_text("Nothing is pinned")


def test_a_click_that_pins_or_unpins_waits_for_no_answer(site: Site, watched: Watched) -> None:
    """Of two quick clicks the later one counts, which two answers of the server could turn round."""
    page = watched.open(site.url("allocations", "train"))
    page.locator(".ag-row").first.click()
    expect(page.locator("#inspector .neighbour.link").first).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.extend(json.loads(request.post_data or "{}").get("changedPropIds", ())))
    page.evaluate("for (const name of ['.neighbour.link', '#unpin']) document.querySelector(name).click()")
    expect(page.locator("#inspector")).to_contain_text("Nothing is pinned")
    before = event_in_address(page)
    page.click("#go-back")
    page.wait_for_url(re.compile(f"event={before - 1}\\b"))
    expect(page.locator("#inspector")).to_contain_text("Nothing is pinned")
    assert [one for one in asked if "unpin" in one or "pin-row" in one] == []


def test_allocations_are_searched_and_pinned(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("allocations", "train"))
    moment = site.analysis("train").peak(0)
    expect(page.locator(".ag-row").first).to_contain_text(
        format_bytes(int(moment.lifetimes.allocations.block_bytes[moment.rows[0]]))
    )
    page.fill("#allocations-search", "layers.3.weight")
    expect(page.locator("#allocations-note")).to_contain_text("1 of ")
    page.locator(".ag-row").first.click()
    expect(page.locator("#inspector")).to_contain_text("model.layers.3.weight")
    page.locator("#inspector").get_by_role("button", name=re.compile("event ")).first.click()
    event = int(moment.lifetimes.allocations.alloc_event[moment.rows[0]])
    assert event != NONE_ID
    expect(page.locator("#moment-words")).to_contain_text("alloc 3.0 MiB")


def test_another_trace_is_shown_with_its_own_numbers(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("overview", "train"))
    page.click("#trace-select")
    page.get_by_role("option", name="other.memscope").click()
    peak = site.analysis("other").peak(0)
    expect(page.locator("#overview-title")).to_contain_text(f"Peak {format_bytes(peak.allocated_bytes)}")
    expect(page.locator("#overview-tiles")).to_contain_text("not measured")


def test_light_and_dark_are_one_switch(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("overview", "train"))
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "light")
    page.click("#scheme-toggle")
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")
    expect(page.locator("#overview-bar .point path").first).to_have_css("fill", "rgb(74, 163, 223)")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")


def test_a_broken_trace_says_why_in_place_of_every_view(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("overview", "broken"))
    for name in NAMES:
        page.get_by_role("link", name=name).click()
        expect(page.locator(".view [role=alert]")).to_contain_text(site.files["broken"].name)
    expect(page.locator("#trust-badge")).to_contain_text("cannot be trusted")


def test_names_from_the_trace_are_shown_as_text(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("allocations", "train"))
    page.fill("#allocations-search", "grad of layer")
    expect(page.locator(".ag-row").first).to_contain_text(HOSTILE)
    page.locator(".ag-row").first.click()
    expect(page.locator("#inspector")).to_contain_text(HOSTILE)
    assert page.locator("#inspector script").count() == 0
    page.get_by_role("link", name="Address map").click()
    expect(page.locator("#map-graph .point path").first).to_be_attached()
    assert page.evaluate("document.body.innerHTML.includes('<script>alert')") is False


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)])
def test_nothing_is_wider_than_the_screen(site: Site, watched: Watched, size: tuple[int, int]) -> None:
    watched.page.set_viewport_size({"width": size[0], "height": size[1]})
    page = watched.open(site.url("overview", "real"))
    for name in NAMES:
        page.get_by_role("link", name=name).click()
        page.wait_for_selector(".view-panel:not(.waiting)")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.main'))") <= 0


@pytest.mark.parametrize("view", ["timeline", "fragmentation"])
def test_the_line_of_a_picture_follows_the_moment(site: Site, watched: Watched, view: str) -> None:
    page = watched.open(site.url(view, "train"))
    plot_box(page, f"{view}-graph")
    line = f"document.querySelector('#{view}-graph .js-plotly-plot').layout.shapes[0].x0"
    before = page.evaluate(line)
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"before => {line} < before", arg=before)


def test_the_report_opens_from_a_file(tmp_path: Path, watched: Watched) -> None:
    analysis = Analysis(training_trace())
    page = watched.open(write_html_report(analysis, tmp_path / "report.html").as_uri())
    expect(page.locator(".picture .main-svg").first).to_be_visible()
    expect(page.locator("h2").first).to_contain_text("Capacity: 512.0 MiB asked")
    expect(page.locator("h2 + p + p")).to_contain_text(format_bytes(analysis.peak(0).allocated_bytes))
    page.click("#scheme")
    expect(page.locator("html")).to_have_attribute("data-scheme", "dark")
