"""Memory given beyond what was requested."""

from __future__ import annotations

import numpy as np

from memscope.device.device import Device
from memscope.findings.finding import Finding, Severity, sites_by_bytes
from memscope.findings.returned import Returned
from memscope.units import format_bytes, format_count, format_fraction

MIN_ROUNDING_BYTES = 16 << 20
WARNING_ROUNDING_FRAC = 0.05
SEVERE_ROUNDING_FRAC = 0.20
"""Share of the bytes in use. Rounding to 512 bytes costs well below 1 %; more comes from ``roundup_power2_divisions``,
from blocks too little larger than the request to be split, or from very many tiny tensors."""


def find_rounding(device: Device, returned: Returned) -> list[Finding]:
    """Bytes given beyond the requests, at the moment when they are most."""
    usage, table = device.usage, device.allocations
    rounding = usage.active_bytes - usage.requested_bytes
    index = int(np.argmax(rounding))
    most, active = int(rounding[index]), int(usage.active_bytes[index])
    if most < max(MIN_ROUNDING_BYTES, WARNING_ROUNDING_FRAC * active):
        return []
    event = usage.event_at(index)
    rows = np.flatnonzero(table.active_at(event))
    given = table.block_bytes[rows] - table.requested_bytes[rows]
    order = np.argsort(-given, kind="stable")
    n_half = int(np.searchsorted(np.cumsum(given[order]), most / 2)) + 1
    conf = device.trace.metadata.allocator_settings.get("roundup_power2_divisions") or {}
    is_set = any(conf.values())
    cause = " roundup_power2_divisions is set." if is_set else ""
    return [
        Finding(
            kind="rounding",
            severity=Severity.SEVERE if most >= SEVERE_ROUNDING_FRAC * active else Severity.WARNING,
            device=device.index,
            title=f"{format_bytes(most)} given beyond the requests, {format_fraction(most / active)} of what is in use",
            text=f"Half of it is in {format_count(n_half)} of {format_count(len(rows))} blocks.{cause}",
            bytes=most,
            event=event,
            view="allocations",
            rows=tuple(int(row) for row in rows[order[:20]]),
            sites=sites_by_bytes(device, rows, given),
            evidence={"active_bytes": active, "n_blocks": len(rows), "n_blocks_of_half": n_half},
            fix="leave roundup_power2_divisions out of the allocator's settings" if is_set else "",
            returned_bytes=returned.if_not_rounded() if is_set else None,
        )
    ]
