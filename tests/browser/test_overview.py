"""Findings, the verdict and fragmentation in a real browser: each leads to the moment that proves it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import expect

from memscope.oom.verdict import oom_headline
from memscope.trace.categories import Category
from memscope.trace.container import write_container
from memscope.units import format_bytes
from tests.browser.conftest import TRACES, Site, Watched, plot_box, served, wait_for_event_between
from tests.findings.traces import layers_that_stay

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def failed() -> Iterator[Site]:
    with served({"oom": TRACES / "tiny-out-of-memory.memscope"}) as site:
        yield site


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    trace = layers_that_stay(Category.UNKNOWN, uses=True)
    with served({"leak": write_container(trace, tmp_path_factory.mktemp("leaking") / "leak.memscope")}) as site:
        yield site


def test_the_verdict_leads_to_the_state_at_the_failed_request(failed: Site, watched: Watched) -> None:
    verdict = failed.analysis("oom").oom()
    page = watched.open(failed.url("overview", "oom"))
    expect(page.locator("#overview-oom-verdict")).to_contain_text(oom_headline(verdict)[1:])
    for change in verdict.remedies.found:
        expect(page.locator("#overview-oom-changes")).to_contain_text(change.text[1:])
    expect(page.locator("#overview-oom-choice")).to_be_hidden()
    page.locator("#overview-oom-verdict").get_by_role("link", name="address map").click()
    page.wait_for_url(re.compile(rf"/map\?.*event={verdict.event}\b"))
    expect(page.locator("#map-title")).to_contain_text("in use at")


def test_a_finding_leads_to_its_moment_and_pins_what_shows_it(leaking: Site, watched: Watched) -> None:
    finding = leaking.analysis("leak").opinions(0).findings.findings[0]
    page = watched.open(leaking.url("overview", "leak"))
    expect(page.locator("#overview-findings")).to_contain_text(finding.title)
    page.locator("#overview-findings").get_by_role("link").first.click()
    page.wait_for_url(re.compile(rf"/{finding.view}\?.*event={finding.event}\b"))
    table = leaking.analysis("leak").device(0).allocations
    size = format_bytes(int(table.block_bytes[finding.rows[0]]))
    expect(page.locator("#inspector .inspector-size")).to_have_text(size)


def test_a_pin_is_outlined_on_the_address_map(site: Site, watched: Watched) -> None:
    analysis = site.analysis("real")
    pin = analysis.peak().pins(1)[0]
    page = watched.open(site.url("fragmentation", "real"))
    row = page.locator("#fragmentation-grid .ag-row").first
    expect(row).to_contain_text(format_bytes(pin.held_bytes))
    row.click()
    size = format_bytes(int(analysis.device(0).allocations.block_bytes[pin.allocation_ids[0]]))
    expect(page.locator("#inspector .inspector-size")).to_have_text(size)
    page.locator("#fragmentation-map-link a").click()
    page.wait_for_url(re.compile(r"/map\?"))
    expect(page.locator("#map-graph .shapelayer path").first).to_be_attached()


def test_the_worst_moment_is_one_click_away(site: Site, watched: Watched) -> None:
    analysis = site.analysis("real")
    summary = analysis.device().fragmentation_over_time
    assert summary is not None
    worst = summary.worst[0]
    page = watched.open(site.url("fragmentation", "real"))
    expect(page.locator("#fragmentation-graph .main-svg").first).to_be_visible()
    page.locator("#fragmentation-tiles").get_by_role("link").first.click()
    page.wait_for_url(re.compile(rf"/fragmentation\?.*event={worst.event}\b"))
    pinned = analysis.device().at(worst.event).ledger["free_pinned"]
    expect(page.locator("#fragmentation-tiles")).to_contain_text(f"Free, pinned{format_bytes(pinned)}")
    plot = plot_box(page, "fragmentation-graph")
    page.mouse.move(plot["x"] + 0.2 * plot["width"], plot["y"] + 0.5 * plot["height"])
    expect(page.locator("#fragmentation-graph .hoverlayer")).to_contain_text("reserved")
    page.mouse.click(plot["x"] + 0.2 * plot["width"], plot["y"] + 0.5 * plot["height"])
    n = analysis.trace.n_events
    wait_for_event_between(page, 0.17 * n, 0.23 * n)
    assert int(parse_qs(urlparse(page.url).query)["event"][0]) != worst.event
