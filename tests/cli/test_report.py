"""``memscope report``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.analysis import load
from memscope.trace.container import write_container
from memscope.trace.snapshot.write import write_snapshot
from memscope.units import format_bytes
from tests.attribution.scripted import with_old_workspace
from tests.conftest import Outcome
from tests.naive_layout import random_layout
from tests.oracles import ORACLE, REAL, needs_shared

Run = Callable[..., Outcome]
SHIPPED = Path(__file__).parents[2] / "traces"


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
    assert {"attributed_bytes", "unknown_bytes", "by_source", "inferred"} == set(device["coverage"])
    assert device["fragmentation"]["free_bytes"] == device["peak"]["reserved_bytes"] - device["peak"]["active_bytes"]
    assert report["completeness"]["n_events_lost"] == 0


def test_the_text_report_says_the_same_numbers(memscope: Run, trace_file: Path) -> None:
    report = json.loads(memscope("report", trace_file, "--json").out)["devices"][0]
    text = memscope("report", trace_file).out
    assert format_bytes(report["peak"]["allocated_bytes"]) in text
    assert f"{report['ledger']['total_bytes']:,}" in text
    assert "accounted for" in text


def test_what_is_inferred_stands_with_its_evidence_in_every_report(memscope: Run, tmp_path: Path) -> None:
    old = write_container(with_old_workspace(), tmp_path / "old.memscope")
    coverage = json.loads(memscope("report", old, "--json").out)["devices"][0]["coverage"]
    (told,) = coverage["inferred"]
    assert coverage["by_source"]["inferred"] == told["bytes"] == 8_519_680
    assert (told["category"], told["confidence"], told["n_allocations"]) == ("workspace", 0.99, 1)
    text = " ".join(memscope("report", old).out.split())
    assert "workspace 8.1 MiB inferred, 99 % sure" in text
    page = tmp_path / "old.html"
    assert memscope("report", old, "-o", page).code == 0
    assert told["evidence"] in page.read_text()
    assert "99 % sure" in page.read_text()


def test_a_recording_that_starts_late_says_so(memscope: Run, mid_life_file: Path) -> None:
    completeness = json.loads(memscope("report", mid_life_file, "--json").out)["completeness"]
    assert completeness["n_events_lost"] is None
    assert completeness["preexisting_bytes"] > 0
    assert any("before the first event" in warning for warning in completeness["warnings"])
    assert "⚠" in memscope("report", mid_life_file).out


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


@pytest.mark.parametrize("of", ["memscope", "pickle"])
@pytest.mark.parametrize("option", [("--events", "700:1500"), ("--steps", "1:1")])
def test_a_part_is_reported_as_its_slice_is(memscope: Run, tmp_path: Path, of: str, option: tuple[str, str]) -> None:
    trace = SHIPPED / "tiny-llama-train.memscope"
    if of == "pickle":
        trace = write_snapshot(load(trace).trace, tmp_path / "run.pickle")
    cut = tmp_path / "cut.memscope"

    def unnamed(text: str) -> str:
        return text.replace(trace.name, "").replace(cut.name, "")

    assert memscope("slice", trace, *option, "-o", cut).code == 0
    part, sliced = memscope("report", trace, *option, "--json"), memscope("report", cut, "--json")
    assert (part.code, sliced.code) == (0, 0)
    assert unnamed(part.out) == unnamed(sliced.out)
    told, of_slice = memscope("report", trace, *option), memscope("report", cut)
    assert unnamed(told.out) == unnamed(of_slice.out)
    imported = tmp_path / "imported.memscope"
    assert memscope("import", trace, *option, "-o", imported).code == 0
    assert load(imported).trace.n_events == load(cut).trace.n_events


def test_a_part_that_there_is_not_is_one_line(memscope: Run) -> None:
    outcome = memscope("report", SHIPPED / "tiny-llama-train.memscope", "--events", "5:1")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.count("\n") == 1
    assert "are not in tiny-llama-train.memscope" in outcome.err
