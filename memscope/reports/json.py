"""The JSON contract: what ``--json`` prints, verb by verb. Bytes are integers, what was not measured is null."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from memscope.analysis import Analysis, Opinions
from memscope.attribution.driver_usage import DriverUsage
from memscope.device.device import Moment
from memscope.device.recording import RecordedTrace
from memscope.fragmentation.metrics import Fragmentation, FragmentationMetrics
from memscope.reports.text import findings_json
from memscope.trace.marks import describe_moment

_N_UNKNOWN_SITES = 10


def trace_json(recording: RecordedTrace) -> dict[str, Any]:
    """Provenance and settings of a trace."""
    trace, metadata = recording.trace, recording.trace.metadata
    return {
        "name": recording.name,
        "source": metadata.source,
        "is_emulated": metadata.is_emulated,
        "source_file": metadata.source_file,
        "torch_version": metadata.torch_version,
        "n_events": trace.n_events,
        "n_segments": len(trace.segments),
        "n_blocks": len(trace.blocks),
        "n_stacks": len(trace.stacks),
        "settings": metadata.allocator_settings,
        "alloc_conf": metadata.alloc_conf,
        "tie_rule": None if metadata.tie_rule is None else metadata.tie_rule.name.lower(),
        "device_names": {str(device): name for device, name in metadata.device_names.items()},
        "device_total_bytes": {str(device): size for device, size in metadata.device_total_bytes.items()},
        "memory_fraction": {str(device): fraction for device, fraction in metadata.memory_fraction.items()},
        "rank": metadata.rank,
        "notes": list(metadata.notes),
    }


def report_json(analysis: Analysis) -> dict[str, Any]:
    """The object of ``memscope report --json``; no devices where the trace contradicts itself."""
    found = analysis.contradictions
    content: dict[str, Any] = {"trace": trace_json(analysis)}
    if found:
        unknown = dict.fromkeys(
            ("n_events_lost", "n_unmatched_frees", "preexisting_bytes", "n_events_without_stack", "n_events_after_oom")
        )
        content["completeness"] = {**unknown, "warnings": [], "contradictions": list(found)}
        content["devices"] = []
        content["findings"] = []
        return content
    completeness = asdict(analysis.completeness)
    completeness["is_complete"] = analysis.completeness.is_complete
    content["completeness"] = {
        name: list(value) if isinstance(value, tuple) else value for name, value in completeness.items()
    }
    content["devices"] = [device_json(analysis.opinions(device.index)) for device in analysis.devices]
    content["findings"] = [finding for device in content["devices"] for finding in device["findings"]]
    return content


def device_json(opinions: Opinions) -> dict[str, Any]:
    """One device of a report, at its peak of allocated memory."""
    device = opinions.device
    peak = device.peak()
    return {
        "device": device.index,
        "name": device.name,
        "total_bytes": device.total_bytes,
        "headroom_bytes": device.headroom_bytes,
        "n_events": device.n_events,
        "n_allocations": len(device.allocations),
        "n_ooms": len(device.oom_events),
        "peak": usage_json(peak),
        "peak_reserved": usage_json(device.peak_reserved()),
        "end": usage_json(device.end()),
        "ledger": ledger_json(peak),
        "coverage": coverage_json(peak),
        "unknown_sites": unknown_sites_json(peak),
        "peak_by_category": {category.label: int(series.max()) for category, series in device.category_usage.items()},
        "fragmentation": fragmentation_of(peak),
        "findings": findings_json(opinions.findings),
        "findings_notes": list(opinions.findings.notes),
    }


def usage_json(moment: Moment) -> dict[str, Any]:
    """Where a moment lies and what is in use then."""
    return {
        "event": moment.event,
        "time_ns": moment.time_ns,
        "where": describe_moment(moment.device.trace, moment.event) or None,
        "allocated_bytes": moment.allocated_bytes,
        "active_bytes": moment.active_bytes,
        "reserved_bytes": moment.reserved_bytes,
    }


def ledger_json(moment: Moment) -> dict[str, Any]:
    """A moment's ledger."""
    ledger = moment.ledger
    return {
        "event": ledger.event,
        "rows": [{"name": row.name, "bytes": row.bytes} for row in ledger.rows],
        "total_bytes": ledger.total_bytes,
        "total_of": ledger.total_of,
        "unbacked_bytes": ledger.unbacked_bytes,
        "device_count": None if ledger.driver_usage is None else _driver_usage(ledger.driver_usage),
        "device_not_counted": ledger.not_measured or None,
        "collectives_modelled": None if ledger.modelled_collectives is None else asdict(ledger.modelled_collectives),
    }


def _driver_usage(count: DriverUsage) -> dict[str, Any]:
    """Everything that is used on the device, at the moment of its sample."""
    return {
        "event": count.event,
        "time_ns": count.time_ns,
        "rows": [{"name": row.name, "bytes": row.bytes} for row in count.rows],
        "total_bytes": count.total_bytes,
        "is_same_reserved": count.is_same_reserved,
    }


def coverage_json(moment: Moment) -> dict[str, Any]:
    """How much of a moment has a category."""
    return asdict(moment.coverage)


def unknown_sites_json(moment: Moment) -> list[dict[str, Any]]:
    """The lines of code of the most memory in use that has no category, largest first."""
    return [
        {"site": group.label, "bytes": group.requested_bytes, "n_allocations": group.n_allocations}
        for group in moment.unknown_sites(_N_UNKNOWN_SITES)
    ]


def metrics_json(metrics: FragmentationMetrics) -> dict[str, Any]:
    """Every number of one group, or of all."""
    return {
        "pool": None if metrics.pool is None else list(metrics.pool),
        "stream": metrics.stream,
        "size_class": metrics.size_class,
        "reserved_bytes": metrics.reserved_bytes,
        "active_bytes": metrics.active_bytes,
        "requested_bytes": metrics.requested_bytes,
        "rounding_bytes": metrics.rounding_bytes,
        "free_bytes": metrics.free_bytes,
        "releasable_bytes": metrics.releasable_bytes,
        "free_in_split_segments_bytes": metrics.free_in_split_segments_bytes,
        "largest_free_block_bytes": metrics.largest_free_block_bytes,
        "utilisation_frac": metrics.utilisation_frac,
        "scatter_frac": metrics.scatter_frac,
        "n_segments": metrics.n_segments,
        "n_active_blocks": metrics.n_active_blocks,
        "n_free_blocks": metrics.n_free_blocks,
    }


def fragmentation_of(moment: Moment) -> dict[str, Any] | None:
    """Fragmentation of a moment; None where the layout was not recorded."""
    if not moment.lifetimes.segments_are_known:
        return None
    return state_metrics_json(moment.fragmentation)


def state_metrics_json(fragmentation: Fragmentation) -> dict[str, Any]:
    """Fragmentation of one state: in all, and by group."""
    overall = metrics_json(fragmentation.overall)
    for name in ("pool", "stream", "size_class", "scatter_frac"):
        del overall[name]
    return {
        "event": fragmentation.event,
        **overall,
        "groups": [metrics_json(group) for group in fragmentation.groups],
    }


def moment_json(moment: Moment, by: str, top: int) -> dict[str, Any]:
    """The object of ``memscope peak --json``."""
    grouped, dtypes = moment.grouped(by), moment.dtypes(by)
    return {
        "trace": trace_json(moment.device.recording),
        "device": moment.device.index,
        **usage_json(moment),
        "by": by,
        "rows": [
            {
                by: group.label,
                "requested_bytes": group.requested_bytes,
                "block_bytes": group.block_bytes,
                "n_allocations": group.n_allocations,
                "dtypes": list(dtypes.get(group.label, ())),
            }
            for group in (grouped if by == "category" else grouped[:top])
        ],
        "n_rows": len(grouped),
        "ledger": ledger_json(moment),
        "coverage": coverage_json(moment),
        "unknown_sites": unknown_sites_json(moment),
    }
