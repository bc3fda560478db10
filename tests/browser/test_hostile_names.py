"""Names that would do something as markup are on the screen, letter by letter, in every view and on every page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from memscope_dashboard.views import VIEWS
from playwright.sync_api import Page, expect

from memscope.trace.container import write_container
from memscope.trace.trace import Trace
from tests.browser.conftest import Site, Watched, served
from tests.browser.test_canvas import longest_lived, opened, place_of
from tests.conftest import Outcome
from tests.hostile_trace import SHOWN, with_hostile_names
from tests.kv_cache.serving_program import serving_trace
from tests.sampled_trace import counted_training_trace
from tests.training_trace import training_trace

pytestmark = pytest.mark.browser

FILE_SHOWN = "<svg onload=alert(3)>"
FILE_NAME = f"{FILE_SHOWN}\x1b[31m\u202e.memscope"
ON_SCREEN = """() => {
    const fields = [...document.querySelectorAll('input:not([type=hidden])')].map((field) => field.value);
    const drawn = [...document.querySelectorAll('svg text')].map((text) => text.textContent);
    return [document.body.innerText, ...fields, ...drawn].join('\\n');
}"""
"""All that can be read: text, what stands in fields, and what pictures say."""
STEERING = "\x1b\x07\u0085\u202e\u2066\0\ufffd"
MOST_CHARACTERS = 200_000
"""Of a screen: less than the one name that has a million."""


def hostile(trace: Trace, rank: int) -> Trace:
    trace = with_hostile_names(trace)
    return dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, rank=rank))


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("evil")
    files = {}
    traces = {"train": training_trace(4, 6), "serving": serving_trace(), "counted": counted_training_trace()}
    for rank, (name, trace) in enumerate(traces.items()):
        files[name] = write_container(hostile(trace, rank), folder / f"{name}{FILE_NAME}")
    with served(files) as site:
        yield site


def url(site: Site, view: str, trace: str) -> str:
    return f"{site.address}/{view}?trace={quote(site.files[trace].name)}"


def require_only_shown(page: Page, *, payload: str = SHOWN) -> None:
    page.wait_for_function(f"(payload) => ({ON_SCREEN})().includes(payload)", arg=payload)
    text = page.evaluate(ON_SCREEN)
    assert [line for line in text.split("\n") if set(line) & set(STEERING)] == [], "what steers is written out"
    assert len(text) < MOST_CHARACTERS, "a name of a megabyte is not shown whole"
    assert page.locator("img[onerror], svg[onload]").count() == 0
    assert page.locator("script", has_text="alert(").count() == 0


@pytest.mark.parametrize("trace", ["train", "serving", "counted"])
def test_every_view_shows_names_as_text(evil: Site, watched: Watched, trace: str) -> None:
    page = watched.open(url(evil, "allocations", trace))
    page.locator(".ag-row").first.click()
    expect(page.locator("#inspector")).to_contain_text(SHOWN)
    for view in VIEWS:
        page.get_by_role("link", name=view.title, exact=True).click()
        page.wait_for_selector(f"#{view.name}-title, .view-panel:not(.waiting)", state="attached")
        require_only_shown(page)
        require_only_shown(page, payload=FILE_SHOWN)
        assert watched.complaints == []


def test_the_canvas_shows_the_name_under_the_pointer(evil: Site, watched: Watched) -> None:
    page = opened(watched, url(evil, "canvas", "train"))
    place = place_of(page, *longest_lived(evil.analysis("train").device()))
    page.mouse.move(place["x"], place["y"])
    expect(page.locator(".canvas-tip")).to_contain_text(SHOWN)
    require_only_shown(page)


@pytest.mark.parametrize(
    ("verb", "traces", "options"),
    [
        ("report", ["train"], []),
        ("report", ["counted"], []),
        ("report", ["train", "counted"], []),
        ("diff", ["train", "counted"], []),
        ("kv", ["serving"], []),
        ("replay", ["train"], ["--strategy", "lower-bound", "--strategy", "caching"]),
    ],
)
def test_every_page_shows_names_as_text(
    verb: str,
    traces: list[str],
    options: list[str],
    evil: Site,
    watched: Watched,
    memscope: Callable[..., Outcome],
    tmp_path: Path,
) -> None:
    path = tmp_path / "page.html"
    assert memscope(verb, *(evil.files[name] for name in traces), *options, "-o", path).code == 0
    page = watched.open(path.as_uri())
    expect(page.locator("h2").first).to_be_visible()
    require_only_shown(page, payload=FILE_SHOWN if verb == "replay" else SHOWN)
