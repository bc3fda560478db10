"""The findings on the overview: each leads to what proves it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from memscope_dashboard.components import finding_list
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from memscope.trace.categories import Category
from memscope.trace.container import write_container
from tests.dashboard.conftest import WAIT_S
from tests.dashboard.pages import FITTING, links, moment_data, text_of
from tests.findings.traces import layers_that_stay

LEAKING = "leaking.memscope"


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TraceStore]:
    """A program in use that keeps more after each step."""
    trace = layers_that_stay(Category.UNKNOWN, uses=True)
    store = TraceStore([write_container(trace, tmp_path_factory.mktemp("leaking") / LEAKING)])
    yield store
    store.close(WAIT_S)


def test_each_finding_leads_to_the_view_and_moment_that_prove_it(leaking: TraceStore) -> None:
    data = moment_data(leaking, LEAKING)
    found = leaking.analysis(LEAKING).opinions(0).findings.findings
    listed = finding_list.update(leaking, data)
    assert found
    assert links(listed) == [f"/{one.view}{Query(LEAKING, 0, one.event).search()}" for one in found]
    for one in found:
        assert one.title in text_of(listed)
        assert one.severity.label in text_of(listed)


def test_a_finding_pins_what_shows_it(leaking: TraceStore) -> None:
    found = leaking.analysis(LEAKING).opinions(0).findings.findings
    listed = finding_list.update(leaking, moment_data(leaking, LEAKING))
    parts = [part for one in listed if one is not None for part in [one, *one._traverse()]]
    ids = [part.id for part in parts if isinstance(getattr(part, "id", None), dict) and part.id["type"] == "finding"]
    assert [found[one["index"]].kind for one in ids] == [one.kind for one in found]
    assert "leak" in {one.kind for one in found}
    for one in ids:
        rows = found[one["index"]].rows
        expected = {"trace": LEAKING, "device": 0, "row": rows[0]} if len(rows) else None
        assert (json.loads(one["pin"]) if one["pin"] else None) == expected


def test_without_findings_the_list_says_so_and_what_was_not_looked_for(shipped: TraceStore) -> None:
    words = text_of(finding_list.update(shipped, moment_data(shipped, FITTING)))
    assert "Nothing found that needs attention." in words
    assert "Leaks were not looked for" in words
