"""The device's own count and the ranks in a real browser: one moment for both, a click that opens another rank."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from memscope.trace.container import write_container
from memscope.units import format_bytes, format_count
from tests.browser.conftest import Site, Watched, plot_box, served, wait_for_event_between
from tests.rank_traces import rank_trace, training
from tests.sampled_trace import counted_training_trace

pytestmark = pytest.mark.browser

SIZES = [(1440, 900), (1024, 768)]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("sampled")
    with served({"all": write_container(counted_training_trace(), folder / "all.memscope")}) as site:
        yield site


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("ranked")
    acts = (training(10, 30), training(60, 10, 10), training(10, 30))
    files = {
        str(rank): write_container(rank_trace(one, rank=rank), folder / f"run-rank{rank}.memscope")
        for rank, one in enumerate(acts)
    }
    with served(files) as site:
        yield site


def test_the_count_follows_the_moment(sampled: Site, watched: Watched) -> None:
    page = watched.open(sampled.url("device", "all"))
    expect(page.locator("#device-title")).to_contain_text("Other processes hold 90.0 MiB")
    count = sampled.analysis("all").peak(0).ledger.driver_usage
    assert count is not None
    for row in count.rows:
        cell = page.locator(f'#device-ledger td[title="{format_count(row.bytes)} bytes"]')
        expect(cell.first).to_have_text(format_bytes(row.bytes))
    expect(page.locator("#device-graph .main-svg").first).to_be_visible()
    page.fill("#event-input", "60")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"event=60\b"))
    expect(page.locator("#device-title")).to_contain_text("Other processes hold 60.0 MiB")


def test_a_click_on_the_device_chooses_the_moment_on_its_clock(sampled: Site, watched: Watched) -> None:
    page = watched.open(sampled.url("device", "all"))
    page.get_by_text("time", exact=True).click()
    expect(page.locator("#device-graph .xtick text").last).to_contain_text(" s")
    box = plot_box(page, "device-graph")
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    expect(page.locator("#device-graph .hoverlayer")).to_contain_text("device used")
    n = sampled.analysis("all").trace.n_events
    page.mouse.down()
    page.mouse.up()
    wait_for_event_between(page, 0.4 * n, 0.6 * n)


def test_a_click_opens_another_rank_at_the_same_step(ranked: Site, watched: Watched) -> None:
    page = watched.open(ranked.url("ranks", "0"))  # its peak is in step 1
    expect(page.locator("#ranks-title")).to_contain_text("Rank 1 peaks highest: 80.0 MiB")
    expect(page.locator("#ranks-grid .ag-row").first).to_contain_text("+50.0 MiB")
    box = plot_box(page, "ranks-graph")
    page.mouse.move(box["x"] + 0.45 * box["width"], box["y"] + 0.8 * box["height"])
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.9 * box["height"], steps=3)
    expect(page.locator("#ranks-graph .hoverlayer")).to_contain_text("highest reserved")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(re.compile("trace=run-rank1"))
    expect(page.locator("#moment-words")).to_contain_text("step 1")
    expect(page.locator("#moment-words")).to_contain_text("30.0 MiB allocated")
    expect(page.locator("#trace-select")).to_have_value("run-rank1.memscope")


def test_a_click_on_a_cell_opens_its_step(ranked: Site, watched: Watched) -> None:
    page = watched.open(ranked.url("ranks", "0"))
    box = plot_box(page, "ranks-steps")
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.8 * box["height"])
    page.mouse.move(box["x"] + 0.17 * box["width"], box["y"] + 0.83 * box["height"], steps=3)
    expect(page.locator("#ranks-steps .hoverlayer")).to_contain_text("rank 2, step 0")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(re.compile("trace=run-rank2"))
    expect(page.locator("#moment-words")).to_contain_text("step 0")


def test_one_trace_says_how_to_open_several(sampled: Site, watched: Watched) -> None:
    page = watched.open(sampled.url("ranks", "all"))
    expect(page.locator("#ranks-alone")).to_contain_text("memscope dash run-rank0.memscope run-rank1.memscope")
    expect(page.locator("#ranks-panels")).to_be_hidden()


@pytest.mark.parametrize("size", SIZES)
def test_both_views_fit_the_screen(sampled: Site, ranked: Site, watched: Watched, size: tuple[int, int]) -> None:
    watched.page.set_viewport_size({"width": size[0], "height": size[1]})
    for url in (sampled.url("device", "all"), ranked.url("ranks", "0")):
        page = watched.open(url)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.main'))") <= 0
