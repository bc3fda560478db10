"""What techniques make of a run in a real browser: put in by a card, by the keyboard and by an address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from memscope.analysis import load
from memscope.techniques.whatif import what_if, what_if_all
from memscope.units import format_bytes
from tests.browser.conftest import TRACES, Site, Watched, plot_box, served

pytestmark = pytest.mark.browser
TRAIN, OOM = "tiny-llama-train.memscope", "tiny-out-of-memory.memscope"


@pytest.fixture(scope="module")
def shipped() -> Iterator[Site]:
    with served({"train": TRACES / TRAIN, "oom": TRACES / OOM}) as site:
        yield site


def opened(watched: Watched, site: Site, more: str = "", trace: str = "train") -> Page:
    page = watched.open(f"{site.url('whatif', trace)}{more}")
    expect(page.locator(".technique-card").first).to_be_visible()
    return page


def apply_button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=f"apply {name}", exact=True)


def test_cards_are_put_in_and_taken_out_and_the_address_keeps_them(shipped: Site, watched: Watched) -> None:
    device = load(TRACES / TRAIN).device(0)
    every = what_if_all(device)
    page = opened(watched, shipped)
    best = every.results[0]
    expect(page.locator("#whatif-title")).to_contain_text(f"{best.technique} saves most")
    apply_button(page, "micro-batch:2").click()
    expect(page.locator("#whatif-title")).to_contain_text(f"With micro-batch:2: {format_bytes(best.saved_bytes)} less")
    apply_button(page, "optimizer:sgd").click()
    apply_button(page, "optimizer:8bit").click()  # a program has one optimizer
    together = what_if(device, ["micro-batch:2", "optimizer:8bit"]).together
    assert together is not None
    expect(page.locator("#whatif-title")).to_contain_text("With micro-batch:2 + optimizer:8bit")
    expect(page.locator("#whatif-tiles")).to_contain_text(format_bytes(together.saved_bytes))
    expect(apply_button(page, "optimizer:sgd")).to_have_attribute("aria-pressed", "false")
    plot_box(page, "whatif-graph")
    names = page.locator("#whatif-graph .annotation-text").all_text_contents()
    assert f"after {format_bytes(together.peaks.reserved_bytes)}" in names
    page.wait_for_function("location.search.includes('apply=micro-batch%3A2+optimizer%3A8bit')")
    there = page.url
    page.goto("about:blank")
    again = watched.open(there)
    expect(again.locator("#whatif-title")).to_contain_text("With micro-batch:2 + optimizer:8bit")
    again.locator("#whatif-measure").get_by_text("allocated").click()
    after = f"after {format_bytes(together.peaks.allocated_bytes)}"
    expect(again.locator("#whatif-graph .annotation-text", has_text="after")).to_have_text(after)
    apply_button(again, "optimizer:8bit").click()
    expect(again.locator("#whatif-title")).to_contain_text("With micro-batch:2:")


def test_the_keyboard_puts_techniques_in_and_opens_the_table(shipped: Site, watched: Watched) -> None:
    page = opened(watched, shipped)
    apply_button(page, "logits:chunked").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#whatif-title")).to_contain_text("With logits:chunked")
    expect(apply_button(page, "logits:chunked")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#whatif-title")).to_contain_text("saves most")
    page.get_by_role("textbox", name="Applied together").fill("checkpoint:every=2")
    page.keyboard.press("Enter")
    expect(page.locator("#whatif-title")).to_contain_text("checkpoint:every=2")
    page.get_by_role("textbox", name="Applied together").fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.locator(".whatif-controls")).to_contain_text("there is no technique 'nonsense'")
    page.locator("summary", has_text="as a table").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#whatif-table")).to_be_visible()


def test_a_card_of_the_catalogue_has_a_plan(shipped: Site, watched: Watched) -> None:
    page = opened(watched, shipped)
    page.get_by_role("textbox", name="Cheapest plan for").click()
    page.get_by_role("option", name="T4-16GB").click()
    expect(page.locator("#whatif-plan")).to_contain_text("Fits T4-16GB")
    page.wait_for_function("location.search.includes('gpu=T4-16GB')")


def test_a_failed_request_leads_to_the_run_with_a_technique(shipped: Site, watched: Watched) -> None:
    page = watched.open(shipped.url("overview", "oom"))
    expect(page.locator("#overview-oom-changes")).to_contain_text("What to change in the program")
    page.get_by_role("link", name="see the run with it").first.click()
    expect(page.locator("#whatif-title")).to_contain_text("With quantize:int8")
    expect(page.locator("#whatif-note")).to_contain_text("had the request for 64.0 MiB not failed")


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen(shipped: Site, watched: Watched, size: tuple[int, int], scheme: str) -> None:
    watched.page.emulate_media(color_scheme=scheme)
    watched.page.set_viewport_size({"width": size[0], "height": size[1]})
    page = opened(watched, shipped, "&apply=micro-batch%3A2+optimizer%3A8bit")
    expect(page.locator("#whatif-title")).to_contain_text("With micro-batch:2")
    plot_box(page, "whatif-graph")
    for summary in page.locator(".main summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.main'))") <= 0
