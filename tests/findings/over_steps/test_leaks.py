"""The labelled leak suite: every planted leak is found, and nothing is called one that is none."""

from __future__ import annotations

import pytest

from memscope.findings.finding import Severity
from memscope.trace.categories import Category
from tests.findings.programs import CLEAN, COLUMNS, LEAKING, Training, record, skips_a_step_in_ten, torch
from tests.findings.traces import of_kind

KiB, MiB = 1 << 10, 1 << 20
slow = pytest.mark.slow


@pytest.mark.parametrize("n_steps", [5, 10, pytest.param(50, marks=slow)])
@pytest.mark.parametrize("kind", LEAKING)
def test_a_planted_leak_is_found(kind: str, n_steps: int) -> None:
    analysis = record(LEAKING[kind], n_steps)
    leaks = of_kind(analysis.opinions(0).findings, "leak")
    assert leaks
    assert all("programs.py" in leak.sites[0] for leak in leaks)
    total = sum(leak.evidence["bytes_per_step"] for leak in leaks)
    # A loss's graph keeps what the backward pass needs: tanh's output (1 MiB), ReLU's (128 KiB), the input (64 KiB).
    assert total == MiB + (192 * KiB if kind == "losses" else 0)
    for leak in leaks:
        assert leak.bytes >= leak.evidence["bytes_per_step"] * (leak.evidence["n_steps_judged"] - 1)
        assert leak.evidence["confidence"] == ("high" if n_steps >= 10 else "medium")
    assert leaks[0].severity is Severity.SEVERE


def test_what_several_leaks_return_together_is_said_and_is_no_sum() -> None:
    def keeps_two(training: Training, step: int) -> None:
        training.cache[step] = torch.zeros(512, COLUMNS, device="cuda")
        training.kept.append(torch.zeros(256, COLUMNS, device="cuda"))
        training.update(training.loss()[0])

    leaks = of_kind(record(keeps_two, 20).opinions(0).findings, "leak")
    alone = [leak.returned_bytes for leak in leaks]
    assert len(leaks) > 1
    together = leaks[0].evidence["returned_together_bytes"]
    assert max(alone) <= together <= sum(leak.evidence["live_bytes"] for leak in leaks) + 20 * MiB
    assert f"All {len(leaks)} places that keep more, mended together" in leaks[0].text
    assert not any("mended together" in leak.text for leak in leaks[1:])
    (one,) = of_kind(record(LEAKING["cache"], 20).opinions(0).findings, "leak")
    assert "mended together" not in one.text


@pytest.mark.parametrize("kind", LEAKING)
def test_two_steps_prove_nothing(kind: str) -> None:
    findings = record(LEAKING[kind], 2).opinions(0).findings
    assert not of_kind(findings, "leak")
    assert any("2 steps recorded" in note for note in findings.notes)


@pytest.mark.parametrize("n_steps", [2, 5, 12, pytest.param(50, marks=slow)])
@pytest.mark.parametrize("kind", CLEAN)
def test_a_clean_run_has_no_leak(kind: str, n_steps: int) -> None:
    findings = record(CLEAN[kind], n_steps).opinions(0).findings
    assert not of_kind(findings, "leak"), [f.title for f in findings.findings]
    assert not of_kind(findings, "larger-each-step")


def test_fifty_clean_steps_have_no_leak_and_fifty_leaking_ones_have_one() -> None:
    assert not of_kind(record(CLEAN["lengths"], 50).opinions(0).findings, "leak")
    (leak,) = of_kind(record(LEAKING["cache"], 50).opinions(0).findings, "leak")
    assert leak.evidence["bytes_per_step"] == MiB


def test_a_clean_run_with_momentum_has_no_leak() -> None:
    assert not of_kind(record(CLEAN["plain"], 6, optimizer="SGD").opinions(0).findings, "leak")


def test_leaks_are_found_without_marks() -> None:
    (leak,) = of_kind(record(LEAKING["cache"], 10, marked=False).opinions(0).findings, "leak")
    assert leak.evidence["bytes_per_step"] == MiB
    assert leak.evidence["steps_from"] != "marks"
    assert not of_kind(record(CLEAN["last-output"], 10, marked=False).opinions(0).findings, "leak")


def test_a_leak_that_skips_a_step_now_and_then_is_found() -> None:
    (leak,) = of_kind(record(skips_a_step_in_ten, 25).opinions(0).findings, "leak")
    assert leak.evidence["n_steps_grown"] == leak.evidence["n_steps_judged"] - 1 == 11
    assert leak.evidence["confidence"] == "medium"


def test_a_buffer_that_is_joined_each_step_is_named_once_and_is_no_leak() -> None:
    def extends(training: Training, step: int) -> None:
        new = torch.zeros(256, COLUMNS, device="cuda")
        training.last = new if training.last is None else torch.cat([training.last, new])
        training.update(training.loss()[0])

    findings = record(extends, 10).opinions(0).findings
    assert not of_kind(findings, "leak")
    assert not of_kind(findings, "larger-each-step")
    (joined,) = of_kind(findings, "outputs-joined")
    assert joined.evidence["largest_bytes"] == 10 * MiB


def test_a_buffer_that_is_made_larger_each_step_is_named_without_claiming_a_leak() -> None:
    def extends(training: Training, step: int) -> None:
        training.last = None
        training.last = torch.zeros(256 * (step + 1), COLUMNS, device="cuda")
        training.update(training.loss()[0])

    findings = record(extends, 10).opinions(0).findings
    assert not of_kind(findings, "leak")
    (grown,) = of_kind(findings, "larger-each-step")
    assert grown.evidence["bytes_per_step"] == MiB


def test_a_leak_far_below_the_threshold_is_not_reported() -> None:
    def logs(training: Training, step: int) -> None:
        loss, _ = training.loss()
        training.update(loss)
        training.kept.append(loss.detach())

    assert not of_kind(record(logs, 20).opinions(0).findings, "leak")


def test_a_kv_cache_that_grows_by_entries_is_not_called_a_leak() -> None:
    import memscope

    def generates(training: Training, step: int) -> None:
        with torch.no_grad(), memscope.tag("kv_cache"):
            training.kept.append(torch.zeros(256, COLUMNS, device="cuda"))

    analysis = record(generates, 12)
    assert analysis.peak(0).coverage.by_source["user"] == 12 * MiB
    assert Category.KV_CACHE in analysis.device(0).attribution.category
    assert not of_kind(analysis.opinions(0).findings, "leak")
    (kept,) = of_kind(analysis.opinions(0).findings, "kv-kept")
    assert kept.evidence["bytes_per_step"] == MiB


def test_a_kv_cache_that_is_copied_for_every_token_is_named_so_and_is_no_leak() -> None:
    import memscope

    def generates(training: Training, step: int) -> None:
        with torch.no_grad(), memscope.tag("kv_cache"):
            new = torch.zeros(64, COLUMNS, device="cuda")
            training.last = new if training.last is None else torch.cat([training.last, new])

    findings = record(generates, 20).opinions(0).findings
    assert not of_kind(findings, "leak")
    assert not of_kind(findings, "larger-each-step")
    (grows,) = of_kind(findings, "kv-growth")
    # From 1 to 20 pieces of 256 KiB; the new pieces that each copy takes in are of one size, and replace nothing.
    assert grows.evidence["n_copies"] == 19
    assert grows.evidence["moved_bytes"] == sum(range(1, 20)) * 256 * KiB
