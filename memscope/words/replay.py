"""Replays in words: what follows from a comparison or a search, and how far its numbers can be trusted."""

from __future__ import annotations

from memscope.advise.tune import NEAR_BOUND_FRAC, Tuning
from memscope.device.limits import Limits
from memscope.replay.compare import NEGLIGIBLE_FRAC, Comparison, RecordedRun, Verdict
from memscope.replay.result import ReplayOom, ReplayResult
from memscope.trace.schema import NONE_ID
from memscope.units import format_alike, format_bytes, format_count, format_fraction, format_items

RECORDED = "recorded"
REPLAYED = "recorded settings, replayed"

COST_WORDS = "their cost a rough estimate (it leaves out what they wait for)"
LEGEND = (
    "reserved: the peak; saved: against the recording; efficiency: peak active / peak reserved",
    f"calls: the driver's, {COST_WORDS}; retries: requests served only after a reclaim",
    "exact = PyTorch's own decisions for these requests; modelled = under named assumptions; bound = a lower limit",
)

CAP_WORDS = "a fraction is PyTorch's own: strategies other than caching may take the whole device"

NOT_SAVED_WORDS = "nothing is saved against the recording: its peak is without the request that failed"
PREFERRED_WORDS = "recommended: the simplest of the settings whose peak is within 0.2 % of the lowest"
TUNE_WORDS = "memscope tune searches PyTorch's own options further, and recommends one line"

SHORT_LEGEND = (
    "saved: against the recorded peak; efficiency: peak active / peak reserved; calls: the driver's, their cost rough",
    LEGEND[2],
)
"""What the columns mean, where the rest is told elsewhere."""

_NOT_RECORDED = (
    "nothing is recommended: no allocation was recorded, only what was live at the end, and not in what order it came"
)
_SMALLEST_FRAC = 0.0005
"""The smallest change that one decimal of a percentage can show."""


def verdict_words(verdict: Verdict) -> str:
    """What follows from a comparison, in one sentence without its capital and its full stop."""
    best = verdict.best
    if best is None or verdict.baseline_bytes is None or verdict.saved_bytes is None:
        return _uncompared_words(verdict)
    how = best.conf or "the default settings"
    if verdict.kind == "saves":
        share = format_fraction(verdict.saved_bytes / verdict.baseline_bytes)
        return f"of these, {how} would reserve {format_bytes(verdict.saved_bytes)} less ({share})"
    if verdict.above_bound_bytes is not None:
        within = format_bytes(verdict.above_bound_bytes)
        need = f"within {within} of what the requests themselves need"
        return f"none of these settings helps much: reserved memory is {need}"
    return "none of these settings helps"


def _served_words(n_served: int, n_failed: int) -> str:
    """How many of the requests that fail under the recorded settings others serve."""
    fail = "fails" if n_failed == 1 else "fail"
    return f"{format_count(n_served)} of {format_items(n_failed, 'request')} that {fail} under the recorded settings"


def _uncompared_words(verdict: Verdict) -> str:
    if verdict.kind == "not reproduced":
        return (
            "replayed under the recorded settings, the run does not end as it did in the recording: what these "
            "replays say of it cannot be trusted"
        )
    if verdict.recorded is not None and verdict.best is not None:
        how = verdict.best.conf or "the default settings"
        return f"{_full_words(verdict.recorded)}; {how} would serve that one request"
    if verdict.kind == "serves more" and verdict.best is not None:
        how = verdict.best.conf or "the default settings"
        return f"of these, {how} would serve {_served_words(verdict.n_served, verdict.n_failed)}"
    if verdict.best is not None:
        how, need = verdict.best.conf or "the default settings", format_bytes(verdict.best.peak_reserved_bytes)
        return f"the recorded settings run out of memory on this device; of these, {how} would fit, reserving {need}"
    if verdict.kind == "not recorded":
        return _NOT_RECORDED
    if verdict.kind == "not measured":
        return "the recorded peak of reserved memory was not measured, so nothing can be compared with it"
    if verdict.kind == "none replayed":
        return "no setting of PyTorch's allocator was replayed"
    return "every replay of PyTorch's allocator ran out of memory"


def calibration_words(comparison: Comparison) -> str:
    """Whether the replay under the recorded settings gives what was recorded: the error of everything else here."""
    again, recorded = comparison.replayed, comparison.recorded.peak_reserved_bytes
    failed = None if comparison.as_recorded is None else comparison.as_recorded.oom
    if not comparison.limits.is_as_recorded and (failed is not None or comparison.recorded.fatal_event is not None):
        return "These replays are for another device than the recorded one, so their error is not known."
    if failed is not None:
        return _failure_words(failed, comparison.recorded.fatal_event)
    if comparison.recorded.fatal_event is not None and again is not None:
        return "⚠ Check: replayed under the recorded settings, the request is served that failed in the recording."
    if again is None:
        return "The recorded settings are not among the replays that ran, so the error of these is not known."
    if recorded is None:
        return "Reserved bytes were not recorded, so the error of these replays is not known."
    if again.peak_reserved_bytes == recorded:
        return "Check: replayed under the recorded settings, the peak is the recorded one to the byte."
    if not recorded:
        return "⚠ Check: replayed under the recorded settings, memory is reserved where none was recorded."
    error = again.peak_reserved_bytes / recorded - 1
    off = f"{format_fraction(abs(error))} {'above' if error > 0 else 'below'}"
    return f"⚠ Check: replayed under the recorded settings, the peak is {off} the recorded one; so are the others."


def _failure_words(failed: ReplayOom, fatal_event: int | None) -> str:
    """What it means that the recorded settings run out of memory in a replay too."""
    if failed.event == fatal_event:
        return "Check: replayed under the recorded settings, the request that failed in the recording fails too."
    where = "before the first event" if failed.event == NONE_ID else f"at event {failed.event:,}"
    if fatal_event is None:
        return f"⚠ Check: replayed under the recorded settings, memory runs out {where}, where the recording went on."
    return f"⚠ Check: replayed under the recorded settings, memory runs out {where}, not at event {fatal_event:,}."


def conf_label(strategy: str, conf: str | None) -> str:
    """A strategy and its settings as people write them."""
    if strategy != "caching":
        return strategy.replace("-", " ")
    return conf or "default settings"


def result_label(comparison: Comparison, result: ReplayResult) -> str:
    """A replay's name beside the recording: the recorded settings are called so."""
    return REPLAYED if result is comparison.as_recorded else conf_label(result.strategy, result.conf)


def change_words(reserved_bytes: int, recorded_bytes: int | None) -> str:
    """How a replay's peak differs from the recorded one: ``−12.3 %``."""
    if not recorded_bytes:
        return ""
    if reserved_bytes == recorded_bytes:
        return "equal"
    change = reserved_bytes / recorded_bytes - 1
    if abs(change) < _SMALLEST_FRAC:
        return "almost equal"
    return f"{'+' if change > 0 else '−'}{format_fraction(abs(change))}"


def signed_bytes(saved_bytes: int) -> str:
    """A saving; a loss has a minus sign."""
    return f"−{format_bytes(-saved_bytes)}" if saved_bytes < 0 else format_bytes(saved_bytes)


def limits_words(limits: Limits) -> str:
    """The device that replays are made for, and how that is known."""
    if limits.total_bytes is None:
        return "no limit: the device's memory was not recorded, and no capacity was given"
    others = limits.reserved_by_others_bytes
    held = f", {format_bytes(others)} of it held by others" if others else ""
    words = f"on a device of {format_bytes(limits.total_bytes)} ({limits.source}){held}"
    cap = limits.cap_bytes(1.0)
    if cap is None:
        return words
    share = f"a fraction of {limits.memory_fraction:g}, {limits.fraction_source}"
    return f"{words}; PyTorch may reserve {format_bytes(cap)} ({share})"


def oom_words(oom: ReplayOom) -> str:
    """Where a replay ran out of memory, and what was free then."""
    where = "before the first event" if oom.event == NONE_ID else f"at event {oom.event:,}"
    words = f"out of memory {where}, asking for {format_bytes(oom.requested_bytes)} with "
    words += f"{format_bytes(oom.free_bytes)} free on the device"
    if oom.reserved_free_bytes:
        largest = format_bytes(oom.largest_free_block_bytes or 0)
        words += f" and {format_bytes(oom.reserved_free_bytes)} free in reserved memory (largest block {largest})"
    return words


def _full_words(recorded: RecordedRun) -> str:
    """That a layout is not what was lacking when the recording ended in a failure."""
    assert recorded.free_at_failure is not None
    free, had = recorded.free_at_failure
    share = format_fraction(free / had)
    to_come = ""
    if recorded.to_come_bytes > free:
        to_come = f", and the optimizer had at least {format_bytes(recorded.to_come_bytes)} of its state still to make"
    return (
        f"fragmentation is not your problem: {format_bytes(free)} ({share}) of the {format_bytes(had)} that PyTorch "
        f"could have were free when the request failed{to_come}"
    )


def tuning_words(tuning: Tuning) -> str:
    """What follows from a search, in one sentence without its capital and its full stop."""
    best, baseline, gain, above = tuning.best, tuning.baseline_bytes, tuning.gain_bytes, tuning.above_bound_frac
    if best is None:
        need = format_bytes(tuning.lower_bound.peak_reserved_bytes)
        return f"no setting avoids running out of memory: the requests alone need {need}"
    after = format_bytes(best.peak_reserved_bytes)
    if not tuning.reproduces:
        return (
            "replayed under the recorded settings, the run does not end as it did in the recording: on that "
            "ground no setting is recommended"
        )
    if tuning.recorded.is_full and tuning.limits.is_as_recorded:
        return f"{_full_words(tuning.recorded)}; {best.conf or 'the default settings'} would serve that one request"
    if tuning.recorded.fatal_event is not None and tuning.limits.is_as_recorded:
        return (
            f"the request that failed in the recording is served with these; they need {after}, and what would have "
            "followed is not known"
        )
    if tuning.baseline is not None and tuning.baseline.oom is not None:
        return f"the settings as recorded run out of memory; these need {after}"
    if tuning.n_more_served and tuning.baseline is not None:
        return f"serves {_served_words(tuning.n_more_served, tuning.baseline.n_ooms or 0)}"
    n_failed = 0 if tuning.baseline is None or tuning.recorded.fatal_event is not None else tuning.baseline.n_ooms or 0
    if n_failed and tuning.recommended_conf is None:
        if n_failed == 1:
            return "no setting serves the request that failed in the recording"
        return f"no setting serves more of the {format_items(n_failed, 'request')} that failed in the recording"
    if baseline is None or gain is None:
        return f"the best setting needs {after}; what was reserved is not measured"
    if tuning.recommended_conf is not None:
        before, then = format_alike(baseline, baseline - gain)
        return f"saves {format_bytes(gain)} ({format_fraction(gain / baseline)}): {before} → {then}"
    if not tuning.recorded.has_requests and (above is None or above > NEAR_BOUND_FRAC):
        return _NOT_RECORDED
    if tuning.is_wasted_before and tuning.cached_before_bytes is not None:
        return (
            f"{format_bytes(tuning.cached_before_bytes)} were cached before the recording began and not in use then: "
            "a replay does not have them, so that no setting is judged by them"
        )
    if tuning.error_bytes > max(gain, 0) and tuning.error_bytes > NEGLIGIBLE_FRAC * baseline:
        off = format_fraction(tuning.error_bytes / (tuning.recorded.peak_reserved_bytes or 1))
        return f"nothing is recommended: the replay of the recorded settings is {off} off the recorded peak"
    if above is not None and above <= NEAR_BOUND_FRAC:
        return f"fragmentation is not your problem: reserved is within {format_fraction(above)} of the lower bound"
    tail = "" if above is None else f"; reserved is {format_fraction(above)} above the lower bound"
    return f"no setting of the allocator helps: the best saves {format_bytes(max(gain, 0))}{tail}"
