"""The flame graph and the table of allocations in a real browser: a click goes from the one to the other."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from memscope.attribution.grouping import Grouping
from memscope.figures.flames.flame import FlameKind, flame_tree
from memscope.units import format_bytes
from tests.browser.conftest import Site, Watched

pytestmark = pytest.mark.browser


def box(page: Page, text: str) -> None:
    """Click a box of the flame graph by its text, which lies under the box's own surface."""
    page.locator("#flame-graph .slicetext", has_text=text).first.click(force=True)


def test_a_click_on_a_call_narrows_the_table_and_back(site: Site, watched: Watched) -> None:
    moment = site.analysis("train").peak(0)
    tree = flame_tree(moment, FlameKind.CALLS, own_only=True)
    page = watched.open(site.url("flame", "train"))
    expect(page.locator("#flame-graph .slicetext").first).to_contain_text(format_bytes(moment.allocated_bytes))
    path = [next(key for key in (tree.keys[n] for n in tree.children(0).tolist()))]
    called = tree.find(path)
    assert called is not None
    child = int(tree.children(called)[0])
    function = moment.device.trace.frame(int(tree.keys[child])).name
    box(page, f"{function} (")
    size = format_bytes(int(tree.bytes[child]))
    expect(page.locator("#inspector .inspector-size")).to_have_text(size)
    expect(page.locator("#inspector")).to_contain_text(f"{function} (train.py:7)")
    page.get_by_role("link", name="show them in the table").click()
    n = int(tree.count[child])
    expect(page.locator("#allocations-note")).to_contain_text(f"{n} of {len(moment.rows)} shown: {size} allocated")
    expect(page.locator(".ag-floating-bottom")).to_contain_text(f"{n} allocations")
    page.locator("#allocations-narrow button").click()
    expect(page.locator("#allocations-note")).to_contain_text(f"All {len(moment.rows)} shown")
    expect(page.locator("#inspector")).to_contain_text("Nothing is pinned")


def test_modules_and_categories_are_one_click_each(site: Site, watched: Watched) -> None:
    moment = site.analysis("train").peak(0)
    page = watched.open(site.url("flame", "train"))
    page.get_by_text("modules", exact=True).click()
    expect(page.locator("#flame-title")).to_contain_text("belongs to")
    box(page, "model")
    expect(page.locator("#flame-crumbs")).to_contain_text("model")
    page.locator("#flame-crumbs button").first.click()
    expect(page.locator("#flame-crumbs")).to_be_empty()
    page.locator(".chip-choice").get_by_text("weights").click()
    expect(page.locator("#flame-title")).to_contain_text("of weights")
    table = moment.lifetimes.allocations
    weights = moment.rows[moment.device.attribution.category[moment.rows] == 0]
    expect(page.locator("#flame-title")).to_contain_text(format_bytes(int(table.block_bytes[weights].sum())))


def test_groups_of_the_table_are_those_of_the_command_line(site: Site, watched: Watched) -> None:
    moment = site.analysis("real").peak()
    page = watched.open(site.url("allocations", "real"))
    page.locator("#allocations-by").get_by_text("category").click()
    expect(page.locator(".ag-floating-bottom")).to_contain_text(format_bytes(moment.allocated_bytes))
    sizes = sorted(moment.by(Grouping.CATEGORY)["block_bytes"], reverse=True)
    expect(page.locator(".ag-center-cols-container .ag-row")).to_have_count(len(sizes))
    for i, n_bytes in enumerate(sizes):
        row = page.locator(f'.ag-center-cols-container .ag-row[row-index="{i}"]')
        expect(row).to_contain_text(format_bytes(int(n_bytes)))


def test_the_table_sorts_scrolls_and_follows_the_moment_on_the_server(site: Site, watched: Watched) -> None:
    analysis = site.analysis("real")
    moment = analysis.peak()
    requests: list[str] = []
    watched.page.on("request", lambda r: requests.append(r.post_data or "") if "_dash-update" in r.url else None)
    page = watched.open(site.url("allocations", "real"))
    expect(page.locator(".ag-row").first).to_be_visible()
    page.get_by_role("columnheader", name="since event").click()
    newest = int(moment.lifetimes.allocations.alloc_event[moment.rows].max())
    expect(page.locator('.ag-center-cols-container .ag-row[row-index="0"]')).to_contain_text(f"{newest:,}")
    asked = [json.loads(r)["inputs"][0]["value"] for r in requests if '"property":"getRowsRequest"' in r]
    (rule,) = asked[-1]["sortModel"]
    assert (rule["colId"], rule["sort"]) == ("alloc_event", "desc")
    page.locator("#go-end").click()
    last = analysis.end()
    expect(page.locator("#allocations-title")).to_contain_text(format_bytes(last.active_bytes))
    newest = int(last.lifetimes.allocations.alloc_event[last.rows].max())
    expect(page.locator('.ag-center-cols-container .ag-row[row-index="0"]')).to_contain_text(f"{newest:,}")


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)])
def test_the_flame_graph_is_no_wider_than_the_screen(site: Site, watched: Watched, size: tuple[int, int]) -> None:
    watched.page.set_viewport_size({"width": size[0], "height": size[1]})
    page = watched.open(site.url("flame", "real"))
    page.get_by_role("link", name=re.compile("Flame graph")).click()
    expect(page.locator("#flame-graph .slicetext").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.main'))") <= 0
