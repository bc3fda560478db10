"""What follows from a recording beside its replays, and which replays are made for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from memscope.device.limits import Limits
from memscope.errors import UsageError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.compare import (
    DEFAULT_CONFS,
    Comparison,
    compare,
    compare_confs,
    default_confs,
    preferred,
    recorded_run,
)
from memscope.replay.result import ReplayResult
from memscope.trace.metadata import TraceMetadata
from memscope.units import GiB
from memscope.words.replay import calibration_words, verdict_words
from tests.replay.comparisons import FAILED, OTHER, bound_of, comparison_of, result_of
from tests.training_trace import training_trace


def training_lifetimes(**changes: object) -> DeviceLifetimes:
    trace = training_trace()
    metadata: TraceMetadata = dataclasses.replace(trace.metadata, **changes)  # type: ignore[arg-type]
    return DeviceLifetimes(dataclasses.replace(trace, metadata=metadata), 0)


def test_only_what_is_below_both_the_recording_and_its_replay_counts_as_saved() -> None:
    # Recorded 10, replayed 11: the best is below the replay, but not below what the program really needed.
    verdict = comparison_of(10 * GiB, result_of("", 11 * GiB), result_of(OTHER, int(10.1 * GiB))).verdict
    assert verdict.kind == "none helps"
    assert verdict.baseline_bytes == 10 * GiB
    # Recorded 10, replayed 8: the replay's own error is no saving either.
    verdict = comparison_of(10 * GiB, result_of("", 8 * GiB), result_of(OTHER, 8 * GiB), bound_of(6 * GiB)).verdict
    assert (verdict.kind, verdict.saved_bytes, verdict.above_bound_bytes) == ("none helps", 0, 2 * GiB)
    verdict = comparison_of(10 * GiB, result_of("", 11 * GiB), result_of(OTHER, 8 * GiB)).verdict
    assert (verdict.kind, verdict.saved_bytes) == ("saves", 2 * GiB)
    assert verdict.best is not None
    assert verdict.best.conf == OTHER


def test_of_settings_as_good_as_the_best_the_simplest_is_chosen() -> None:
    low, switch = result_of("max_split_size_mb:24,roundup_power2_divisions:4", 8000), result_of(OTHER, 8010)
    assert preferred([low, switch]) is switch
    assert preferred([low, result_of(OTHER, 8100)]) is low
    assert preferred([low, dataclasses.replace(switch, n_ooms=1)]) is low
    assert preferred([low, dataclasses.replace(switch, n_retries=1)]) is low
    assert preferred([low, result_of(OTHER, 7000, oom=FAILED)]) is low
    assert preferred([result_of(OTHER, 7000, oom=FAILED)]) is None


def test_after_a_failure_another_setting_fits_or_nothing_is_proved() -> None:
    def after_failure(*results: ReplayResult, event: int = FAILED.event, **changes: Any) -> Comparison:
        found = comparison_of(10 * GiB, *results, **changes)
        return dataclasses.replace(found, recorded=dataclasses.replace(found.recorded, n_ooms=1, fatal_event=event))

    failed, other = result_of("", 9 * GiB, oom=FAILED), result_of(OTHER, 10 * GiB)
    assert after_failure(failed, other).verdict.kind == "only another fits"
    assert after_failure(other, conf="not:covered").verdict.kind == "only another fits"
    assert after_failure(failed).verdict.kind == "none fits"
    # The recorded peak is without the request that failed: nothing is saved against it.
    assert after_failure(failed, other).saved_bytes(other) is None
    served = after_failure(result_of("", 9 * GiB), other)
    assert served.verdict.kind == "not reproduced"
    assert "cannot be trusted" in verdict_words(served.verdict)
    assert "is served that failed in the recording" in calibration_words(served)
    elsewhere = after_failure(failed, other, event=3)
    assert elsewhere.verdict.kind == "not reproduced"
    assert f"memory runs out at event {FAILED.event}, not at event 3" in calibration_words(elsewhere)
    went_on = comparison_of(10 * GiB, failed, other)
    assert went_on.verdict.kind == "not reproduced"
    assert "where the recording went on" in calibration_words(went_on)
    # On a larger device the request is served, and savings count from what is needed there.
    larger = after_failure(result_of("", 12 * GiB), result_of(OTHER, 11 * GiB), limits=Limits(80 * GiB))
    assert (larger.verdict.kind, larger.verdict.baseline_bytes, larger.verdict.saved_bytes) == ("saves", 12 * GiB, GiB)
    assert calibration_words(larger).startswith("These replays are for another device than the recorded one")
    smaller = comparison_of(10 * GiB, failed, other, limits=Limits(9 * GiB))
    assert calibration_words(smaller).startswith("These replays are for another device than the recorded one")


def test_nothing_is_exact_where_the_recorded_settings_do_not_come_to_the_recorded_bytes() -> None:
    def exactness(*results: ReplayResult, **changes: Any) -> list[str]:
        return [result.exactness for result in comparison_of(10 * GiB, *results, **changes).results]

    assert exactness(result_of("", 10 * GiB), result_of(OTHER, 8 * GiB)) == ["exact", "exact"]
    assert exactness(result_of("", 11 * GiB), result_of(OTHER, 8 * GiB), bound_of(GiB)) == [
        "modelled",
        "modelled",
        "bound",
    ]
    assert exactness(result_of("", 10 * GiB, oom=FAILED), result_of(OTHER, 8 * GiB)) == ["modelled", "modelled"]
    # Without the recorded settings nothing is known against it, and another device is not the recorded one.
    assert exactness(result_of(OTHER, 8 * GiB)) == ["exact"]
    assert exactness(result_of("", 11 * GiB), limits=Limits(80 * GiB)) == ["exact"]


def test_settings_that_serve_what_failed_go_before_those_that_reserve_less() -> None:
    def refusing(result: ReplayResult, n_ooms: int) -> ReplayResult:
        return dataclasses.replace(result, n_ooms=n_ooms)

    as_recorded, lean = refusing(result_of("", 10 * GiB), 7), refusing(result_of("roundup_power2_divisions:4", GiB), 8)
    served = comparison_of(10 * GiB, as_recorded, lean, refusing(result_of(OTHER, 10 * GiB), 2)).verdict
    assert (served.kind, served.n_served, served.n_failed) == ("serves more", 5, 7)
    assert (
        verdict_words(served) == f"of these, {OTHER} would serve 5 of 7 requests that fail under the recorded settings"
    )
    none = comparison_of(10 * GiB, as_recorded, refusing(result_of(OTHER, 10 * GiB), 7)).verdict
    assert none.kind == "none helps"


def test_what_something_in_the_recording_refuses_is_not_compared_by_default() -> None:
    lifetimes = training_lifetimes()
    strings = (*lifetimes.trace.strings, "/usr/lib/vllm/device_allocator/cumem.py")
    pooled = DeviceLifetimes(dataclasses.replace(lifetimes.trace, strings=strings), 0)
    assert "expandable_segments:True" in default_confs(lifetimes)
    assert set(default_confs(lifetimes)) - set(default_confs(pooled)) == {"expandable_segments:True"}


def test_the_recorded_settings_are_known_however_they_are_written() -> None:
    ours = result_of("expandable_segments:True,max_split_size_mb:200", 10 * GiB)
    assert comparison_of(10 * GiB, ours, conf="max_split_size_mb:200, expandable_segments:True").as_recorded is ours
    assert comparison_of(10 * GiB, ours, conf="max_split_size_mb:20").as_recorded is None
    assert comparison_of(10 * GiB, ours, conf=None).as_recorded is None


def test_modelled_allocators_and_bounds_are_no_settings_to_recommend() -> None:
    buddy = result_of(None, 1 * GiB, strategy="buddy", exactness="modelled")
    ours = result_of("", 10 * GiB)
    assert comparison_of(10 * GiB, ours, buddy, bound_of(1 * GiB)).best is ours
    assert comparison_of(10 * GiB, buddy).verdict.kind == "none replayed"


def test_a_replay_that_runs_out_of_memory_is_neither_best_nor_a_baseline() -> None:
    failed = result_of("", 9 * GiB, oom=FAILED)
    other = result_of(OTHER, 10 * GiB)
    both = comparison_of(10 * GiB, failed, other, limits=Limits(10 * GiB))
    assert (both.best, both.as_recorded, both.replayed) == (other, failed, None)
    assert both.verdict.kind == "only another fits"
    assert both.ranked == (other, failed)
    assert both.saved_bytes(failed) is None
    assert comparison_of(10 * GiB, failed).verdict.kind == "none fits"


def test_without_a_recorded_peak_nothing_is_compared() -> None:
    unmeasured = comparison_of(None, result_of("", 10 * GiB))
    assert unmeasured.verdict.kind == "not measured"
    assert unmeasured.saved_bytes(unmeasured.results[0]) is None
    assert unmeasured.recorded.efficiency_frac is None


def test_the_recorded_settings_are_replayed_first_and_each_setting_once() -> None:
    found: Comparison = compare_confs(training_lifetimes(alloc_conf="max_split_size_mb:128"))
    confs = [result.conf for result in found.results]
    assert confs[0] == "max_split_size_mb:128"
    assert sorted(confs[:-1]) == sorted(DEFAULT_CONFS)  # type: ignore[type-var]
    assert found.results[-1] is found.lower_bound
    assert found.replayed is found.results[0]
    assert default_confs(training_lifetimes(memory_fraction={0: 0.5}))[-1] == "garbage_collection_threshold:0.8"


def test_a_report_and_the_command_line_compare_the_same_numbers() -> None:
    lifetimes = training_lifetimes()
    report, command = compare_confs(lifetimes), compare(lifetimes, ("caching", "lower-bound"))
    assert [r.peak_reserved_bytes for r in report.results] == [r.peak_reserved_bytes for r in command.results]
    assert (report.recorded, report.limits) == (command.recorded, command.limits)
    assert report.recorded == recorded_run(lifetimes)


def test_settings_that_cannot_be_replayed_are_said_in_a_report_and_refused_when_asked_for() -> None:
    lifetimes = training_lifetimes(alloc_conf="backend:cudaMallocAsync")
    found = compare_confs(lifetimes)
    (refused,) = found.refused
    assert refused.conf == "backend:cudaMallocAsync"
    assert "async-pool" in refused.reason
    assert found.replayed is None
    with pytest.raises(UsageError, match="async-pool"):
        compare(lifetimes, ("caching",))


def test_settings_need_a_strategy_that_takes_them() -> None:
    with pytest.raises(UsageError, match="no allocator settings"):
        compare(training_lifetimes(), ("lower-bound",), (OTHER,))


def test_the_verdict_on_a_real_comparison_follows_from_its_numbers() -> None:
    comparison = compare(training_lifetimes(), ("caching", "lower-bound"))
    best, recorded, bound = comparison.best, comparison.recorded.peak_reserved_bytes, comparison.lower_bound
    assert best is not None
    assert bound is not None
    assert bound.peak_reserved_bytes == int(training_lifetimes().usage.requested_bytes.max())
    assert all(result.peak_reserved_bytes >= bound.peak_reserved_bytes for result in comparison.results)
    saved = min(recorded or 0, (comparison.replayed or best).peak_reserved_bytes) - best.peak_reserved_bytes
    assert (comparison.verdict.kind == "saves") == (saved > 0.02 * (recorded or 0))
