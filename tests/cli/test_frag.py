"""``memscope frag`` and the findings of ``memscope report``, as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.analysis import load
from memscope.trace.builder import TraceBuilder
from memscope.trace.container import write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from memscope.units import format_bytes
from tests.conftest import Outcome
from tests.replay.recordings import Recorder
from tests.training_trace import HOSTILE, training_trace

MiB = 1 << 20
TRAIN = Path(__file__).resolve().parents[2] / "traces" / "tiny-llama-train.memscope"


@pytest.fixture
def fragmented(tmp_path: Path) -> Path:
    recorder = Recorder()
    pairs = [(recorder.allocator.malloc(2 * MiB), recorder.allocator.malloc(7 * MiB)) for _ in range(60)]
    for _, large in pairs:
        recorder.allocator.free(large)
    for _ in range(40):
        recorder.allocator.malloc(30 * MiB)
    path = tmp_path / "fragmented.memscope"
    write_container(recorder.trace(), path)
    return path


def test_frag_names_the_pins_and_what_they_give_back(memscope) -> None:
    outcome = memscope("frag", TRAIN)
    assert outcome.code == 0
    assert "Free memory that live blocks keep from going back" in outcome.out
    assert "gives back" in outcome.out
    assert "exp_avg_sq of" in outcome.out
    assert "step 0" in outcome.out
    assert "Over time" not in outcome.out


def test_frag_over_time_shows_means_an_outline_and_the_worst_moments(memscope) -> None:
    out = memscope("frag", TRAIN, "--over-time").out
    assert "utilisation: " in out
    assert "the mean over all events (over time: not measured)" in out
    assert "Moments with most free memory that could not go back" in out
    outline = next(line for line in out.splitlines() if line.startswith("  reserved  "))
    reserved = load(TRAIN).device(0).usage.reserved_bytes
    at_most = int(reserved.max())
    bars = outline.split("  at most")[0].removeprefix("  reserved  ").strip()
    top = float((reserved > at_most * 15 / 16).mean())
    assert bars.count("█") / len(bars) == pytest.approx(top, abs=0.05)
    assert f"at most {format_bytes(at_most)}" in outline


def test_frag_json_has_the_series_in_brief_and_closes(memscope) -> None:
    content = json.loads(memscope("frag", TRAIN, "--json").out)
    over_time, analysis = content["over_time"], load(TRAIN)
    usage = analysis.device(0).usage
    assert (
        over_time["peak_reserved_bytes"]
        == int(usage.reserved_bytes.max())
        == max(over_time["outline"]["reserved_bytes"])
    )
    assert over_time["mean_utilisation_by_time_frac"] is None
    assert len(over_time["outline"]["event"]) == 200
    for worst in over_time["worst"]:
        state = analysis.at(worst["event"], 0).fragmentation.overall
        assert worst["pinned_bytes"] == state.free_in_split_segments_bytes
        assert worst["largest_free_block_bytes"] == state.largest_free_block_bytes
    for pin in content["pins"]:
        assert pin["returned_bytes"] > pin["held_bytes"] > 0
        assert len(pin["rows"]) == pin["n_blocks"]
        assert pin["blocks"][0]["age_events"] > 0


def test_frag_without_segments_says_so(memscope, tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.add_event(Action.ALLOC, address=1 << 40, size_bytes=2 * MiB)
    segment = builder.add_segment(address=1 << 40, size_bytes=2 * MiB, is_large=True)
    builder.add_block(segment, address=1 << 40, size_bytes=2 * MiB, requested_bytes=2 * MiB, state=0)
    path = tmp_path / "bare.memscope"
    write_container(builder.build(TraceMetadata(source="synthetic", has_segment_events=False)), path)
    outcome = memscope("frag", path, "--over-time")
    assert outcome.code == 0
    assert "fragmentation is not measured" in outcome.out
    content = json.loads(memscope("frag", path, "--json").out)
    assert content["over_time"] is None
    assert content["pins"] == []


def test_report_lists_findings_in_text_json_and_html(memscope, fragmented: Path, tmp_path: Path) -> None:
    text = memscope("report", fragmented).out
    assert "Findings" in text
    assert "free but pinned" in text
    assert "leaks were not looked for" in text
    content = json.loads(memscope("report", fragmented, "--json").out)
    (found,) = [finding for finding in content["findings"] if finding["kind"] == "fragmentation"]
    assert found["severity"] in ("warning", "severe")
    assert found["bytes"] > 64 * MiB
    assert found["device"] == 0
    assert content["devices"][0]["findings"] == content["findings"]
    page = tmp_path / "report.html"
    assert memscope("report", fragmented, "-o", page).code == 0
    assert found["title"] in page.read_text()


def test_report_says_when_nothing_was_found(memscope, tmp_path: Path) -> None:
    path = tmp_path / "small.memscope"
    write_container(training_trace(with_oom=False), path)
    assert "Nothing found that needs attention." in memscope("report", path).out
    assert json.loads(memscope("report", path, "--json").out)["findings"] == []


def test_names_in_findings_are_escaped_in_the_page(tmp_path: Path) -> None:
    from memscope.findings.finding import Finding, Findings, Severity
    from memscope.reports.text import findings_html

    finding = Finding("leak", Severity.SEVERE, 0, f"Leak at {HOSTILE}", HOSTILE, 1, 3)
    page = findings_html(Findings(0, (finding,), (HOSTILE,)))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_every_line_of_text_fits_the_width(memscope, fragmented: Path) -> None:
    for arguments in (("frag", fragmented, "--over-time"), ("report", fragmented)):
        out = memscope(*arguments).out
        assert max(len(line.rstrip()) for line in out.splitlines()) <= 120


Run = Callable[..., Outcome]


def test_frag_names_what_pins_memory(memscope: Run, trace_file: Path) -> None:
    frag = json.loads(memscope("frag", trace_file, "--json").out)
    assert frag["pins"]
    assert frag["pins"][0]["held_bytes"] >= frag["pins"][-1]["held_bytes"]
    assert frag["pins"][0]["blocks"][0]["block_bytes"] > 0
    assert "keep from going back" in memscope("frag", trace_file).out
