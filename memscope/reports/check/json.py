"""The objects of ``memscope check --json`` and ``memscope baseline --json``. Bytes are integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from memscope.compare.baseline import Baseline
from memscope.compare.gate import Gate, Unjudged
from memscope.reports.diff.json import rows_json


def check_json(gates: Sequence[Gate | Unjudged]) -> dict[str, Any]:
    """One check as its own object; several as a list, and whether all of them are well."""
    if len(gates) == 1:
        return _gate_json(gates[0])
    return {"ok": all(gate.is_ok for gate in gates), "checks": [_gate_json(gate) for gate in gates]}


def _gate_json(gate: Gate | Unjudged) -> dict[str, Any]:
    if isinstance(gate, Unjudged):
        return {
            "ok": False,
            "name": gate.check.name,
            "trace": gate.check.trace.name,
            "exit_code": gate.exit_code,
            "limits": [],
            "untrusted": [],
            "notes": [],
            "blame": [],
            "blamed_device": None,
            "blame_against": None,
            "error": gate.reason,
        }
    return {
        "ok": gate.is_ok,
        "name": gate.check.name,
        "trace": gate.analysis.name,
        "exit_code": gate.exit_code,
        "limits": [
            {
                "name": limit.name,
                "device": limit.device,
                "limit_bytes": limit.limit_bytes,
                "actual_bytes": limit.actual_bytes,
                "ok": limit.is_kept,
            }
            for limit in gate.limits
        ],
        "untrusted": list(gate.untrusted),
        "notes": list(gate.notes),
        "blame": rows_json(gate.blame),
        "blamed_device": gate.blamed_device,
        "blame_against": None if gate.blamed_device is None else "nothing" if gate.baseline is None else "baseline",
        "error": None,
    }


def baseline_json(baseline: Baseline) -> dict[str, Any]:
    """What a baseline holds; ``noise_bytes`` is how far the runs lie apart."""
    content = asdict(baseline)
    for name, band in (("peak_allocated", baseline.peak_allocated), ("peak_reserved", baseline.peak_reserved)):
        if band is not None:
            content[name]["noise_bytes"] = band.noise_bytes
    return content
