"""The comparison in a real browser: its numbers, a click and the keyboard, and an address that brings it all back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from memscope.analysis import load
from memscope.compare.diff import diff_moments
from memscope.compare.difference import By
from memscope.units import format_bytes
from memscope.words.compare import signed_bytes
from tests.browser.conftest import TRACES, Site, Watched, plot_box, served

pytestmark = pytest.mark.browser
TRAIN, OOM = "tiny-llama-train.memscope", "tiny-out-of-memory.memscope"


@pytest.fixture(scope="module")
def pair() -> Iterator[Site]:
    with served({"train": TRACES / TRAIN, "oom": TRACES / OOM}) as site:
        yield site


@pytest.fixture(scope="module")
def alone() -> Iterator[Site]:
    with served({"train": TRACES / TRAIN}) as site:
        yield site


def opened(watched: Watched, site: Site, more: str = "") -> Page:
    page = watched.open(f"{site.url('compare', 'train')}{more}")
    expect(page.locator("#compare-flame .slicetext").first).to_be_visible()
    return page


def test_two_traces_are_compared_as_diff_compares_them(pair: Site, watched: Watched) -> None:
    a, b = (load(TRACES / name).peak() for name in (TRAIN, OOM))
    difference = diff_moments(a, b)
    page = opened(watched, pair)
    expect(page.locator("#compare-title")).to_contain_text(f"{format_bytes(difference.delta_bytes)} more than")
    expect(page.locator("#compare-tiles")).to_contain_text(signed_bytes(difference.delta_bytes))
    plot_box(page, "compare-bridge")
    texts = page.locator("#compare-bridge .annotation-text").all_text_contents()
    changes = [signed_bytes(row.delta_bytes) for row in difference.categories if row.delta_bytes]
    assert texts == [format_bytes(a.allocated_bytes), *changes, format_bytes(b.allocated_bytes)]
    first = difference.rows[0]
    row = page.locator('#compare-grid .ag-center-cols-container .ag-row[row-index="0"]')
    expect(row).to_contain_text(signed_bytes(first.delta_bytes))
    row.click()
    expect(page.locator("#compare-row-panel")).to_contain_text(f"{first.delta_bytes:+,} bytes")
    expect(page.locator("#compare-row-panel")).to_contain_text("generate.py:63")


def test_switches_and_boxes_are_in_the_address_and_come_back(pair: Site, watched: Watched) -> None:
    page = opened(watched, pair)
    page.locator("#compare-pic").get_by_text("line", exact=True).click()
    page.locator("#compare-measure").get_by_text("reserved").click()
    expect(page.locator("#compare-bridge-title")).to_contain_text("reserved bytes by line of code")
    page.locator("#compare-by").get_by_text("module").click()
    page.locator("#compare-show").get_by_text("gone").click()
    expect(page.locator("#compare-rows-title")).to_contain_text("module")
    page.locator('#compare-grid .ag-row[row-index="1"]').first.click()
    page.locator("#compare-flame .slicetext", has_text=re.compile("^train")).first.click(force=True)
    crumbs = page.locator("#compare-crumbs .here")
    expect(crumbs).to_contain_text("train (")
    page.wait_for_function("location.search.includes('focus=') && location.search.includes('row=')")
    there, panel = page.url, page.locator("#compare-row-panel").inner_text()
    for field in ("a=", "b=", "pic=site", "measure=reserved", "by=module", "show=gone"):
        assert field in there
    words = crumbs.inner_text()
    page.goto("about:blank")
    again = watched.open(there)
    expect(again.locator("#compare-crumbs .here")).to_have_text(words)
    expect(again.locator("#compare-row-panel")).to_have_text(panel, use_inner_text=True)
    expect(again.locator("#compare-bridge-title")).to_contain_text("reserved bytes by line of code")
    again.wait_for_function("(address) => location.href === address", arg=there)
    again.locator("#compare-crumbs button").first.click()
    expect(again.locator("#compare-crumbs")).to_be_empty()


def test_the_keyboard_reaches_the_tables_behind_the_pictures(pair: Site, watched: Watched) -> None:
    page = opened(watched, pair)
    details = page.locator("details", has=page.locator("#compare-flame-table"))
    details.locator("summary").first.focus()
    page.keyboard.press("Enter")
    button = details.get_by_role("button", name=re.compile("^out_of_memory")).first
    expect(button).to_be_visible()
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#compare-crumbs .here")).to_contain_text("out_of_memory")
    page.locator("#compare-grid .ag-header-cell").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect(page.locator("#compare-row-panel")).to_contain_text("bytes)")


def test_one_trace_says_how_to_open_a_second_and_compares_its_steps(alone: Site, watched: Watched) -> None:
    page = watched.open(alone.url("compare", "train"))
    expect(page.locator("#compare-alone")).to_contain_text("memscope dash before.memscope after.memscope")
    page.get_by_role("button", name="Compare step 0 and step 2 of this run").click()
    expect(page.locator("#compare-title")).to_contain_text("Allocated memory grew by 30.3 MiB")
    page.wait_for_function("location.search.includes('at_a=step%3A0') && location.search.includes('at_b=step%3A2')")
    page.locator("#compare-swap").click()
    expect(page.locator("#compare-title")).to_contain_text("Allocated memory shrank by 30.3 MiB")
    page.locator("#go-end").click()
    page.locator("#compare-here-a").click()
    last = load(TRACES / TRAIN).end()
    expect(page.locator("#compare-note")).to_contain_text(f"event {last.event:,}")


def test_the_way_back_leads_to_the_same_comparison(pair: Site, watched: Watched) -> None:
    page = opened(watched, pair)
    page.locator("#compare-by").get_by_text("line", exact=True).click()
    expect(page.locator("#compare-rows-title")).to_contain_text("line of code")
    page.wait_for_function("location.search.includes('by=site')")
    page.get_by_role("link", name="Overview").click()
    expect(page.locator("#overview-title")).not_to_be_empty()
    assert "by=site" not in page.url
    page.get_by_role("link", name="Compare").click()
    expect(page.locator("#compare-rows-title")).to_contain_text("line of code")


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(pair: Site, watched: Watched, size: tuple[int, int], scheme: str) -> None:
    watched.page.emulate_media(color_scheme=scheme)
    watched.page.set_viewport_size({"width": size[0], "height": size[1]})
    page = opened(watched, pair, "&by=site&pic=site")
    for summary in page.locator(".main summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.main'))") <= 0
    assert diff_moments(*(load(TRACES / name).peak() for name in (TRAIN, OOM)), By.SITE).delta_bytes > 0
