"""The object of ``memscope whatif --json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from memscope.device.recording import RecordedTrace
from memscope.reports.json import trace_json
from memscope.techniques.fit import FitPlan
from memscope.techniques.whatif import Peaks, WhatIf, WhatIfs


def what_ifs_json(recording: RecordedTrace, found: WhatIfs) -> dict[str, Any]:
    """One device: the baseline, each technique by itself, and all together where several were asked for."""
    allocated_bytes, reserved_bytes = found.recorded
    return {
        "trace": trace_json(recording),
        "device": found.device,
        "baseline": _peaks(found.baseline),
        "recorded": {"peak_allocated_bytes": allocated_bytes, "peak_reserved_bytes": reserved_bytes},
        "failed_request_bytes": found.failed_bytes,
        "results": [what_if_json(result) for result in found.results],
        "together": None if found.together is None else what_if_json(found.together),
        "not_applicable": [{"technique": name, "reason": reason} for name, reason in found.not_applicable],
        "warnings": list(found.warnings),
    }


def fit_plan_json(recording: RecordedTrace, device: int, plan: FitPlan) -> dict[str, Any]:
    """The object of ``memscope whatif --fit --json``."""
    return {
        "trace": trace_json(recording),
        "device": device,
        "gpu": plan.gpu,
        "capacity_bytes": plan.capacity_bytes,
        "baseline": _peaks(plan.baseline),
        "fits": plan.fits,
        "n_retries": plan.n_retries,
        "spare_bytes": plan.spare_bytes,
        **_peaks(plan.peaks),
        "plan": list(plan.techniques),
        "results": [what_if_json(step) for step in plan.steps],
        "warnings": list(plan.warnings),
    }


def what_if_json(result: WhatIf) -> dict[str, Any]:
    """One technique, or several together; ``cost`` and ``how`` have an entry for each."""
    return {
        "technique": result.technique,
        **_peaks(result.peaks),
        "saved_bytes": result.saved_bytes,
        "saved_allocated_bytes": result.saved_allocated_bytes,
        "cost": [asdict(cost) for cost in result.costs],
        "proof": result.proof,
        "how": list(result.hows),
        "note": result.note,
        "assumes": list(result.assumes),
    }


def _peaks(peaks: Peaks) -> dict[str, int]:
    return {"peak_allocated_bytes": peaks.allocated_bytes, "peak_reserved_bytes": peaks.reserved_bytes}
