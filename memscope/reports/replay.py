"""Reports of verification and of replays, as JSON and as text."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from memscope.analysis import Analysis
from memscope.replay.compare import Comparison
from memscope.replay.engine import ReplayResult
from memscope.replay.verify import DeviceVerification, VerifyResult
from memscope.reports.json import trace_json
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_fraction

_LEGEND = (
    "reserved, active: peaks, each at its own moment; efficiency: their ratio; allocs, frees: the driver's",
    "exact = PyTorch's own decisions for these requests; modelled = under named assumptions; bound = a lower limit",
)


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
    for device in result.devices:
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
    """The object of ``memscope replay --json``."""
    recorded = comparison.recorded
    return {
        "trace": trace_json(analysis),
        "device": comparison.device,
        "recorded": {
            "conf": recorded.conf,
            "peak_reserved_bytes": recorded.peak_reserved_bytes,
            "peak_active_bytes": recorded.peak_active_bytes,
            "efficiency_frac": recorded.efficiency_frac,
            "n_device_allocs": recorded.n_device_allocs,
            "n_device_frees": recorded.n_device_frees,
            "n_ooms": recorded.n_ooms,
        },
        "results": [_result_json(result) for result in comparison.results],
        "verdict": comparison.verdict(),
    }


def _result_json(result: ReplayResult) -> dict[str, Any]:
    oom = result.oom
    return {
        "strategy": result.strategy,
        "conf": result.conf,
        "exactness": result.exactness,
        "peak_reserved_bytes": result.peak_reserved_bytes,
        "peak_active_bytes": result.peak_active_bytes,
        "efficiency_frac": result.efficiency_frac,
        "n_device_allocs": result.n_device_allocs,
        "n_device_frees": result.n_device_frees,
        "n_retries": result.n_retries,
        "oom": None
        if oom is None
        else {"event": oom.event, "requested_bytes": oom.requested_bytes, "free_bytes": oom.free_bytes},
        "notes": list(result.notes),
    }


def print_comparison(analysis: Analysis, comparison: Comparison, console: Console) -> None:
    """Print the recording beside its replays, and what follows."""
    console.print(Text(f"{analysis.name}, device {comparison.device}: {comparison.verdict()}", style="bold"))
    table = Table(box=None, padding=(0, 1, 0, 2), header_style="dim")
    table.add_column("strategy", no_wrap=True)
    table.add_column("settings", overflow="fold", min_width=34)
    for heading in ("reserved", "active", "efficiency", "allocs", "frees", "retries"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    recorded = comparison.recorded
    table.add_row(
        "recorded",
        "not recorded" if recorded.conf is None else recorded.conf or "default",
        "not measured" if recorded.peak_reserved_bytes is None else format_bytes(recorded.peak_reserved_bytes),
        format_bytes(recorded.peak_active_bytes),
        "" if recorded.efficiency_frac is None else format_fraction(recorded.efficiency_frac),
        format_count(recorded.n_device_allocs),
        format_count(recorded.n_device_frees),
        "",
        "",
        style="bold",
    )
    for result in comparison.results:
        table.add_row(
            result.strategy,
            "" if result.conf is None else result.conf or "default",
            format_bytes(result.peak_reserved_bytes),
            format_bytes(result.peak_active_bytes),
            format_fraction(result.efficiency_frac),
            *("" if n is None else format_count(n) for n in (result.n_device_allocs, result.n_device_frees)),
            "" if result.n_retries is None else format_count(result.n_retries),
            Text(
                result.exactness if result.oom is None else "out of memory",
                style="dim" if result.oom is None else "red",
            ),
        )
    console.print(table)
    for line in _LEGEND:
        console.print(Text(f"  {line}", style="dim"))
    for result in comparison.results:
        if result.oom is not None:
            oom = result.oom
            console.print(
                Text(
                    f"  {result.strategy}: out of memory after event {oom.event:,}, asking for "
                    f"{format_bytes(oom.requested_bytes)} with {format_bytes(oom.free_bytes)} free",
                    style="red",
                )
            )
    for note in sorted({note for result in comparison.results for note in result.notes}):
        console.print(Text(f"  · {note}", style="dim"))
