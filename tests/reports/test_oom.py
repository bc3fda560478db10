"""The verdict on a failed request as text, as JSON and as markup."""

from __future__ import annotations

import dataclasses
import io
import json
import re

from rich.console import Console

from memscope.analysis import Analysis
from memscope.reports.oom import oom_html, oom_json, print_oom
from memscope.units import MiB
from tests.oom.planted import Program, holes_between_pins, plant
from tests.training_trace import training_trace


def test_several_failed_requests_are_named_with_the_command_that_judges_each() -> None:
    analysis = Analysis(plant("capacity", 1).trace())
    first = analysis.oom()
    verdict = dataclasses.replace(first, events=(*first.events, 7))
    assert "another request failed at event 7 (memscope oom judges each)" in oom_html(analysis, verdict)


def test_names_in_a_verdict_are_no_markup() -> None:
    analysis = Analysis(training_trace())
    content = oom_html(analysis, analysis.oom())
    assert set(re.findall(r"<(\w+)", content)) <= {"p", "b", "ul", "li", "span"}
    assert "&lt;script&gt;" in content


def test_the_text_has_the_verdict_where_memory_was_free_and_what_helps() -> None:
    analysis = Analysis(holes_between_pins(Program(256 * MiB)).trace())
    out = io.StringIO()
    print_oom(analysis, analysis.oom(), Console(file=out, width=160))
    text = out.getvalue()
    assert text.startswith("External fragmentation: 60.0 MiB asked, 210.0 MiB free in pieces of at most 50.0 MiB\n")
    assert re.search(r"default +default +large +256\.0 MiB +210\.0 MiB .* 50\.0 MiB +may use it", text)
    assert re.search(r"46\.0 MiB +4 +unknown +no owner or stack recorded", text)
    assert "✓ this block (10.0 MiB) freed before the request  (checked by replay)" in text


def test_the_json_has_the_numbers_and_null_where_nothing_failed() -> None:
    analysis = Analysis(holes_between_pins(Program(256 * MiB)).trace())
    content = json.loads(json.dumps(oom_json(analysis, analysis.oom())))
    assert (content["verdict"], content["event"], content["pool"]) == ("external-fragmentation", 32, [0, 0])
    assert (content["requested_bytes"], content["free_bytes"]) == (60 * MiB, 210 * MiB)
    assert (content["largest_free_block_bytes"], content["packed_bytes"]) == (50 * MiB, 106 * MiB)
    assert content["counterfactual"] == content["counterfactuals"][0]
    served = Analysis(training_trace(with_oom=False))
    content = oom_json(served, served.oom())
    assert (content["verdict"], content["requested_bytes"], content["limit"]) == ("no-oom", None, None)
    assert (content["groups"], content["owners"], content["counterfactual"]) == ([], [], None)
