"""Reports of verification and of replays, as JSON and as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from memscope.advise.confs import harmful_combinations
from memscope.advise.tune import Tuning
from memscope.analysis import Analysis
from memscope.device.limits import Limits
from memscope.names import shown
from memscope.replay.compare import Comparison, RecordedRun
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.result import ReplayResult
from memscope.replay.verify.verify import DeviceVerification, VerifyResult
from memscope.reports.json import state_metrics_json, trace_json
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_duration, format_fraction
from memscope.words.replay import (
    CAP_WORDS,
    COST_WORDS,
    LEGEND,
    NOT_SAVED_WORDS,
    PREFERRED_WORDS,
    SHORT_LEGEND,
    TUNE_WORDS,
    limits_words,
    oom_words,
    signed_bytes,
    tuning_words,
    verdict_words,
)

_N_ASSUMPTIONS = 3
"""Up to so many assumptions of modelled strategies are printed at once."""


def verification_json(analysis: Analysis, result: VerifyResult) -> dict[str, Any]:
    """The object of ``memscope verify --json``."""
    return {
        "trace": trace_json(analysis),
        "exact": result.exact,
        "n_events_compared": result.n_events_compared,
        "n_events_skipped": result.n_events_skipped,
        "inferred": [
            {"device": device.device, "what": what, "n": n}
            for device in result.devices
            for what, n in device.inferred.items()
        ],
        "first_divergence": _divergence_json(next((d for d in result.devices if d.first_divergence), None)),
        "devices": [
            {
                "device": device.device,
                "exact": device.exact,
                "n_events": device.n_events,
                "n_events_compared": device.n_events_compared,
                "skipped": list(device.skipped),
                "not_comparable": device.not_comparable,
                "first_divergence": _divergence_json(device),
                "recorded_reserved_bytes": device.recorded_reserved_bytes,
                "replayed_reserved_bytes": device.replayed_reserved_bytes,
                "recorded_peak_reserved_bytes": device.recorded_peak_reserved_bytes,
                "replayed_peak_reserved_bytes": device.replayed_peak_reserved_bytes,
            }
            for device in result.devices
        ],
    }


def _divergence_json(device: DeviceVerification | None) -> dict[str, Any] | None:
    if device is None or device.first_divergence is None:
        return None
    divergence = device.first_divergence
    return {
        "event": divergence.event,
        "expected": divergence.expected,
        "got": divergence.got,
        "reason": divergence.reason,
    }


def verification_failure(result: VerifyResult) -> str:
    """Why a verification is not exact, in one line."""
    used = [device for device in result.devices if device.has_requests]
    for device in used or result.devices:
        if device.not_comparable is not None:
            return f"device {device.device} cannot be verified: {device.not_comparable}"
        if device.first_divergence is not None:
            divergence = device.first_divergence
            when = "at the end" if divergence.event == NONE_ID else f"at event {divergence.event:,}"
            return f"device {device.device} diverges {when}: recorded {divergence.expected}, replayed {divergence.got}"
    return "the trace has no device to verify"


def print_verification(analysis: Analysis, result: VerifyResult, console: Console) -> None:
    """Print what was compared, what was inferred, and where replay and recording part."""
    console.print(Text(analysis.name, style="bold"))
    is_dry_run = analysis.is_dry_run
    for device in result.devices:
        _print_device(device, "as the dry run recorded them" if is_dry_run else "as PyTorch made them", console)
    if is_dry_run:
        console.print(
            Text(
                "    a dry run's addresses come from this same simulator: this proves the file and the replay, "
                "not the prediction",
                style="dim",
            )
        )


def _print_device(device: DeviceVerification, as_recorded: str, console: Console) -> None:
    if device.exact:
        console.print(
            Text(
                f"  ● device {device.device}: exact. {format_count(device.n_events_compared)} of "
                f"{format_count(device.n_events)} events, every address and the final blocks are {as_recorded}",
                style="green",
            )
        )
    elif device.not_comparable is not None:
        console.print(Text(f"  ○ device {device.device}: not comparable: {device.not_comparable}", style="yellow"))
    else:
        console.print(
            Text(f"  ✕ device {device.device}: diverges after {device.n_events_compared:,} equal events", style="red")
        )
        divergence = device.first_divergence
        if divergence is not None:
            console.print(Text(f"    recorded  {divergence.expected}\n    replayed  {divergence.got}"))
            console.print(Text(f"    {divergence.reason}", style="dim"))
    if device.recorded_peak_reserved_bytes is not None and device.replayed_peak_reserved_bytes is not None:
        console.print(
            f"    peak reserved: recorded {format_count(device.recorded_peak_reserved_bytes)} bytes, "
            f"replayed {format_count(device.replayed_peak_reserved_bytes)} bytes"
        )
    for text in device.skipped:
        console.print(Text(f"    not compared: {text}", style="yellow"))
    for what, n in device.inferred.items():
        console.print(Text(f"    inferred: {what} ({format_count(n)})", style="dim"))


def comparison_json(analysis: Analysis, comparison: Comparison) -> dict[str, Any]:
    """The object of ``memscope replay --json`` for one trace; results by peak reserved bytes, lowest first."""
    return {
        "trace": trace_json(analysis),
        "device": comparison.device,
        "capacity": _limits_json(comparison.limits),
        "recorded": recorded_json(comparison.recorded),
        "results": [
            {**result_json(result), "saved_bytes": comparison.saved_bytes(result)} for result in comparison.ranked
        ],
        "verdict": verdict_words(comparison.verdict),
    }


def _limits_json(limits: Limits) -> dict[str, Any]:
    return {
        "total_bytes": limits.total_bytes,
        "reserved_by_others_bytes": limits.reserved_by_others_bytes,
        "source": limits.source,
        "memory_fraction": limits.memory_fraction,
        "memory_fraction_source": None if limits.memory_fraction is None else limits.fraction_source,
    }


def recorded_json(recorded: RecordedRun) -> dict[str, Any]:
    """What the recording did, in the terms of a replay."""
    return {
        "conf": recorded.conf,
        "peak_reserved_bytes": recorded.peak_reserved_bytes,
        "peak_active_bytes": recorded.peak_active_bytes,
        "efficiency_frac": recorded.efficiency_frac,
        "n_device_allocs": recorded.n_device_allocs,
        "n_device_frees": recorded.n_device_frees,
        "n_ooms": recorded.n_ooms,
        "fatal_event": recorded.fatal_event,
    }


def result_json(result: ReplayResult) -> dict[str, Any]:
    """One replay."""
    calls, unused = result.driver_calls, result.unused
    return {
        "strategy": result.strategy,
        "conf": result.conf,
        "exactness": result.exactness,
        "peak_reserved_bytes": result.peak_reserved_bytes,
        "peak_active_bytes": result.peak_active_bytes,
        "efficiency_frac": result.efficiency_frac,
        "unused_bytes": None if unused is None else unused._asdict(),
        "n_device_allocs": result.n_device_allocs,
        "n_device_frees": result.n_device_frees,
        "n_retries": result.n_retries,
        "n_ooms": result.n_ooms,
        "driver_calls": None if calls is None else dict(calls.counts),
        "driver_cost_ns_modelled": None if calls is None else calls.modelled_cost_ns,
        "oom": None if result.oom is None else asdict(result.oom),
        "fragmentation": None if result.fragmentation is None else state_metrics_json(result.fragmentation),
        "notes": list(result.notes),
    }


def print_comparison(analysis: Analysis, comparison: Comparison, console: Console, how_explained: str = "") -> None:
    """Print the recording beside its replays, and what follows.

    Parameters
    ----------
    how_explained
        How the reader gets at the assumptions of the modelled strategies, which then are only counted where they are
        many; empty to print them all, and the whole legend.
    """
    console.print(
        Text(f"{analysis.name}, device {comparison.device}: {verdict_words(comparison.verdict)}", style="bold")
    )
    console.print(_limits_line(comparison.limits))
    table = FittedTable(
        Column("strategy", Kind.NAME),
        Column("settings", Kind.SETTING),
        Column("reserved"),
        Column("saved", place=1),
        Column("efficiency", place=3),
        Column("calls", place=4),
        Column("≈ cost", place=5),
        Column("retries", place=6),
        *((_REFUSED,) if _has_survived(comparison.recorded) else ()),
        Column("", Kind.NAME, place=2, called="how exact"),
    )
    recorded = comparison.recorded
    table.add_row(
        "recorded",
        "not recorded" if recorded.conf is None else shown(recorded.conf) or "default",
        "not measured" if recorded.peak_reserved_bytes is None else format_bytes(recorded.peak_reserved_bytes),
        "",
        "" if recorded.efficiency_frac is None else format_fraction(recorded.efficiency_frac),
        "",
        "",
        "",
        *_refused_cells(recorded, recorded.n_ooms),
        style="bold",
    )
    for result in comparison.ranked:
        table.add_row(*_cells(comparison, result))
    table.print(console)
    for line in (*_unsaved_words(comparison), *(SHORT_LEGEND if how_explained else LEGEND), TUNE_WORDS):
        console.print(Text(f"  {line}", style="dim"))
    if comparison.limits.cap_bytes(1.0) is not None and any(one.strategy != "caching" for one in comparison.results):
        console.print(Text(f"  {CAP_WORDS}", style="dim"))
    for result in comparison.ranked:
        if result.oom is not None:
            name = f"{result.strategy} {result.conf}" if result.conf else result.strategy
            console.print(Text(f"  {name}: {oom_words(result.oom)}", style="red"))
    for conf in dict.fromkeys(result.conf for result in comparison.results if result.conf):
        for words in harmful_combinations(CachingAllocatorConfig.parse(conf), comparison.limits.memory_fraction):
            console.print(Text(f"  ! {conf}: {words}", style="yellow"))
    _print_notes(comparison, how_explained, console)


def _unsaved_words(comparison: Comparison) -> tuple[str, ...]:
    """Why no saving is told where that is no replay's doing."""
    ended = comparison.recorded.fatal_event is not None and comparison.recorded.peak_reserved_bytes is not None
    return (NOT_SAVED_WORDS,) if ended and comparison.replayed is None else ()


def _print_notes(comparison: Comparison, how_explained: str, console: Console) -> None:
    """Print what is assumed of this recording, and what modelled strategies assume besides, or how much that is."""
    exact = dict.fromkeys(note for result in comparison.results for note in _notes_of_recording(result))
    assumed = dict.fromkeys(note for result in comparison.results for note in result.notes if note not in exact)
    is_counted = bool(how_explained) and len(assumed) > _N_ASSUMPTIONS
    for note in (*exact, *(() if is_counted else assumed)):
        console.print(Text(f"  · {note}", style="dim"))
    if is_counted:
        words = f"modelled strategies rest on {format_count(len(assumed))} assumptions: {how_explained}"
        console.print(Text(f"  · {words}", style="dim"))


def _notes_of_recording(result: ReplayResult) -> tuple[str, ...]:
    """What is assumed whatever the strategy, as far as PyTorch's own allocator says it."""
    return result.notes if result.strategy in ("caching", "lower-bound") else ()


def _limits_line(limits: Limits) -> Text:
    return Text(f"  {limits_words(limits)}", style="dim")


_REFUSED = Column("refused", place=1)


def _has_survived(recorded: RecordedRun) -> bool:
    """Whether requests failed after which the program went on: then it counts how many settings serve."""
    return recorded.n_ooms > (recorded.fatal_event is not None)


def _refused_cells(recorded: RecordedRun, n_ooms: int | None) -> list[str]:
    """How many requests were refused; None where that was not counted to the end."""
    if not _has_survived(recorded):
        return []
    return ["" if n_ooms is None else format_count(n_ooms)]


def _cells(comparison: Comparison, result: ReplayResult) -> list[str | Text]:
    saved, calls = comparison.saved_bytes(result), result.driver_calls
    failed = result.oom is not None
    efficiency = result.efficiency_frac
    return [
        result.strategy,
        "" if result.conf is None else result.conf or "default",
        "" if efficiency is None else format_bytes(result.peak_reserved_bytes),
        "" if saved is None else signed_bytes(saved),
        "" if efficiency is None else format_fraction(efficiency),
        "" if calls is None else format_count(calls.n_calls),
        "" if calls is None else format_duration(calls.modelled_cost_ns),
        "" if result.n_retries is None else format_count(result.n_retries),
        *_refused_cells(comparison.recorded, None if failed else result.n_ooms),
        Text("out of memory" if failed else result.exactness, style="red" if failed else "dim"),
    ]


def tuning_json(analysis: Analysis, tuning: Tuning, top: int) -> dict[str, Any]:
    """The object of ``memscope tune --json``."""
    best = tuning.best
    return {
        "trace": trace_json(analysis),
        "device": tuning.device,
        "capacity": _limits_json(tuning.limits),
        "recommended_conf": tuning.recommended_conf,
        "line": tuning.line,
        "predicted_peak_reserved_bytes": None if best is None else best.peak_reserved_bytes,
        "recorded_peak_reserved_bytes": tuning.recorded.peak_reserved_bytes,
        "replayed_peak_reserved_bytes": tuning.baseline_bytes,
        "gain_bytes": tuning.gain_bytes,
        "lower_bound_bytes": tuning.lower_bound.peak_reserved_bytes,
        "above_lower_bound_frac": tuning.above_bound_frac,
        "verdict": tuning_words(tuning),
        "n_replays": len(tuning.results),
        "best": None if best is None else result_json(best),
        "results": [result_json(result) for result in tuning.results[:top]],
        "warnings": list(tuning.warnings),
    }


def print_tuning(analysis: Analysis, tuning: Tuning, console: Console, top: int) -> None:
    """Print the line to set, what it gains and costs, and how far the answer can be trusted."""
    console.print(Text(f"{analysis.name}, device {tuning.device}: {tuning_words(tuning)}", style="bold"))
    console.print(_limits_line(tuning.limits))
    if tuning.line is not None:
        # On a line of its own, without decoration: it is there to be copied.
        console.print(Text(f"\n{tuning.line}\n", style="bold green"), soft_wrap=True)
    table = FittedTable(
        Column("settings", Kind.SETTING),
        Column("peak reserved"),
        Column("calls", place=2),
        Column("≈ cost", place=3),
        Column("retries", place=4),
        *((_REFUSED,) if _has_survived(tuning.recorded) else ()),
        Column("", Kind.NAME, place=1, called="how exact"),
    )

    def is_chosen(result: ReplayResult | None) -> bool:
        return result is not None and result is tuning.best and tuning.recommended_conf is not None

    for label, result in _tuning_rows(tuning, top):
        calls = result.driver_calls
        table.add_row(
            label,
            format_bytes(result.peak_reserved_bytes),
            "" if calls is None else format_count(calls.n_calls),
            "" if calls is None else format_duration(calls.modelled_cost_ns),
            "" if result.n_retries is None else format_count(result.n_retries),
            *_refused_cells(tuning.recorded, None if result.oom else result.n_ooms),
            Text("out of memory" if result.oom else result.exactness, style="red" if result.oom else "dim"),
            style="bold" if is_chosen(result) else "",
        )
    table.print(console)
    if is_chosen(tuning.best) and tuning.best is not tuning.results[0]:
        console.print(Text(f"  {PREFERRED_WORDS}", style="dim"))
    console.print(Text(f"  {len(tuning.results)} settings replayed; calls are the driver's, {COST_WORDS}", style="dim"))
    for words in tuning.warnings:
        console.print(Text(f"  ! {words}", style="yellow"))
    notes = () if tuning.best is None else tuning.best.notes
    for note in notes:
        console.print(Text(f"  · {note}", style="dim"))


def _tuning_rows(tuning: Tuning, top: int) -> Iterator[tuple[str, ReplayResult]]:
    if tuning.baseline is not None:
        yield f"as recorded: {tuning.baseline.conf or 'default'}", tuning.baseline
    shown_results = tuning.results[:top]
    if tuning.best is not None and all(one is not tuning.best for one in shown_results):
        yield tuning.best.conf or "default", tuning.best
    for result in shown_results:
        yield result.conf or "default", result
    yield "lower bound", tuning.lower_bound
