"""Fragmentation as text and as JSON."""

from __future__ import annotations

import io
import re

from rich.console import Console

from memscope.analysis import Analysis
from memscope.device.device import Moment
from memscope.reports.fragmentation import fragmentation_json, print_fragmentation
from tests.rank_traces import MiB, rank_trace, training
from tests.training_trace import training_trace


def printed(moment: Moment, *, over_time: bool = False) -> str:
    out = io.StringIO()
    print_fragmentation(moment, 2, Console(file=out, width=160), over_time=over_time)
    return out.getvalue()


def test_the_text_has_the_groups_and_what_pins_them() -> None:
    text = printed(Analysis(training_trace()).peak(0), over_time=True)
    assert "Device 0 after event 120 (step 2, backward): 35.1 MiB allocated, 42.0 MiB reserved" in text
    assert re.search(r"default +default +large +40\.0 MiB +35\.0 MiB +2\.0 KiB +0 B +5\.0 MiB +3\.0 MiB +0\.40\n", text)
    assert re.search(r"3\.0 MiB +20\.0 MiB +17\.0 MiB +5 .* activations: layers\.0 output", text)
    assert "efficiency: 83.5 %, peak active 35.1 MiB of peak reserved 42.0 MiB" in text


def test_a_pin_returns_what_it_holds_and_what_it_is() -> None:
    content = fragmentation_json(Analysis(training_trace()).peak(0), 2)
    for pin in content["pins"]:
        assert pin["returned_bytes"] == pin["segment_bytes"] == pin["held_bytes"] + pin["pinning_bytes"] == 20 * MiB
        assert sum(block["block_bytes"] for block in pin["blocks"]) == pin["pinning_bytes"]
    assert content["over_time"]["worst"][0]["where"] == "step 0"


def test_without_segments_it_is_not_measured() -> None:
    peak = Analysis(rank_trace(training(10), has_segment_events=False)).peak(0)
    assert "fragmentation is not measured: the segments were not recorded" in printed(peak)
    content = fragmentation_json(peak, 2)
    assert (content["fragmentation"], content["pins"], content["over_time"]) == (None, [], None)


def test_the_age_of_a_pin_says_what_its_numbers_count() -> None:
    text = printed(Analysis(training_trace()).peak(0))
    assert re.search(r" \d+ events, .*from step \d ", text)


def test_the_moment_says_what_it_is_if_it_is_not_that_of_the_report() -> None:
    device = Analysis(training_trace()).device(0)
    text = printed(device.fragmentation_moment())
    assert "this is the peak of reserved; memscope report is of the peak of allocated, after event 120" in text.replace(
        "\n", " "
    )
    assert "memscope report is of" not in printed(device.peak())
