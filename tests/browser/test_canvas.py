"""The canvas in a real browser: it draws what the library counts, and answers pointer, keys and address alone."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from memscope_dashboard.canvas.allocations import moments_of
from playwright.sync_api import Page, expect

from memscope.device.device import Device
from memscope.figures.theme import DARK, LIGHT
from memscope.lifetimes.rules import large_segment_bytes
from memscope.lifetimes.state import releasable_bytes
from memscope.trace.categories import Category
from memscope.trace.schema import BlockState
from memscope.units import format_bytes
from tests.browser.conftest import Site, Watched

pytestmark = pytest.mark.browser

STATE = "window.memscopeCanvas.state()"
COLOUR_AT = """([x, y]) => {
    const picture = document.querySelector('.canvas-picture');
    const box = picture.getBoundingClientRect();
    const copy = document.createElement('canvas');
    [copy.width, copy.height] = [picture.width, picture.height];
    const pen = copy.getContext('2d', { willReadFrequently: true });
    pen.drawImage(picture, 0, 0);
    const at = [(x - box.left) / box.width * picture.width, (y - box.top) / box.height * picture.height];
    return [...pen.getImageData(Math.floor(at[0]), Math.floor(at[1]), 1, 1).data.slice(0, 3)];
}"""


def opened(watched: Watched, url: str) -> Page:
    page = watched.open(url)
    page.wait_for_function(f"{STATE} !== null")
    return page


def state(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(STATE)
    return found


def fields(page: Page) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(urlparse(page.url).query).items()}


def longest_lived(device: Device) -> tuple[int, int]:
    """The row that covers most of the picture, and a moment in the middle of its life."""
    start, end = moments_of(device)
    row = int(np.argmax(device.allocations.block_bytes * (end - start)))
    return row, int(start[row] + end[row]) // 2


def place_of(page: Page, row: int, moment: int) -> dict[str, float]:
    place: dict[str, float] | None = page.evaluate(f"window.memscopeCanvas.placeOf({row}, {moment})")
    assert place is not None
    return place


def test_every_allocation_of_a_small_run_is_there_in_the_colour_of_its_category(site: Site, watched: Watched) -> None:
    device = site.analysis("real").device()
    page = opened(watched, site.url("canvas", "real"))
    shown = state(page)
    assert (shown["projection"], shown["surface"], shown["n_left_out"]) == ("time", "WebGL2", 0)
    assert shown["n_allocations"] == len(device.allocations)
    assert shown["n_rectangles"] > 0
    assert shown["x_range"] == [0, device.n_events + 1]
    row, moment = longest_lived(device)
    scheme = LIGHT if page.locator(":root").get_attribute("data-mantine-color-scheme") == "light" else DARK
    place = place_of(page, row, moment)
    wanted = scheme.color(device.category_of(row).label)
    assert page.evaluate(COLOUR_AT, [place["x"], place["y"]]) == [int(wanted[i : i + 2], 16) for i in (1, 3, 5)]


def test_a_pin_is_the_allocation_under_the_pointer_and_goes_with_the_address(site: Site, watched: Watched) -> None:
    device = site.analysis("real").device()
    row, moment = longest_lived(device)
    page = opened(watched, site.url("canvas", "real"))
    place = place_of(page, row, moment)
    page.mouse.move(place["x"], place["y"])
    size = format_bytes(int(device.allocations.block_bytes[row]))
    expect(page.locator(".canvas-tip")).to_contain_text(size)
    page.mouse.click(place["x"], place["y"])
    expect(page.locator(".inspector-size")).to_contain_text(size)
    assert state(page)["pin"] == row
    page.wait_for_function(f"new URLSearchParams(location.search).get('pin') === '{row}'")
    again = opened(watched, page.url)
    expect(again.locator(".inspector-size")).to_contain_text(size)
    assert state(again)["pin"] == row
    again.get_by_role("link", name="Address map").click()
    expect(again.locator(".inspector-size")).to_contain_text(size)
    assert "pin" not in fields(again)


def test_keys_move_the_picture_and_the_address_brings_it_back(site: Site, watched: Watched) -> None:
    device = site.analysis("real").device()
    page = opened(watched, site.url("canvas", "real"))
    whole = state(page)
    page.locator(".canvas-stage").focus()
    for key in ("w", "w", "d", "Shift+ArrowUp"):
        page.keyboard.press(key)
    page.wait_for_function("new URLSearchParams(location.search).has('y1')")
    seen = state(page)
    width = whole["x_range"][1] * 0.7 * 0.7
    assert seen["x_range"][1] - seen["x_range"][0] == pytest.approx(width)
    assert seen["y_range"][1] < whole["y_range"][1]
    again = state(opened(watched, page.url))
    assert again["x_range"] == pytest.approx(seen["x_range"], abs=0.01)
    assert again["y_range"] == pytest.approx(seen["y_range"], abs=1)
    page.keyboard.press("f")
    page.wait_for_function("!new URLSearchParams(location.search).has('x0')")
    assert state(page)["x_range"] == whole["x_range"]
    page.keyboard.press("p")
    expect(page.locator("#moment-words")).to_contain_text(f"event {device.usage.peak_event:,}")
    page.keyboard.press("k")
    expect(page.locator("#moment-words")).to_contain_text(f"event {device.usage.peak_event - 1:,}")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_have_count(0)


def test_the_wheel_zooms_at_the_pointer_and_dragging_pans(site: Site, watched: Watched) -> None:
    page = opened(watched, site.url("canvas", "real"))
    box = page.locator(".canvas-picture").bounding_box()
    assert box is not None
    x, y = box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"]
    page.mouse.move(x, y)
    low, high = state(page)["x_range"]
    page.mouse.wheel(0, -500)
    page.wait_for_function(f"{STATE}.x_range[1] < {high}")
    zoomed = state(page)["x_range"]
    assert zoomed[0] + 0.25 * (zoomed[1] - zoomed[0]) == pytest.approx(low + 0.25 * (high - low), rel=0.01)
    page.mouse.down()
    page.mouse.move(x - 50, y, steps=4)
    page.mouse.up()
    page.wait_for_function(f"{STATE}.x_range[0] > {zoomed[0]}")
    panned = state(page)["x_range"]
    shift = 50 / box["width"] * (zoomed[1] - zoomed[0])
    assert panned[0] - zoomed[0] == pytest.approx(shift, rel=0.05)
    assert state(page)["pin"] is None, "a drag is no click"


def test_colours_are_explained_and_words_do_not_outlive_what_they_are_of(site: Site, watched: Watched) -> None:
    device = site.analysis("real").device()
    page = opened(watched, site.url("canvas", "real"))
    present = [Category(one).label.replace("_", " ") for one in np.unique(device.attribution.category)]
    expect(page.locator(".canvas-legend-name")).to_have_text(present)
    row, moment = longest_lived(device)
    place = place_of(page, row, moment)
    page.mouse.move(place["x"], place["y"])
    expect(page.locator(".canvas-tip")).to_be_visible()
    page.keyboard.press("w")
    expect(page.locator(".canvas-tip")).to_be_hidden()
    page.locator(".canvas-select").select_option("size")
    expect(page.locator(".canvas-legend")).to_contain_text("512 B")
    page.locator(".canvas-search").fill("size>foo")
    expect(page.locator(".canvas-found")).to_contain_text("size>foo is not understood")


def test_a_search_counts_what_the_library_counts(site: Site, watched: Watched) -> None:
    device = site.analysis("real").device()
    table = device.allocations
    start, end = moments_of(device)
    page = opened(watched, site.url("canvas", "real"))
    limit = int(np.median(table.block_bytes))
    for text, n in (
        (f"size>{limit}", int(np.count_nonzero(table.block_bytes > limit))),
        ("life<10", int(np.count_nonzero(end - start < 10))),
        (f"size>{limit} life<10", int(np.count_nonzero((table.block_bytes > limit) & (end - start < 10)))),
        ("no such name", 0),
    ):
        page.keyboard.press("/")
        page.locator(".canvas-search").fill(text)
        expect(page.locator(".canvas-found")).to_have_text(f"{n:,} allocation{'' if n == 1 else 's'}")
        assert state(page)["n_found"] == n
        page.keyboard.press("Escape")


def test_a_range_sums_to_the_mean_of_what_was_in_use(site: Site, watched: Watched) -> None:
    device = site.analysis("real").device()
    page = opened(watched, site.url("canvas", "real"))
    box = page.locator(".canvas-picture").bounding_box()
    assert box is not None
    y = box["y"] + 0.5 * box["height"]
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 0.3 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], y, steps=5)
    page.mouse.up()
    page.keyboard.up("Shift")
    low, high = state(page)["range"]
    mean = float(device.usage.active_bytes[low : high + 1].mean())
    heading = page.locator(".canvas-range-head b")
    expect(heading).to_contain_text(f"{format_bytes(round(mean))} in use on average")
    texts = page.locator(".canvas-range li .num").evaluate_all("all => all.map((one) => one.title)")
    start, end = moments_of(device)
    overlap = np.clip(np.minimum(end, high + 1) - np.maximum(start, low), 0, None)
    sums = np.bincount(device.attribution.category, device.allocations.block_bytes * overlap) / (high - low + 1)
    wanted = sorted(sums[sums > 0].tolist(), reverse=True)[:6]
    assert [float(text.removesuffix(" bytes")) for text in texts[: len(wanted)]] == pytest.approx(wanted, abs=0.06)
    page.get_by_role("button", name="by line").click()
    expect(page.get_by_role("button", name="by line")).to_have_attribute("aria-pressed", "true")
    expect(heading).to_contain_text(f"{format_bytes(round(mean))} in use on average")


def test_without_webgl_the_same_is_drawn(site: Site, watched: Watched) -> None:
    device = site.analysis("real").device()
    row, moment = longest_lived(device)
    page = opened(watched, site.url("canvas", "real"))
    place, shown = place_of(page, row, moment), state(page)
    colour = page.evaluate(COLOUR_AT, [place["x"], place["y"]])
    flat = opened(watched, site.url("canvas", "real") + "&surface=2d")
    assert state(flat)["surface"] == "Canvas 2D"
    assert state(flat)["n_rectangles"] == shown["n_rectangles"]
    assert flat.evaluate(COLOUR_AT, [place["x"], place["y"]]) == colour


def held_by_kind(device: Device, moment: int) -> dict[str, int]:
    """What the library says of the address space: bytes of blocks and holes, and how many segments there are."""
    found = device.lifetimes.state_at(device.usage.event_at(moment))
    blocks, segments = found.blocks, found.segments
    is_free = blocks.state == BlockState.INACTIVE
    is_private = segments.pool_id[blocks.segment_id] > 0
    can_go = releasable_bytes(found, large_segment_bytes(device.trace.metadata.alloc_conf)) > 0

    def total(chosen: np.ndarray) -> int:
        return int(blocks.size_bytes[chosen].sum())

    return {
        "blocks": total(~is_free),
        "free_private_pools": total(is_free & is_private),
        "free_releasable": total(is_free & ~is_private & can_go),
        "free_pinned": total(is_free & ~is_private & ~can_go),
        "segments": int(segments.size_bytes.sum()),
        "n_segments": len(segments),
        "n_stray": 0,
    }


@pytest.mark.parametrize("name", ["real", "train", "other"])
def test_the_address_space_is_the_librarys_at_every_moment(site: Site, watched: Watched, name: str) -> None:
    device = site.analysis(name).device()
    page = opened(watched, site.url("canvas", name) + "&projection=address")
    page.wait_for_function("window.memscopeCanvas.addressState() !== null")
    n = device.n_events
    for moment in sorted({0, 1, n // 3, n // 2, device.usage.index_of(device.usage.peak_event), n - 1, n}):
        held = page.evaluate(f"window.memscopeCanvas.addressAt({moment})")
        assert held == held_by_kind(device, moment), moment


def test_a_pinned_block_is_tied_to_the_holes_that_it_keeps(site: Site, watched: Watched) -> None:
    device = site.analysis("real").device()
    state_then = device.lifetimes.state_at(device.usage.peak_event)
    blocks = state_then.blocks
    holes = (blocks.state == BlockState.INACTIVE) & (releasable_bytes(state_then) == 0)
    by_segment = np.bincount(blocks.segment_id[holes], blocks.size_bytes[holes], len(state_then.segments))
    inside = (blocks.segment_id == np.argmax(by_segment)) & (state_then.allocation_ids >= 0)
    row = int(state_then.allocation_ids[inside][0])
    page = opened(watched, site.url("canvas", "real") + f"&projection=address&pin={row}")
    page.wait_for_function(f"window.memscopeCanvas.addressState() !== null && {STATE}.pin === {row}")
    page.wait_for_function(f"{STATE}.kept_bytes > 0")
    assert state(page)["kept_bytes"] == int(by_segment.max())
    page.keyboard.press("x")
    page.wait_for_function(f"{STATE}.projection === 'time'")
    assert state(page)["pin"] == row


def test_pictures_are_saved(site: Site, watched: Watched) -> None:
    page = opened(watched, site.url("canvas", "train"))
    with page.expect_download() as png:
        page.get_by_role("button", name="PNG").click()
    assert png.value.path().read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with page.expect_download() as svg:
        page.get_by_role("button", name="SVG").click()
    assert svg.value.path().read_text().count("<rect") == state(page)["n_rectangles"] + 1


def test_names_that_are_markup_stay_text(site: Site, watched: Watched) -> None:
    device = site.analysis("train").device()
    page = opened(watched, site.url("canvas", "train"))
    row, moment = longest_lived(device)
    place = place_of(page, row, moment)
    page.mouse.move(place["x"], place["y"])
    expect(page.locator(".canvas-tip")).to_be_visible()
    assert page.locator(".canvas-tip img, .canvas-tip script").count() == 0


def test_another_trace_is_seen_whole_whatever_was_seen_of_the_one_before(site: Site, watched: Watched) -> None:
    page = opened(watched, site.url("canvas", "real") + "&x0=5&x1=25&colour=size")
    assert state(page)["x_range"] == [5, 25]
    page.locator("#trace-select").click()
    page.get_by_role("option", name="train.memscope", exact=True).click()
    n_events = site.analysis("train").device().n_events
    page.wait_for_function(f"{STATE} !== null && {STATE}.x_range[1] === {n_events + 1}")
    assert state(page)["x_range"] == [0, n_events + 1]
    page.wait_for_function("!new URLSearchParams(location.search).has('x0')")
    assert fields(page)["trace"] == "train.memscope"


STRANGE = [
    ("x0=abc&x1=9", "x0 “abc” to x1 “9”"),
    ("x0=9&x1=2", "x0 “9” to x1 “2”"),
    ("x0=NaN&x1=NaN", "x0 “NaN” to x1 “NaN”"),
    ("x0=3", "x0 “3” to x1 nothing"),
    ("x0=&x1=5", "x0 “” to x1 “5”"),
    ("x0=-1e400&x1=Infinity", "where event positions are 0 to"),
    ("x0=5&x1=99999999", "x0 “5” to x1 “99999999”"),
    ("y0=7&y1=7", "y0 “7” to y1 “7”"),
    ("r0=8&r1=3", "r0 “8” to r1 “3”"),
    ("r0=0.5&r1=3", "r0 “0.5” to r1 “3”"),
    ("r0=1&r1=99999999", "r0 “1” to r1 “99999999”"),
    ("colour=mauve", "colour “mauve”"),
    ("colour=constructor", "colour “constructor”"),
    ("projection=mercator", "projection “mercator”"),
    ("pin=99999999", "pin “99999999”"),
    ("pin=-1", "pin “-1”"),
    ("pin=<img src=x>", "pin “<img src=x>”"),
]


def test_what_an_address_asks_for_and_the_trace_has_not_is_said_and_the_usual_drawn(
    site: Site, watched: Watched
) -> None:
    names = ("projection", "x_range", "y_range", "colour", "pin", "range")
    usual = state(opened(watched, site.url("canvas", "real")))
    page = watched.open(site.url("canvas", "real") + "&x0=5&x1=25&colour=size&pin=1&r0=2&r1=5")
    page.wait_for_function(f"{STATE} !== null")
    assert page.locator(".canvas-problem").text_content() == ""
    for query, words in STRANGE:
        page.goto(site.url("canvas", "real") + "&" + query)
        expect(page.locator(".canvas-problem")).to_contain_text(words)
        page.wait_for_function(f"{STATE} !== null")
        shown = state(page)
        assert {name: shown[name] for name in names} == {name: usual[name] for name in names}, query
        assert shown["n_rectangles"] > 0
    page.wait_for_function("!new URLSearchParams(location.search).has('pin')")


@pytest.mark.parametrize("event", ["99999999", "-7", "soon", "1e999"])
def test_an_event_that_the_trace_has_not_is_said(site: Site, watched: Watched, event: str) -> None:
    page = watched.open(f"{site.url('canvas', 'real')}&event={event}")
    page.wait_for_function(f"{STATE} !== null")
    expect(page.locator(".canvas-problem")).to_contain_text(f"event “{event}”, where events are 0 to")
    last = site.analysis("real").device().n_events - 1
    assert -1 <= state(page)["event"] <= last
