"""The HTML report: one file, offline, with the library's numbers and no markup from the trace."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from memscope.analysis import Analysis, load
from memscope.errors import ContradictionError, InputFileError, UsageError
from memscope.oom.verdict import oom_headline
from memscope.replay.compare import compare
from memscope.reports.html import html_report, kv_html, replay_html, write_html_report
from memscope.reports.kv_cache import lens_report
from memscope.units import format_bytes, format_count
from memscope.words.labels import sentence
from memscope.words.replay import verdict_words
from tests.kv_cache.serving_program import Program, generate
from tests.oracles import BAD, REAL, needs_shared
from tests.rank_traces import rank_trace, training
from tests.sampled_trace import counted_training_trace
from tests.training_trace import training_trace

TRACES = Path(__file__).resolve().parents[2] / "traces"


class Reader(HTMLParser):
    """Collects tags, addresses that would be loaded, and the JSON of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.handlers: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in_script = tag == "script"
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if not self._in_script:
            self.texts.append(data.replace("\u00a0", " "))


def read(content: str) -> Reader:
    reader = Reader()
    reader.feed(content)
    return reader


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


@pytest.fixture(scope="module")
def content(analysis: Analysis) -> str:
    return html_report(analysis)


def test_the_ledger_is_printed_to_the_byte(analysis: Analysis, content: str) -> None:
    text = " ".join(read(content).texts)
    for row in analysis.peak(0).ledger.rows:
        if row.bytes:
            assert format_count(row.bytes) in text
    assert f"Peak {format_bytes(analysis.peak(0).allocated_bytes)}" in text


def test_plotly_is_embedded_once_and_nothing_is_loaded(content: str) -> None:
    assert len(re.findall(r"plotly\.js v\d", content)) == 1
    assert read(content).loads == []
    assert "default-src 'none'" in content


def test_names_from_the_trace_stay_text(content: str) -> None:
    reader = read(content)
    assert reader.tags.count("script") == 2 + 2 * 4  # plotly, our own, and two themes of four pictures
    assert reader.handlers == []
    assert "<script>alert(1)</script>" in " ".join(reader.texts)


def test_pictures_are_valid_json(content: str) -> None:
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', content, re.DOTALL)
    assert {name for name, _ in found} == {
        f"{picture}-0-{theme}" for picture in ("ledger", "timeline", "map", "replay") for theme in ("light", "dark")
    }
    for _, text in found:
        assert {"data", "layout"} <= set(json.loads(text))


def test_a_file_is_not_overwritten_unless_asked(analysis: Analysis, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        write_html_report(analysis, path)
    assert path.read_text() == "mine"
    assert write_html_report(analysis, path, overwrite=True).stat().st_size > 1_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_that_is_not_there_is_said(analysis: Analysis, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be written"):
        write_html_report(analysis, tmp_path / "nowhere" / "report.html")


@needs_shared
@pytest.mark.parametrize("name", ["opt-offload-torch2.0-layout", "rlhf-three-pools-no-trace", "lm-windows-midlife"])
def test_what_was_not_recorded_does_not_break_the_report(name: str) -> None:
    text = " ".join(read(html_report(load(REAL / f"{name}.pickle.gz"))).texts)
    assert "not measured" in text
    assert "Can it be trusted?" in text


@needs_shared
def test_a_contradictory_trace_gives_no_report() -> None:
    with pytest.raises(ContradictionError, match="contradicts itself"):
        html_report(load(BAD / "double-free.pickle"))


@needs_shared
def test_hostile_names_stay_text() -> None:
    reader = read(html_report(load(BAD / "hostile-names-but-valid.pickle")))
    assert reader.tags.count("script") == 2 + 2 * 4
    assert reader.handlers == []
    assert "img" not in reader.tags


def test_the_devices_own_count_is_drawn_with_its_rows() -> None:
    found = read(html_report(Analysis(counted_training_trace())))
    words = " ".join(found.texts)
    assert "Other processes hold 90.0 MiB of the device" in words
    assert format_count(90 << 20) in words
    assert "device used" in words
    assert "Sampled at step 3" in words


def test_a_device_that_was_not_sampled_is_said_to_be_not_measured(content: str) -> None:
    assert "What the device holds beyond PyTorch is not measured" in content
    assert "memscope run on a GPU samples the device" in content


def test_a_dry_run_is_not_blamed_for_having_no_device() -> None:
    trace = training_trace()
    dry = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, source="dry-run"))
    assert "What the device holds" not in html_report(Analysis(dry))


def test_a_failed_request_has_its_verdict_with_what_would_have_helped() -> None:
    analysis = load(TRACES / "tiny-out-of-memory.memscope")
    verdict = analysis.oom()
    words = " ".join(read(html_report(analysis)).texts)
    assert "Out of memory" in words
    assert oom_headline(verdict)[1:] in words
    assert verdict.remedies.found
    for change in verdict.remedies.found:
        assert change.text in words
    for text in (*verdict.evidence, *verdict.trust):
        assert text in words


def test_without_a_failed_request_there_is_no_verdict() -> None:
    assert "Out of memory" not in " ".join(read(html_report(Analysis(training_trace(with_oom=False)))).texts)


def test_a_key_value_cache_is_drawn_with_its_layers_caches_and_what_growing_cost() -> None:
    program = Program()
    program.malloc(1 << 30, "<b>an engine's</b>")
    generate(program, prompt=100, n_new=20, n_layers=4, rate_bytes=100_000)
    content = html_report(program.analysis())
    assert 'id="kv-0"' in content
    assert 'id="kv-layers-0"' in content
    assert "DynamicLayer × 4" in content
    assert "It grows by copying: 160 copies moved" in content
    assert "&lt;b&gt;an engine&#x27;s&lt;/b&gt;: " in content
    assert "<b>an engine" not in content


def test_without_a_key_value_cache_there_is_no_section_of_it(content: str) -> None:
    assert 'id="kv-0"' not in content


def headings(content: str) -> list[str]:
    return [re.sub(r"<[^>]+>", "", found) for found in re.findall(r"<h[23][^>]*>(.*?)</h[23]>", content)]


def test_the_page_begins_with_what_follows_and_the_evidence_comes_after(analysis: Analysis, content: str) -> None:
    found = headings(content)
    verdict = analysis.oom()
    assert found[0].replace("\u00a0", " ").lower() == oom_headline(verdict).lower()
    assert found[1:4] == ["Out of memory", "Findings", "Can it be trusted?"]
    assert found[4] == "Ledger"
    calm = headings(html_report(Analysis(training_trace(with_oom=False))))
    assert calm[0].startswith("Peak 35.1\u00a0MiB allocated at step 2, backward")
    assert calm[1:4] == ["Findings", "Can it be trusted?", "Ledger"]


def test_of_several_devices_all_answers_come_first() -> None:
    found = headings(html_report(Analysis(rank_trace(training(10), training(20)))))
    assert [one[:4] for one in found[:4]] == ["Peak", "Find", "Peak", "Find"]
    assert found[4] == "Can it be trusted?"
    assert [one for one in found if one.startswith("GPU ")] == ["GPU 0", "GPU 1"]


def test_a_cache_has_a_page_of_its_own_that_begins_with_what_it_holds() -> None:
    recording = load(TRACES / "tiny-gpt2-generate.memscope")
    reports = [report for report in [lens_report(recording.opinions(0).kv_lens)] if report]
    content = kv_html(recording, reports)
    found = headings(content)
    assert (
        found[0]
        == "280 tokens fill 85.9\u00a0% of the key/value cache of 744.0\u00a0KiB; 105.0\u00a0KiB are old copies"
    )
    assert found[1].startswith("It grows by copying: 138 copies moved")
    assert found[-1] == "Can it be trusted?"
    assert read(content).loads == []
    nothing = kv_html(Analysis(training_trace()), [])
    assert headings(nothing)[0] == "No key/value cache is known of in this trace"


def test_replays_have_a_page_of_their_own_with_what_they_assume() -> None:
    recordings = [Analysis(training_trace()), Analysis(rank_trace(training(10)))]
    compared = [(one, compare(one.device().lifetimes, ("caching", "buddy"), ())) for one in recordings]
    content = replay_html(compared)
    reader = read(content)
    words = " ".join(reader.texts)
    for _, comparison in compared:
        assert sentence(verdict_words(comparison.verdict)) in words
    assert "buddy: the driver is asked for 32 MiB at once" in words
    assert re.findall(r'class="picture" id="([\w-]+)"', content) == ["replay-0", "replay-1"]
    assert reader.loads == []
    assert words.index("Can it be trusted?") > words.index(sentence(verdict_words(compared[0][1].verdict)))
