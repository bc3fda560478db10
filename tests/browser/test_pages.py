"""Pages on paper, and the navigation: what a browser makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.analysis import load
from memscope.reports.html import write_html_report
from tests.browser.conftest import TRACES, Site, Watched, sync_api


@pytest.fixture
def dark(chromium: sync_api.Browser) -> Watched:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    return Watched(context.new_page())


def test_a_page_that_is_dark_on_the_screen_is_printed_on_white_paper(dark: Watched, tmp_path: Path) -> None:
    path = write_html_report(load(TRACES / "tiny-llama-train.memscope"), tmp_path / "report.html")
    page = dark.open(path.as_uri())
    scheme = "document.documentElement.dataset.scheme"
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(scheme) == "dark"
    assert page.evaluate(colour) != "rgb(255, 255, 255)"
    page.emulate_media(media="print")
    page.wait_for_selector("html[data-scheme=light]", state="attached")
    assert page.evaluate(colour) == "rgb(255, 255, 255)"
    assert page.locator("button").first.is_hidden()
    pictures = page.evaluate(
        "[...document.querySelectorAll('.picture')].map(p => [p.clientHeight, p.scrollWidth - p.clientWidth])"
    )
    assert len(pictures) == 4
    assert all(height >= 60 and wider <= 0 for height, wider in pictures)
    page.emulate_media(media="screen")
    page.wait_for_selector("html[data-scheme=dark]", state="attached")
    assert dark.complaints == []
    page.context.close()


@pytest.mark.parametrize("width", [1280, 1440, 1920])
def test_no_name_in_the_navigation_is_cut_when_it_is_chosen(watched: Watched, site: Site, width: int) -> None:
    watched.page.set_viewport_size({"width": width, "height": 900})
    page = watched.open(site.url("fragmentation", "train"))
    page.wait_for_selector(".nav-link[data-active]")
    cut = page.evaluate(
        """() => [...document.querySelectorAll('.nav-link')].flatMap(link => {
            link.setAttribute('data-active', 'true');
            const label = link.querySelector('.mantine-NavLink-label');
            const body = link.querySelector('.mantine-NavLink-body');
            return [label, body].some(e => e.scrollWidth > e.clientWidth) ? [label.textContent] : [];
        })"""
    )
    assert cut == []
