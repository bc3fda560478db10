"""The findings on the overview: each leads to what proves it."""

from __future__ import annotations

import json

from memscope_dashboard.components import finding_list
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from tests.dashboard.pages import FITTING, OUT_OF_MEMORY, links, moment_data, text_of


def test_each_finding_leads_to_the_view_and_moment_that_prove_it(shipped: TraceStore) -> None:
    data = moment_data(shipped, OUT_OF_MEMORY)
    found = shipped.analysis(OUT_OF_MEMORY).opinions(0).findings.findings
    listed = finding_list.update(shipped, data)
    assert found
    assert links(listed) == [f"/{one.view}{Query(OUT_OF_MEMORY, 0, one.event).search()}" for one in found]
    for one in found:
        assert one.title in text_of(listed)
        assert one.severity.label in text_of(listed)


def test_a_finding_pins_what_shows_it(shipped: TraceStore) -> None:
    found = shipped.analysis(OUT_OF_MEMORY).opinions(0).findings.findings
    listed = finding_list.update(shipped, moment_data(shipped, OUT_OF_MEMORY))
    parts = [part for one in listed if one is not None for part in [one, *one._traverse()]]
    ids = [part.id for part in parts if isinstance(getattr(part, "id", None), dict) and part.id["type"] == "finding"]
    assert [found[one["index"]].kind for one in ids] == [one.kind for one in found]
    assert "leak" in {one.kind for one in found}
    for one in ids:
        rows = found[one["index"]].rows
        expected = {"trace": OUT_OF_MEMORY, "device": 0, "row": rows[0]} if len(rows) else None
        assert (json.loads(one["pin"]) if one["pin"] else None) == expected


def test_without_findings_the_list_says_so_and_what_was_not_looked_for(shipped: TraceStore) -> None:
    words = text_of(finding_list.update(shipped, moment_data(shipped, FITTING)))
    assert "Nothing found that needs attention." in words
    assert "Leaks were not looked for" in words
