"""The replay view in a real browser: it fills itself, takes settings, can be cancelled, and gives a line to copy."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from memscope.replay import sweep
from memscope.replay.strategies import STRATEGIES
from memscope.replay.verify.verify import verify_device
from memscope.units import format_bytes
from tests.browser.conftest import Site, Watched, click_and_be_answered

pytestmark = pytest.mark.browser

LONG_MS = 240_000
"""The first replay of a strategy compiles its kernels."""


def choose(page: Page, *names: str) -> None:
    page.click("#replay-strategies")
    for name in names:
        page.get_by_role("option", name=re.compile(rf"^{name}\b")).first.click()
    page.keyboard.press("Escape")


def test_replay_fills_itself_and_says_its_verdict_and_its_check(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("replay", "train"))
    reserved = site.analysis("train").peak_reserved(0).reserved_bytes
    expect(page.locator("#replay-table tr.recorded")).to_contain_text(format_bytes(reserved))
    choose(page, "caching", "lower-bound")
    expect(page.locator("#replay-title")).not_to_contain_text("Replaying", timeout=LONG_MS)
    expect(page.locator("#replay-table tbody tr")).to_have_count(7)
    expect(page.locator("#replay-check")).to_contain_text("replayed under the recorded settings")
    expect(page.locator("#replay-graph .scatterlayer .trace")).to_have_count(7)
    expect(page.locator("#replay-cancel")).to_be_hidden()


def test_the_badge_opens_the_first_divergence_and_leads_to_it(site: Site, watched: Watched) -> None:
    """The trace is a naive allocator's: it places one block elsewhere than PyTorch would."""
    divergence = verify_device(site.analysis("train").device(0).lifetimes).first_divergence
    assert divergence is not None
    page = watched.open(site.url("replay", "train"))
    expect(page.locator("#replay-verify")).to_contain_text("diverges", timeout=LONG_MS)
    page.click("#replay-verify")
    panel = page.locator("#replay-verify-panel")
    for text in (divergence.expected, divergence.got, divergence.reason):
        expect(panel).to_contain_text(text)
    panel.get_by_role("link", name="Address map at this event").click()
    page.wait_for_url(re.compile(rf"/map\?.*event={divergence.event}\b"))
    expect(page.locator("#moment-words")).to_contain_text(f"event {divergence.event:,}")


def test_replay_offers_every_strategy_with_what_it_is(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("replay", "train"))
    page.click("#replay-strategies")
    expect(page.get_by_role("option")).to_have_count(len(STRATEGIES))
    expect(page.get_by_role("option").first).to_contain_text(STRATEGIES["caching"].summary)


def test_replay_takes_a_setting_and_gives_it_back(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("replay", "train"))
    choose(page, "caching")
    page.fill("#replay-confs", "expandable_segments:True,max_split_size_mb:64")
    page.keyboard.press("Enter")
    row = page.locator("#replay-table tr", has_text="expandable_segments:True,max_split_size_mb:64")
    expect(row.locator(".exactness")).to_have_text("exact", timeout=LONG_MS)
    expect(page.locator("#replay-notes")).to_contain_text("is known to harm")
    row.hover()
    expect(page.locator("#replay-graph .scatterlayer .trace").last).to_have_css("opacity", "0.15")
    page.locator("#replay-confs").focus()
    page.keyboard.press("Backspace")
    expect(row).to_have_count(0)
    page.fill("#replay-confs", "max_split_size_mb:banana")
    page.keyboard.press("Enter")
    expect(page.locator(".mantine-InputWrapper-error")).to_contain_text("banana")
    page.fill("#replay-capacity", "20 parsecs")
    page.keyboard.press("Enter")
    expect(page.locator(".mantine-InputWrapper-error").last).to_contain_text("20 parsecs")
    page.fill("#replay-capacity", "20MiB")
    page.keyboard.press("Enter")
    expect(page.locator("#replay-table tr.failed-why").first).to_contain_text("out of memory", timeout=LONG_MS)


def test_replay_is_cancelled_and_taken_up_again(site: Site, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    real, gate = sweep.replay, threading.Semaphore(0)

    def gated(lifetimes: Any, strategy: str, options: Any) -> Any:
        assert gate.acquire(timeout=LONG_MS / 1000)
        return real(lifetimes, strategy, options)

    page = watched.open(site.url("replay", "train"))
    choose(page, "lower-bound")
    expect(page.locator("#replay-title")).not_to_contain_text("Replaying", timeout=LONG_MS)
    monkeypatch.setattr(sweep, "replay", gated)
    choose(page, "caching")
    page.fill("#replay-capacity", "61MiB")
    page.keyboard.press("Enter")
    gate.release(2)
    expect(page.locator("#replay-progress")).to_have_text("2 of 6 replays", timeout=LONG_MS)
    click_and_be_answered(page, "replay-cancel")
    gate.release(1)
    expect(page.locator("#replay-progress")).to_have_text("Cancelled: 3 of 6 replays done.")
    expect(page.locator("#replay-table tr.to-come")).to_have_count(3)
    gate.release(10)
    page.click("#replay-resume")
    expect(page.locator("#replay-table tr.to-come")).to_have_count(0, timeout=LONG_MS)
    expect(page.locator("#replay-resume")).to_be_hidden()


def test_the_search_gives_its_verdict_and_a_line_to_copy(site: Site, watched: Watched) -> None:
    page = watched.open(site.url("replay", "train"))
    choose(page, "lower-bound")
    page.click("#replay-tune")
    expect(page.locator("#replay-tuned .verdict")).not_to_be_empty(timeout=LONG_MS)
    expect(page.locator("#replay-tuned table")).to_contain_text("lower bound")
    expect(page.locator("#replay-tune")).to_be_disabled()
    line = page.locator("#replay-line")
    if line.count():
        expect(line).to_contain_text("PYTORCH")
        expect(page.get_by_role("button", name="Copy")).to_be_visible()
