"""The verbs that report: the JSON contract, the words, the exit codes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.trace.container import write_container
from memscope.trace.schema import NONE_ID
from memscope.trace.snapshot.write import write_snapshot
from memscope.units import format_bytes
from tests.conftest import Outcome
from tests.naive_layout import random_layout
from tests.oracles import BAD, ORACLE, REAL, needs_shared

Run = Callable[..., Outcome]


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    return write_container(random_layout(7, 80).trace(), tmp_path / "run.memscope")


@pytest.fixture
def mid_life_file(tmp_path: Path) -> Path:
    return write_container(random_layout(7, 80).trace(60), tmp_path / "late.memscope")


def test_report_json_has_the_keys_that_scripts_rely_on(memscope: Run, trace_file: Path) -> None:
    outcome = memscope("report", trace_file, "--json")
    assert outcome.code == 0
    report = json.loads(outcome.out)
    assert report["schema_version"] == 1
    assert {"source", "torch_version", "n_events", "settings"} <= set(report["trace"])
    assert {
        "n_events_lost",
        "n_unmatched_frees",
        "preexisting_bytes",
        "n_events_without_stack",
        "warnings",
    } <= set(report["completeness"])
    (device,) = report["devices"]
    assert {"event", "allocated_bytes", "active_bytes", "reserved_bytes"} <= set(device["peak"])
    assert device["ledger"]["total_bytes"] == sum(row["bytes"] for row in device["ledger"]["rows"])
    assert device["ledger"]["total_bytes"] == device["peak"]["reserved_bytes"]
    assert {"attributed_bytes", "unknown_bytes", "by_source"} == set(device["coverage"])
    assert device["fragmentation"]["free_bytes"] == device["peak"]["reserved_bytes"] - device["peak"]["active_bytes"]
    assert report["completeness"]["n_events_lost"] == 0


def test_the_text_report_says_the_same_numbers(memscope: Run, trace_file: Path) -> None:
    report = json.loads(memscope("report", trace_file, "--json").out)["devices"][0]
    text = memscope("report", trace_file).out
    assert format_bytes(report["peak"]["allocated_bytes"]) in text
    assert f"{report['ledger']['total_bytes']:,}" in text
    assert "accounted for" in text


def test_a_recording_that_starts_late_says_so(memscope: Run, mid_life_file: Path) -> None:
    completeness = json.loads(memscope("report", mid_life_file, "--json").out)["completeness"]
    assert completeness["n_events_lost"] is None
    assert completeness["preexisting_bytes"] > 0
    assert any("before the first event" in warning for warning in completeness["warnings"])
    assert "⚠" in memscope("report", mid_life_file).out


@pytest.mark.parametrize("by", ["category", "site", "module"])
def test_peak_groups_sum_to_what_is_in_use(memscope: Run, trace_file: Path, by: str) -> None:
    peak = json.loads(memscope("peak", trace_file, "--by", by, "--json", "--top", 1000).out)
    in_use = sum(r["bytes"] for r in peak["ledger"]["rows"] if r["name"] == "unknown")
    assert sum(row["requested_bytes"] for row in peak["rows"]) == in_use
    assert memscope("peak", trace_file, "--by", by).code == 0


def test_peak_at_an_event(memscope: Run, trace_file: Path) -> None:
    start = json.loads(memscope("peak", trace_file, "--at", NONE_ID, "--json").out)
    assert start["allocated_bytes"] == 0
    outcome = memscope("peak", trace_file, "--at", 10**9)
    assert outcome.code == 1
    assert "event 1000000000 is not in this trace" in outcome.err


def test_frag_names_what_pins_memory(memscope: Run, trace_file: Path) -> None:
    frag = json.loads(memscope("frag", trace_file, "--json").out)
    assert frag["pins"]
    assert frag["pins"][0]["held_bytes"] >= frag["pins"][-1]["held_bytes"]
    assert frag["pins"][0]["blocks"][0]["block_bytes"] > 0
    assert "keep from going back" in memscope("frag", trace_file).out


def test_unknown_devices_and_options_are_one_line_and_exit_1(memscope: Run, trace_file: Path) -> None:
    outcome = memscope("peak", trace_file, "--device", 3)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "memscope: device 3 is not in this trace (it has 0)\n"
    outcome = memscope("report", trace_file, "--nonsense")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1


def test_missing_and_unreadable_files_are_one_line_and_exit_1(memscope: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pickle", tmp_path):
        outcome = memscope("report", path)
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1
        assert str(path) in outcome.err


def test_import_writes_beside_the_input_and_never_overwrites(memscope: Run, tmp_path: Path) -> None:
    snapshot = tmp_path / "snap.pickle"
    write_snapshot(random_layout(3, 30).trace(), snapshot)
    assert memscope("import", snapshot).code == 0
    assert (tmp_path / "snap.memscope").exists()
    again = memscope("import", snapshot)
    assert again.code == 1
    assert "-f" in again.err
    assert memscope("import", snapshot, "-f").code == 0
    left = json.loads(memscope("report", snapshot, "--json").out)["devices"]
    right = json.loads(memscope("report", tmp_path / "snap.memscope", "--json").out)["devices"]
    assert left == right


def test_help_of_every_verb(memscope: Run) -> None:
    from memscope.cli.main import VERBS

    for verb in VERBS:
        outcome = memscope(verb, "--help")
        assert outcome.code == 0
        assert "Usage: memscope" in outcome.out


@needs_shared
@pytest.mark.parametrize("path", sorted(p for p in BAD.glob("*") if p.suffix != ".md"), ids=lambda p: p.name)
def test_bad_inputs_get_one_line_and_their_exit_code(memscope: Run, path: Path) -> None:
    expected = {"blocks-do-not-tile": 3, "double-free": 3, "contradictory-synthetic": 3, "hostile-names-but-valid": 0}
    before = set(os.listdir())  # noqa: PTH208
    outcome = memscope("report", path, "--json")
    code = expected.get(path.name.split(".")[0], 1)
    assert outcome.code == code
    assert set(os.listdir()) == before  # noqa: PTH208
    if code:
        assert path.name in outcome.err
        assert outcome.err.count("\n") == 1
    if code == 3:
        report = json.loads(outcome.out)
        assert report["completeness"]["contradictions"]
        assert report["devices"] == []
    if code == 1:
        assert outcome.out == ""


@needs_shared
@pytest.mark.parametrize("path", sorted([*REAL.glob("*.gz"), *ORACLE.glob("*/*.gz")]), ids=lambda p: p.name)
def test_every_real_snapshot_gets_a_ledger_that_closes(memscope: Run, path: Path) -> None:
    outcome = memscope("report", path, "--json")
    assert outcome.code == 0
    report = json.loads(outcome.out)
    assert report["devices"]
    for device in report["devices"]:
        ledger = device["ledger"]
        assert ledger["total_bytes"] == sum(row["bytes"] for row in ledger["rows"]) > 0
        assert ledger["total_bytes"] == device["peak"]["reserved_bytes"]


def test_without_a_verb_the_help_is_shown(memscope: Run) -> None:
    outcome = memscope()
    assert outcome.code == 1
    assert outcome.err.startswith("Usage: memscope")
    assert "verify" in outcome.err


def test_bad_usage_names_the_help_to_read(memscope: Run) -> None:
    assert memscope("report").err == "memscope: Missing argument 'TRACE' (memscope report --help says how)\n"
    assert memscope("bogus").err.startswith("memscope: No such command 'bogus'")
